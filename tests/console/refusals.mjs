// Each refusal is a page that says why, and nothing has happened.

import assert from 'node:assert/strict';
import { ask, eventually, given, newMember, rest, run, sessionCookie } from './lib.mjs';

// Submits the sign-in form and returns the answer's status.
async function submit(page, password, username = '') {
  await page.getByLabel('User name').fill(username);
  await page.getByLabel('Password or token').fill(password);
  const [response] = await Promise.all([
    page.waitForResponse((answer) => answer.request().method() === 'POST'),
    page.getByRole('button', { name: 'Sign in' }).click(),
  ]);
  await page.waitForLoadState();
  return response.status();
}

// Sends a form of the page's origin that the page does not have, as a curious visitor could. Returns the status.
async function forge(page, action, fields = {}) {
  const [response] = await Promise.all([
    page.waitForNavigation(),
    page.evaluate(([path, values]) => {
      const form = document.createElement('form');
      form.method = 'post';
      form.action = path;
      for (const [name, value] of Object.entries(values)) {
        const input = document.createElement('input');
        Object.assign(input, { name, value });
        form.append(input);
      }
      document.body.append(form);
      form.submit();
      // The answer can replace the page before this has returned.
    }, [action, fields]).catch(() => {}),
  ]);
  assert.equal(response.request().method(), 'POST');
  return response.status();
}

await run({
  'a wrong secret is refused, and only the name is kept': async (t) => {
    const member = await newMember();
    t.secret(member.password);
    const { page, context } = await t.open();
    await page.goto('/console/sign-in');
    const wrong = member.password.slice(0, -1) + (member.password.endsWith('x') ? 'y' : 'x');
    for (const [password, username] of [
      ['wrong', ''],
      ['wrong', member.id],
      [wrong, member.id],
      [member.password, 'view.somebody-else'],
      [`${given.token.secret}x`, ''],
      ['eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.', ''],
    ]) {
      t.secret(password === 'wrong' ? undefined : password);
      assert.equal(await submit(page, password, username), 401, username);
      await page.getByRole('alert').waitFor();
      assert.equal(await page.getByLabel('User name').inputValue(), username);
      assert.equal(await page.getByLabel('Password or token').inputValue(), '');
      if (password !== 'wrong') assert.ok(!(await page.content()).includes(password));
      assert.equal(await sessionCookie(context), undefined);
    }
    await page.goto('/console/members');
    await page.waitForURL('**/console/sign-in?*');
  },

  'a member that has ended cannot log on': async (t) => {
    const member = await newMember();
    t.secret(member.password);
    const { page } = await t.open();
    await page.goto(`/console/sign-in?username=${member.id}`);
    await ask('end member', { id: member.id, seconds: 0 });
    const isGone = async () => (await rest('GET', `/members/${member.id}`, given.owner)).status === 404;
    await eventually('the member has ended', isGone);
    assert.equal(await submit(page, member.password, member.id), 401);
    await page.getByRole('alert').waitFor();
  },

  'an open page of a member that was ended shows nothing any more': async (t) => {
    const member = await newMember();
    const { page } = await t.open();
    await t.signIn(page, member.password, member.id);
    await rest('DELETE', `/members/${member.id}`, given.owner);
    await page.getByRole('button', { name: 'Download kubeconfig' }).click();
    await page.getByText('Your session has ended.').waitFor();
    const kinds = await ask('audit', { member: member.id });
    assert.ok(!kinds.includes('KUBECONFIG_ISSUED'), `${kinds}`);
  },

  'a new credential ends the sessions of the old one': async (t) => {
    const member = await newMember();
    const { page } = await t.open();
    await t.signIn(page, member.password, member.id);
    t.secret((await rest('POST', `/members/${member.id}/credentials`, given.owner, {})).json.password);
    await page.reload();
    await page.getByText('Your session has ended.').waitFor();
  },

  'a revoked access token ends its sessions': async (t) => {
    const body = { name: 'short', expiresInDays: 1, scopes: ['members:read', 'members:write', 'tokens:read'] };
    const short = (await rest('POST', '/tokens', given.owner, body)).json;
    const { page } = await t.open();
    await t.signIn(page, short.token);
    await page.goto('/console/grant');
    await page.getByRole('radio').first().check();
    assert.equal((await rest('DELETE', `/tokens/${short.id}`, given.owner)).status, 204);
    const before = (await rest('GET', `/members?roleId=${given.role}`, given.owner)).json.total;
    await page.getByRole('button', { name: 'Grant access' }).click();
    await page.getByText('Your session has ended.').waitFor();
    assert.equal((await rest('GET', `/members?roleId=${given.role}`, given.owner)).json.total, before);
    assert.equal(await submit(page, short.token), 401);
  },

  'whoever may only list sees no way to change, and is told which right is missing': async (t) => {
    const member = await newMember();
    await rest('GET', `/members/${member.id}/kubeconfig`, [member.id, member.password]);
    const { page } = await t.open();
    await t.signIn(page, given.lister);
    await page.getByRole('link', { name: member.id }).click();
    for (const name of ['Change the end', 'Issue a new credential', 'End access…', /^Revoke kubeconfig/]) {
      assert.ok(await page.getByRole('button', { name }).isDisabled(), `${name}`);
    }
    assert.equal(await page.getByText('You lack the right to').count(), 4);
    await t.axe(page);
    await page.goto('/console/grant');
    await page.getByText('There is no role that you may give.').waitFor();
    await t.axe(page);

    // The rules are not only in the page.
    const [{ jti }] = (await rest('GET', `/members/${member.id}/kubeconfigs`, given.owner)).json.items;
    const at = `/console/members/${member.id}`;
    for (const [action, fields] of [
      [`${at}/end`, {}],
      [`${at}/extend`, { duration: '5' }],
      [`${at}/credentials`, { replaces: 'x' }],
      [`${at}/kubeconfigs/${jti}/revoke`, {}],
      ['/console/grant', { roleId: given.role, duration: '1', key: crypto.randomUUID() }],
    ]) {
      await page.goto('/console/members');
      const status = await forge(page, action, fields);
      assert.ok(status === 403 || status === 404, `${action}: ${status}`);
      await page.getByRole('alert').waitFor();
    }
    assert.equal((await rest('GET', `/members/${member.id}`, given.owner)).json.durationSeconds, 3600);
    assert.equal((await rest('GET', `/members/${member.id}/me`, [member.id, member.password])).status, 200);
    assert.equal((await rest('GET', `/members/${member.id}/kubeconfigs`, given.owner)).json.items.length, 1);
  },

  'each of the two kinds of people is kept from the pages of the other': async (t) => {
    const member = await newMember();
    const engineer = await t.open();
    await t.signIn(engineer.page, member.password, member.id);
    for (const path of ['members', 'grant', 'tokens', `members/${member.id}`]) {
      await engineer.page.goto(`/console/${path}`);
      assert.equal(new URL(engineer.page.url()).pathname, '/console/me', path);
    }
    assert.equal(await forge(engineer.page, `/console/members/${member.id}/extend`, { duration: '48' }), 403);
    assert.equal((await rest('GET', `/members/${member.id}`, given.owner)).json.durationSeconds, 3600);

    const owner = await t.open();
    await t.signIn(owner.page, given.owner);
    await owner.page.goto('/console/me');
    assert.equal(new URL(owner.page.url()).pathname, '/console/members');
    assert.equal(await forge(owner.page, '/console/me/end'), 403);
    assert.equal(await forge(owner.page, '/console/me/kubeconfig'), 403);
  },

  'what does not exist is a page, too': async (t) => {
    const { page } = await t.open();
    await t.signIn(page, given.owner);
    for (const path of ['nothing', 'members/none.such', 'members/..%2f..%2fx', 'members/a/b/c']) {
      const response = await page.goto(`/console/${path}`);
      assert.equal(response.status(), 404, path);
    }
    assert.equal((await page.goto('/console/members?limit=x')).status(), 400);
    await page.getByRole('alert').waitFor();
    assert.equal((await page.goto('/console/members/none.such/end')).status(), 405);
  },

  'too many wrong secrets are refused for their number': async (t) => {
    const { page } = await t.open({ baseURL: given.strict });
    let response;
    for (let n = 0; n < 8 && response?.status() !== 429; n++) {
      await page.goto('/console/sign-in');
      await page.getByLabel('Password or token').fill('wrong');
      [response] = await Promise.all([
        page.waitForResponse((answer) => answer.request().method() === 'POST'),
        page.getByRole('button', { name: 'Sign in' }).click(),
      ]);
    }
    assert.equal(response.status(), 429);
    assert.ok(Number((await response.allHeaders())['retry-after']) > 0);
    await page.getByRole('alert').waitFor();
    assert.match(await page.getByRole('main').innerText(), /Too many refused credentials/i);
    await t.axe(page);
    // Whoever has the right one is not kept out by somebody who guesses.
    await page.goto('/console/sign-in');
    await t.signIn(page, given.owner);
  },
});
