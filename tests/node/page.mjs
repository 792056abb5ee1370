// The page of a pod (folder page) in a browser, at its address in the gateway: in the console's origin.

import assert from 'node:assert/strict';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { eventually, given, run, sessionCookie } from '../console/lib.mjs';

const AT = `${given.url}${given.path}`;
const TEXT = 'a page of a pod';
const bearer = `Bearer ${given.token}`;
// What requests are for (Sec-Fetch-Dest), when a page of another site sends them, and when one of Daypass's own does.
const ELSEWHERE = ['document', 'embed', 'empty', 'iframe', 'image', 'object', 'script', 'style'];
const OWN = [...ELSEWHERE, 'serviceworker', 'sharedworker', 'worker'].sort();

const isAtTheGateway = ({ path }) => path.startsWith(given.path);
const listen = (server) => new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));

// Stands between a browser and Daypass, as an extension or a proxy can, and changes the headers of what goes to the
// gateway and comes from there. Is another site as well. `asked` has each request as the browser sent it.
async function between({ request = () => {}, answer = () => {} }) {
  const asked = [];
  const key = Buffer.from(given.key, 'base64').toString();
  const daypass = await listen(https.createServer({ key, cert: given.certificate }, (incoming, outgoing) => {
    const { method, url: path, headers } = incoming;
    const one = { path, method, dest: headers['sec-fetch-dest'] };
    asked.push(one);
    if (isAtTheGateway(one)) request(headers, path);
    delete headers.connection;
    const options = { method, headers, ca: given.certificate, agent: false };
    const sent = https.request(`${given.url}${path}`, options, (answered) => {
      one.status = answered.statusCode;
      delete answered.headers.connection;
      if (isAtTheGateway(one)) answer(answered.headers, path);
      outgoing.writeHead(answered.statusCode, answered.headers);
      answered.pipe(outgoing);
    });
    sent.on('error', () => outgoing.destroy());
    incoming.pipe(sent);
  }));
  const proxy = await listen(http.createServer((_, outgoing) => {
    outgoing.setHeader('content-type', 'text/html');
    outgoing.end('<p>another site</p>');
  }));
  proxy.on('connect', (asking, socket, head) => {
    // Chromium calls home.
    if (asking.url !== new URL(given.url).host) return socket.destroy();
    const through = net.connect(daypass.address().port, '127.0.0.1');
    socket.write('HTTP/1.1 200 OK\r\n\r\n');
    through.write(head);
    through.pipe(socket).pipe(through);
    for (const end of [through, socket]) end.on('error', () => [through, socket].forEach((both) => both.destroy()));
  });
  const site = `http://127.0.0.1:${proxy.address().port}`;
  return { asked, site, close: () => [daypass, proxy].forEach((server) => server.close()) };
}

const authorize = (headers) => (headers.authorization = bearer);

// As a browser older than Chrome 76, Firefox 90 or Safari 16.4.
function tellNothing(headers) {
  for (const name of Object.keys(headers)) if (name.startsWith('sec-fetch-')) delete headers[name];
  authorize(headers);
}

// Signs in to the console. Returns its page, a check that nothing has happened to the browser, and who is between.
async function signedIn(t, changes) {
  t.isExpected = () => true;
  t.secret(given.token);
  const middle = changes && (await between(changes));
  const { page, context } = await t.open(middle && { proxy: { server: middle.site } });
  await t.signIn(page, given.owner);
  const cookie = await t.sessionOf(context);
  const nothingHappened = async () => {
    const members = await context.newPage();
    await members.goto('/console/members');
    await members.getByRole('button', { name: 'Sign out', exact: true }).waitFor();
    const cookies = (await context.cookies(given.url)).map(({ name, value }) => [name, value]);
    assert.deepEqual(cookies, [['__Host-daypass', cookie]]);
    const kept = await members.evaluate(async () => {
      const workers = (await navigator.serviceWorker.getRegistrations()).map(({ scope }) => scope);
      return [...workers, ...Object.keys(localStorage), ...Object.keys(sessionStorage), ...(await caches.keys())];
    });
    assert.deepEqual(kept, []);
    assert.deepEqual(context.serviceWorkers().map((worker) => worker.url()), []);
    assert.deepEqual(t.seen.filter((text) => text.startsWith('hostile')), []);
    await members.close();
  };
  // A worker's request whose headers never come would keep the case from its end.
  const close = async () => {
    await context.close();
    middle?.close();
  };
  return { page, context, nothingHappened, ...middle, close };
}

// Asks for the pod's page and its script in every way that a page has, from the page that is open.
function askInAllWays(page) {
  return page.evaluate(async ([at, script]) => {
    const add = (name, attributes) => {
      const element = Object.assign(document.createElement(name), attributes);
      document.body.append(element);
      return element;
    };
    for (const name of ['iframe', 'embed', 'img']) add(name, { src: at });
    add('object', { data: at });
    add('script', { src: script });
    add('link', { rel: 'stylesheet', href: at });
    add('link', { rel: 'prefetch', href: at });
    add('form', { action: at, method: 'post', target: '_blank' }).submit();
    window.open(at);
    for (const Kind of [Worker, SharedWorker]) {
      try {
        new Kind(script);
      } catch {
        // Of another origin.
      }
    }
    const serves = navigator.serviceWorker.register(script).then(() => 'a service worker', () => null);
    await fetch(at, { credentials: 'include', mode: 'no-cors' });
    const isRead = fetch(at, { credentials: 'include' }).then((answer) => answer.ok && 'the page', () => null);
    return (await Promise.all([serves, isRead])).filter(Boolean);
  }, [AT, `${AT}hostile.js`]);
}

// No page and no frame shows what the pod has sent.
async function assertNotShown(context) {
  for (const page of context.pages()) {
    await page.waitForLoadState();
    for (const frame of page.frames()) {
      const content = await frame.content().catch(() => '');
      assert.ok(!content.includes(TEXT), `${page.url()} shows it in ${frame.url()}`);
    }
  }
}

// The browser asks in all ways. The gateway refuses each but fetch, which it answers with this status.
async function assertRefused({ page, context, asked }, dests, fetched) {
  asked.length = 0;
  const reads = await askInAllWays(page);
  await eventually('all ways are answered', () => {
    const isThere = (dest) => asked.some((one) => isAtTheGateway(one) && one.dest === dest);
    const isPosted = asked.some(({ method }) => method === 'POST');
    return isPosted && dests.every(isThere) && asked.every(({ status }) => status);
  });
  await assertNotShown(context);
  const sent = asked.filter(isAtTheGateway);
  assert.deepEqual([...new Set(sent.map(({ dest }) => dest))].sort(), dests);
  for (const { dest, method, status } of sent) {
    assert.equal(status, dest === 'empty' ? fetched : 403, `${method} for ${dest}`);
  }
  return reads;
}

// The page is shown, in an origin of its own, and its script has not run.
async function assertSandboxed(frame) {
  await frame.getByText(TEXT).waitFor();
  assert.deepEqual(await frame.evaluate(() => [self.origin, document.title]), ['null', 'box']);
}

// The browser has refused to run so many scripts.
const assertBlocked = (t, count) =>
  assert.equal(t.seen.filter((text) => text.startsWith('Blocked script execution')).length, count);

await run({
  'a browser without the token gets nothing, whatever asks': async (t) => {
    const browser = await signedIn(t, {});
    await browser.page.goto(browser.site);
    assert.deepEqual(await assertRefused(browser, ELSEWHERE, 401), []);
    assert.equal((await browser.page.goto(AT)).status(), 403);
    assert.deepEqual(await assertRefused(browser, OWN, 401), []);
    await browser.nothingHappened();
    await browser.close();
  },

  'a browser that something adds the token to shows nothing and runs nothing': async (t) => {
    const request = (headers, path) => {
      authorize(headers);
      if (path.endsWith('?old')) delete headers['sec-fetch-dest'];
    };
    const browser = await signedIn(t, { request });
    await browser.page.goto(browser.site);
    assert.deepEqual(await assertRefused(browser, ELSEWHERE, 200), []);
    assert.equal((await browser.page.goto(AT)).status(), 403);
    assert.deepEqual(await assertRefused(browser, OWN, 200), ['the page'], 'data, in the own origin');
    // Chrome 76 to 79 say how they ask, but not what for.
    assert.equal((await browser.page.goto(`${AT}?old`)).status(), 403);
    await browser.nothingHappened();
    await browser.close();
  },

  'a page of the same origin that has the token reads an answer, which acts on nothing': async (t) => {
    const { page, nothingHappened } = await signedIn(t);
    assert.equal((await page.goto(AT)).status(), 403);
    await page.goto('/console/members');
    const fetched = await page.evaluate(async ([at, authorization]) => {
      const answer = await fetch(at, { headers: { authorization } });
      return { headers: Object.fromEntries(answer.headers), text: await answer.text() };
    }, [AT, bearer]);
    assert.ok(fetched.text.includes(TEXT), fetched.text);
    assert.equal(fetched.headers['content-security-policy'], 'sandbox');
    assert.equal(fetched.headers['x-content-type-options'], 'nosniff');
    await nothingHappened();
  },

  'the page from the cache, behind the back button, runs no script': async (t) => {
    const browser = await signedIn(t, { request: authorize });
    const { page, asked } = browser;
    await page.goto(AT);
    await page.goto(`${given.url}/nowhere`);
    // The browser keeps this answer under the address that it was refused for.
    await page.evaluate((at) => fetch(at).then((answer) => answer.text()), AT);
    asked.length = 0;
    await page.goBack();
    await assertSandboxed(page);
    assert.deepEqual(asked.filter(isAtTheGateway), [], 'the gateway is not asked');
    assertBlocked(t, 1);
    await browser.nothingHappened();
    await browser.close();
  },

  'the page in a browser that is too old to say what it asks for runs no script': async (t) => {
    const browser = await signedIn(t, { request: tellNothing });
    const { page } = browser;
    assert.equal((await page.goto(AT)).status(), 200);
    await assertSandboxed(page);
    // From Daypass's own origin, where no script of theirs runs.
    await page.goto(`${given.url}/nowhere`);
    const why = await page.evaluate(async ([at, script]) => {
      document.body.append(Object.assign(document.createElement('iframe'), { src: at }));
      return navigator.serviceWorker.register(script, { scope: '/' }).then(() => 'registered', (error) => `${error}`);
    }, [AT, `${AT}hostile.js`]);
    assert.match(why, /The path of the provided scope/);
    await assertSandboxed(await eventually('the frame is there', () => page.frames()[1]));
    assertBlocked(t, 2);
    await browser.nothingHappened();
    await browser.close();
  },

  'without the defences, the same page does everything': async (t) => {
    const browser = await signedIn(t, {
      request: tellNothing,
      answer: (headers, path) => {
        delete headers['content-security-policy'];
        Object.assign(headers, { 'set-cookie': 'hostile=header; Path=/; Secure', 'service-worker-allowed': '/' });
        if (path.endsWith('?clear')) headers['clear-site-data'] = '"cookies", "storage"';
      },
    });
    const { page, context } = browser;
    await page.goto(AT);
    const has = (text) => t.seen.includes(`hostile: ${text}`);
    await eventually('the script has run', () => has('is done'));
    for (const text of [`runs in ${given.url}`, 'serves the origin', 'reads the console']) assert.ok(has(text), text);
    assert.equal(await page.title(), 'hostile');
    assert.equal(await page.evaluate(() => localStorage.hostile), 'kept');
    const cookies = async () => (await context.cookies(given.url)).map(({ name, value }) => `${name}=${value}`);
    assert.deepEqual(await cookies(), ['hostile=script'], 'the session is over');
    await page.evaluate((at) => fetch(at).then((answer) => answer.text()), AT);
    assert.deepEqual(await cookies(), ['hostile=header']);
    await t.signIn(page, given.owner);
    await page.evaluate((at) => fetch(`${at}?clear`).then((answer) => answer.text()), AT);
    assert.equal(await sessionCookie(context), undefined);
    await browser.close();
  },
});
