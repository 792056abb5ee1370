// What pages of other sites, curious visitors and hostile texts may not do.

import assert from 'node:assert/strict';
import http from 'node:http';
import https from 'node:https';
import { accessTokens, ask, eventually, given, memberIds, newMember, rest, run, send, sessionCookie } from './lib.mjs';

// Serves a page on another origin. Returns its URLs as another site (localhost) and as the same site on another port.
async function serve(html) {
  const asked = [];
  const answer = (request, response) => {
    asked.push({ url: request.url, headers: request.headers });
    response.setHeader('content-type', 'text/html; charset=utf-8');
    response.end(html);
  };
  const listen = (server) => new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
  const plain = await listen(http.createServer(answer));
  const key = Buffer.from(given.key, 'base64').toString();
  const secure = await listen(https.createServer({ key, cert: given.certificate }, answer));
  return {
    asked,
    origins: [
      `http://localhost:${plain.address().port}`,
      `http://127.0.0.1:${plain.address().port}`,
      // Cookies know no ports, so this one gets the browser to send the cookie.
      `https://127.0.0.1:${secure.address().port}`,
    ],
    close: () => [plain, secure].forEach((server) => server.close()),
  };
}

const inputs = (fields) =>
  Object.entries(fields).map(([name, value]) => `<input name="${name}" value="${value}">`).join('');

// A form of the console's, with the cookie of somebody who is signed in.
function post(path, cookie, headers, body = '') {
  return send(`${given.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', cookie: `__Host-daypass=${cookie}`, ...headers },
    body,
  });
}

const get = (path, cookie, headers = {}) =>
  send(`${given.url}${path}`, { headers: { cookie: `__Host-daypass=${cookie}`, ...headers } });

const OWN = { 'sec-fetch-site': 'same-origin', origin: given.url };

const HOSTILE_TEXTS = {
  markup: '<h2 id=injected>Injected</h2><img src=x onerror=window.hacked=1><script>window.hacked=1</script>',
  attribute: `"><script>window.hacked=1</script>' autofocus onfocus=window.hacked=1 x="`,
  template: '{{7*7}} ${7*7} {% raw %} </textarea><script>window.hacked=1</script>',
  address: 'javascript:window.hacked=1',
  arabic: 'مرحبا \u0627\u0644\u0639\u0627\u0644\u0645 (admin) 123',
  long: 'x'.repeat(1024),
};

await run({
  'a violation of the policy and a leak would be noticed': async (t) => {
    t.isExpected = () => true;
    const member = await newMember();
    const { page } = await t.open();
    await t.signIn(page, given.owner);
    await page.evaluate(() => {
      const image = new Image();
      image.src = 'https://localhost:1/elsewhere.png';
      document.body.append(image);
    });
    const isReported = () => t.seen.some((text) => text.startsWith('policy violated: img-src'));
    await eventually('the policy was violated', isReported);
    await page.addScriptTag({ content: 'window.hacked = 1' }).catch(() => {});
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    const markup = page.evaluate(() => (document.body.innerHTML = '<p>written as markup'));
    await assert.rejects(markup, /TrustedHTML/);
    assert.equal(await ask('leaks', { secrets: [member.id, 'no such text anywhere'] }), 1);
  },

  'a page of another site sends no form, and frames and embeds nothing': async (t) => {
    const member = await newMember();
    const at = `${given.url}/console/members/${member.id}`;
    const forms = {
      end: [`${at}/end`, {}],
      extend: [`${at}/extend`, { duration: '48' }],
      credential: [`${at}/credentials`, { replaces: '' }],
      grant: [`${given.url}/console/grant`, { roleId: given.role, duration: '1', key: crypto.randomUUID() }],
      token: [`${given.url}/console/tokens`, { name: 'hostile', expiresInDays: '1', scopes: 'members:read' }],
      'sign-out': [`${given.url}/console/sign-out`, {}],
      // Signing somebody in as another: what he grants then is the attacker's.
      'sign-in': [`${given.url}/console/sign-in`, { password: given.token.secret }],
    };
    const site = await serve(
      Object.entries(forms)
        .map(([id, [action, fields]]) => `<form id="${id}" method="post" action="${action}">${inputs(fields)}</form>`)
        .join('') +
        `<img src="${at}"><img src="${given.url}/console/sign-out"><script src="${given.url}/console/members"></script>
         <link rel="stylesheet" href="${given.url}/console/members"><iframe src="${at}"></iframe>
         <object data="${at}"></object><embed src="${at}">
         <iframe sandbox="allow-forms allow-scripts" srcdoc='<form id=f method=post action="${at}/end"></form>
           <script>f.submit()</script>'></iframe>`,
    );
    t.isExpected = (_what, page) => !page.startsWith(given.url);
    try {
      const { page, context } = await t.open();
      await t.signIn(page, given.owner);
      const cookie = (await sessionCookie(context)).value;
      const before = await memberIds();
      for (const origin of site.origins) {
        const hostile = await context.newPage();
        await hostile.goto(origin);
        await hostile.waitForLoadState();
        // Nothing of Daypass is in the frames.
        for (const frame of hostile.frames().slice(1)) {
          const text = await frame.content().catch(() => '');
          assert.ok(!text.includes(member.id), `${origin} shows ${frame.url()}`);
        }
        // fetch with the cookie, as a form and with a preflight.
        const fetched = await hostile.evaluate(async ([url, page]) => {
          const attempt = (target, options) =>
            fetch(target, { credentials: 'include', ...options })
              .then(async (answer) => `${answer.type} ${answer.status} ${(await answer.text()).length}`)
              .catch(() => 'refused');
          const body = new URLSearchParams({ duration: '48' });
          return [
            await attempt(url, { method: 'POST', mode: 'no-cors', body }),
            await attempt(url, { method: 'POST', body }),
            await attempt(url, { method: 'POST', headers: { 'x-a': 'b' }, body }),
            await attempt(page, {}),
            await attempt(page, { mode: 'no-cors' }),
          ];
        }, [`${at}/extend`, at]);
        for (const result of fetched) assert.ok(['refused', 'opaque 0 0'].includes(result), `${origin}: ${result}`);
        for (const id of Object.keys(forms)) {
          await hostile.goto(origin);
          const [response] = await Promise.all([
            hostile.waitForResponse((answer) => answer.request().method() === 'POST' && !answer.frame().parentFrame()),
            hostile.locator(`form#${id}`).evaluate((form) => void setTimeout(() => form.submit())),
          ]);
          assert.equal(response.status(), 403, `${origin} ${id}`);
          const { cookie: sent = '' } = await response.request().allHeaders();
          assert.equal(sent.includes(cookie), origin === site.origins[2], `${origin} sends the cookie or not`);
          await hostile.getByRole('alert').waitFor();
        }
        await hostile.close();
      }
      // Nothing has happened, and the owner is still signed in, as before.
      assert.equal((await sessionCookie(context)).value, cookie);
      assert.deepEqual(await memberIds(), before);
      assert.equal((await rest('GET', `/members/${member.id}`, given.owner)).json.durationSeconds, 3600);
      assert.equal((await rest('GET', `/members/${member.id}/me`, [member.id, member.password])).status, 200);
      assert.equal((await accessTokens()).filter((token) => token.name === 'hostile').length, 0);
      await page.reload();
      await page.getByRole('heading', { name: 'Members', exact: true }).waitFor();
      assert.deepEqual(await ask('audit', { member: member.id }), ['MEMBER_CREATED']);
      // A link of another site is followed as somebody who is signed in (chat, mail), and tells nobody from where.
      const chat = await context.newPage();
      await chat.goto(site.origins[0]);
      await chat.evaluate((url) => location.assign(url), `${given.url}/console/members`);
      await chat.getByRole('heading', { name: 'Members', exact: true }).waitFor();
      // And nothing of the console's addresses goes to another site.
      const count = site.asked.length;
      await page.evaluate((url) => location.assign(url), `${site.origins[2]}/left`);
      await page.waitForURL('**/left');
      const left = site.asked.slice(count).find(({ url }) => url === '/left');
      assert.equal(left.headers.referer, undefined);
    } finally {
      site.close();
    }
  },

  'a form from elsewhere or from nowhere is refused before its cookie is read': async (t) => {
    const member = await newMember();
    const { page, context } = await t.open();
    await t.signIn(page, given.owner);
    const cookie = await t.sessionOf(context);
    const path = `/console/members/${member.id}/extend`;
    for (const headers of [
      {},
      { origin: 'https://evil.example' },
      { origin: 'null' },
      { origin: 'null', 'sec-fetch-site': 'cross-site' },
      { origin: given.url.replace(/\d+$/, '1') },
      { origin: given.url.replace('https:', 'http:') },
      { origin: `${given.url}.evil.example` },
      { origin: `${given.url}@evil.example` },
      { origin: '' },
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site' },
      { 'sec-fetch-site': 'none' },
      { 'sec-fetch-site': '' },
      { ...OWN, 'sec-fetch-site': 'same-site' },
      { ...OWN, 'sec-fetch-site': 'cross-site' },
      { ...OWN, origin: 'https://evil.example' },
      { ...OWN, origin: [given.url, 'https://evil.example'] },
      { 'sec-fetch-site': ['same-origin', 'cross-site'] },
      { referer: `${given.url}/console/members` },
    ]) {
      for (const value of [cookie, 'made-up']) {
        const answer = await post(path, value, headers, 'duration=48');
        assert.equal(answer.status, 403, JSON.stringify(headers));
        assert.ok(answer.text.includes('A page of another site'), answer.text);
        assert.equal(answer.headers['set-cookie'], undefined);
      }
    }
    assert.equal((await rest('GET', `/members/${member.id}`, given.owner)).json.durationSeconds, 3600);
    for (const [headers, hours] of [[OWN, 2], [{ origin: given.url }, 3], [{ 'sec-fetch-site': 'same-origin' }, 4]]) {
      const answer = await post(path, cookie, headers, `duration=${hours}`);
      assert.equal(answer.status, 303, 'the browser says one of both');
      assert.equal((await rest('GET', `/members/${member.id}`, given.owner)).json.durationSeconds, hours * 3600);
    }
    // Only forms are read: a page of another site can send the other two kinds as well.
    for (const type of ['text/plain', 'multipart/form-data; boundary=x', 'application/json']) {
      const answer = await post(path, cookie, { ...OWN, 'content-type': type }, 'duration=9');
      assert.equal(answer.status, 415, type);
    }
    // Reading never changes anything.
    for (const action of ['extend', 'end', 'credentials']) {
      const answer = await get(`/console/members/${member.id}/${action}?duration=9`, cookie);
      assert.equal(answer.status, 405, action);
    }
    assert.equal((await rest('GET', `/members/${member.id}`, given.owner)).json.durationSeconds, 4 * 3600);
  },

  'the cookie is a new session of this host alone, which no script can read': async (t) => {
    const { page, context } = await t.open();
    // Session fixation: an attacker sets the cookie before.
    const first = (await rest('POST', '/sessions', given.token.secret, {})).json.token;
    t.secret(first);
    await context.addCookies([{
      name: '__Host-daypass', value: first, url: given.url, secure: true, httpOnly: true, sameSite: 'Lax',
    }]);
    await page.goto('/console/sign-in');
    await page.getByLabel('Password or token').fill(given.owner);
    const [response] = await Promise.all([
      page.waitForResponse((answer) => answer.request().method() === 'POST'),
      page.getByRole('button', { name: 'Sign in' }).click(),
    ]);
    const header = (await response.headersArray()).filter(({ name }) => name.toLowerCase() === 'set-cookie');
    assert.equal(header.length, 1);
    const [pair, ...attributes] = header[0].value.split('; ');
    assert.match(pair, /^__Host-daypass=dpp_/);
    const named = attributes.filter((attribute) => !attribute.startsWith('Max-Age='));
    assert.deepEqual(named.sort(), ['HttpOnly', 'Path=/', 'SameSite=Lax', 'Secure']);
    const age = Number(attributes.find((attribute) => attribute.startsWith('Max-Age=')).slice(8));
    assert.ok(age > 1700 && age <= 1800, `${age}`);
    await page.getByRole('button', { name: 'Sign out', exact: true }).waitFor();
    const cookie = await t.sessionOf(context);
    assert.notEqual(cookie, first);
    assert.notEqual(cookie, given.owner);
    assert.equal(await page.evaluate(() => document.cookie), '');
    assert.deepEqual(await page.evaluate(() => [localStorage.length, sessionStorage.length]), [0, 0]);
    // Signing in again is a new session each time.
    await page.goto('/console/sign-in');
    await t.signIn(page, given.owner);
    assert.notEqual(await t.sessionOf(context), cookie);
  },

  'nothing but a session works in the cookie, and a cookie works nowhere else': async (t) => {
    const member = await newMember();
    t.secret(member.password);
    const { page, context } = await t.open();
    await t.signIn(page, given.token.secret);
    const session = await t.sessionOf(context);
    assert.equal((await get('/console/members', session)).status, 200);
    for (const [what, secret] of [
      ['an access token', given.token.secret],
      ['a Kubernetes token', given.owner],
      ['a credential', member.password],
    ]) {
      for (const path of ['/console/members', '/console/me', '/console/tokens']) {
        const answer = await get(path, secret);
        assert.equal(answer.status, 303, `${what} at ${path}`);
        assert.match(answer.headers.location, /^\/console\/(sign-in|me$|members$)/);
      }
      const ended = await post(`/console/members/${member.id}/end`, secret, OWN);
      assert.ok([401, 403].includes(ended.status), `${what}: ${ended.status}`);
    }
    // Without the prefix, or twice.
    const members = `${given.url}/console/members`;
    const twice = `__Host-daypass=${session}; __Host-daypass=${session}`;
    for (const cookie of [`daypass=${session}`, `__host-daypass=${session}`, twice]) {
      assert.equal((await send(members, { headers: { cookie } })).status, 303, cookie.slice(0, 20));
    }
    // In a header it opens no page.
    const bearer = { headers: { authorization: `Bearer ${session}` } };
    assert.equal((await send(members, bearer)).status, 303);
    // REST reads no cookie, and takes a session as a bearer token as documented.
    const cookie = `__Host-daypass=${session}`;
    for (const path of ['/members', '/tokens/self', `/members/${member.id}`]) {
      assert.equal((await send(`${given.url}/${given.dataPlane}${path}`, { headers: { cookie } })).status, 401, path);
    }
    assert.equal((await rest('GET', '/tokens/self', session)).status, 200);
    const body = { name: 'from a session', expiresInDays: 1, scopes: ['members:read'] };
    assert.equal((await rest('POST', '/tokens', session, body)).status, 403);
    assert.equal((await rest('POST', '/sessions', session, {})).status, 403);
    assert.equal((await rest('GET', `/members/${member.id}`, given.owner)).status, 200);

    const engineer = await t.open();
    await t.signIn(engineer.page, member.password, member.id);
    const own = await t.sessionOf(engineer.context);
    assert.equal((await rest('GET', `/members/${member.id}/me`, own)).status, 200);
    assert.ok([401, 403].includes((await rest('GET', '/members', own)).status));
  },

  'texts of others are shown as they are': async (t) => {
    const { page } = await t.open();
    await t.signIn(page, given.owner);
    for (const [kind, text] of Object.entries(HOSTILE_TEXTS)) {
      const name = text.slice(0, 255);
      await page.goto('/console/grant');
      await page.getByRole('radio').first().check();
      await page.getByLabel('For whom').fill(name);
      await page.getByLabel('Why').fill(text);
      const before = await memberIds();
      await page.getByRole('button', { name: 'Grant access' }).click();
      const password = t.secret(await page.locator('#secret').innerText());
      const [id] = (await memberIds()).filter((member) => !before.includes(member));
      await page.goto(`/console/members/${id}`);
      assert.equal(await page.locator('dd.text').textContent(), text, kind);
      assert.ok((await page.getByRole('main').innerText()).includes(name.slice(0, 40)), kind);
      await page.goto('/console/members');
      assert.equal(await page.getByRole('row', { name: new RegExp(id) }).locator('bdi').textContent(), name);
      const engineer = await t.open();
      await t.signIn(engineer.page, password, id);
      await engineer.page.getByText('It was granted to').waitFor();
      assert.equal(await engineer.page.getByRole('main').locator('p > bdi').first().textContent(), name);
      for (const one of [page, engineer.page]) {
        assert.equal(await one.locator('#injected').count(), 0);
        assert.equal(await one.evaluate(() => window.hacked), undefined);
      }
      await engineer.context.close();
    }
    // A token's name, in the list and in the dialog.
    const name = HOSTILE_TEXTS.attribute;
    const body = { name, expiresInDays: 1, scopes: ['members:read'] };
    const token = (await rest('POST', '/tokens', given.owner, body)).json;
    t.secret(token.token);
    await page.goto('/console/tokens');
    await page.getByRole('row').locator('th bdi').getByText(name).waitFor();
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    await rest('DELETE', `/tokens/${token.id}`, given.owner);
  },

  'text that changes the direction or hides is refused or kept to itself': async (t) => {
    const { page } = await t.open();
    await t.signIn(page, given.owner);
    for (const text of ['invoice \u202Egnp.exe', 'a\u2066b', 'zero\u200Bwidth', 'bell\u0007', 'tag\u{E0041}']) {
      const before = await memberIds();
      await page.goto('/console/grant');
      await page.getByRole('radio').first().check();
      await page.getByLabel('Why').fill(text);
      await page.getByRole('button', { name: 'Grant access' }).click();
      await page.getByRole('alert').waitFor();
      assert.deepEqual(await memberIds(), before, JSON.stringify(text));
    }
    // What kubectl wrote is stored without Daypass's rules. It stays within its element.
    const rtl = '\u05D0\u05D1\u05D2 admin';
    await ask('apply member', { name: 'bidi', spec: { duration: '1h', username: rtl, description: rtl } });
    const id = `${given.role}.bidi`;
    await eventually('it is listed', async () => (await rest('GET', `/members/${id}`, given.owner)).status === 200);
    await page.goto(`/console/members/${id}`);
    const isolated = page.locator('dd bdi').first();
    assert.equal(await isolated.textContent(), rtl);
    assert.equal(await isolated.evaluate((element) => getComputedStyle(element).unicodeBidi), 'isolate');
  },

  'what links carry is neither run nor followed elsewhere': async (t) => {
    const { page } = await t.open();
    const hostile = encodeURIComponent('"><script>window.hacked=1</script>');
    await page.goto(`/console/sign-in?username=${hostile}&next=${hostile}&notice=${hostile}`);
    assert.equal(await page.getByLabel('User name').inputValue(), '"><script>window.hacked=1</script>');
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    assert.equal(await page.getByRole('main').getByText('window.hacked').count(), 0, 'no link writes a notice');
    const elsewhere = ['//evil.example/', 'https://evil.example/', '/console//evil.example', '/console/me\\..', '/x'];
    for (const next of [...elsewhere, 'javascript:1']) {
      await page.goto(`/console/sign-in?next=${encodeURIComponent(next)}`);
      await t.signIn(page, given.owner);
      assert.equal(page.url(), `${given.url}/console/members`, next);
      await page.getByRole('button', { name: 'Sign out', exact: true }).click();
      await page.getByText('You are signed out.').waitFor();
    }
    // The page that was asked for comes after signing in.
    await page.goto('/console/grant?description=from%20a%20link');
    await page.waitForURL('**/console/sign-in?*');
    await t.signIn(page, given.owner);
    assert.equal(await page.getByLabel('Why').inputValue(), 'from a link');
    await page.goto(`/console/grant?username=${hostile}&description=${hostile}&roleId=${hostile}&duration=${hostile}`);
    await page.goto(`/console/tokens?name=${hostile}&scopes=${hostile}`);
    await page.goto(`/console/members?notice=${hostile}`);
    assert.equal(await page.evaluate(() => window.hacked), undefined);
  },

  'nothing of a secret stays in the browser': async (t) => {
    const { page, context } = await t.open();
    t.isExpected = (said) => said.includes('ERR_CACHE_MISS');
    await t.signIn(page, given.owner);
    await page.goto('/console/grant');
    await page.getByRole('radio').first().check();
    await page.getByRole('button', { name: 'Grant access' }).click();
    const secret = t.secret(await page.locator('#secret').innerText());
    const text = await page.locator('#text').innerText();
    assert.ok(!text.includes(secret) && !(await page.title()).includes(secret));
    const emptied = await page.evaluate(() => {
      dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }));
      return document.querySelector('#secret').textContent;
    });
    assert.equal(emptied, '', 'the page that is kept for the back button');
    const kept = await page.evaluate(async () => {
      const found = [];
      for (const name of await caches.keys()) found.push(name);
      for (const store of [localStorage, sessionStorage]) found.push(...Object.keys(store));
      for (const url of [document.querySelector('link[rel=stylesheet]').href, location.href, '/console/members']) {
        const answer = await fetch(url, { cache: 'only-if-cached', mode: 'same-origin' }).catch(() => null);
        if (answer?.ok) found.push(`the cache has ${new URL(url, location.href).pathname.replace(/\w+\.css/, 'css')}`);
      }
      return found;
    });
    assert.deepEqual(kept, ['the cache has /console/assets/css'], 'only that');
    await page.getByRole('button', { name: 'Sign out', exact: true }).click();
    await page.getByText('You are signed out.').waitFor();
    await page.goBack().catch(() => {});
    // The browser's own page, which asks whether to send the form again, can interrupt this.
    await eventually('the page is left', () => page.goto('/console/grant').then(() => true, () => false));
    await page.waitForURL('**/console/sign-in?*');
    assert.equal(await sessionCookie(context), undefined);
  },
});
