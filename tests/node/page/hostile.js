// What a page of a pod tries once it has found its way into Daypass's origin, beside the console. It says what it can.
const say = (what) => console.log(`hostile: ${what}`);

async function attack() {
  document.title = 'hostile';
  const script = new URL('hostile.js', location);
  await navigator.serviceWorker.register(script, { scope: '/' }).then(() => say('serves the origin'), () => {});
  const page = await (await fetch('/console/members')).text();
  if (page.includes('Sign out')) say('reads the console');
  // This empties the origin's storage.
  await fetch('/console/sign-out', { method: 'POST' });
  localStorage.hostile = 'kept';
  document.cookie = 'hostile=script; path=/; secure';
  say('is done');
}

say(`runs in ${self.origin}`);
if (self.document) attack();
