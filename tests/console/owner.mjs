// An owner's day: sign in, grant, hand over, watch, extend, revoke a kubeconfig, end.

import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ask, copy, endAll, eventually, given, memberIds, newMember, rest, run, tabTo } from './lib.mjs';

const RIGHTS = /May get, list namespaces, pods\s+in the whole cluster/;

// Downloads a kubeconfig over REST. Returns its file.
async function download(id, password) {
  const { status, text } = await rest('GET', `/members/${id}/kubeconfig`, [id, password]);
  assert.equal(status, 200);
  const file = join(mkdtempSync(join(tmpdir(), 'kubeconfig-')), 'config');
  writeFileSync(file, text, { mode: 0o600 });
  return file;
}

const whoami = async (file) => (await ask('kubectl', { file, args: ['auth', 'whoami'] })).status === 0;

async function createdCount(id) {
  return (await ask('audit', { member: id })).filter((kind) => kind === 'MEMBER_CREATED').length;
}

// Goes back to the page that showed a secret, and sends its form again when the browser asks.
async function assertGone(page, secret) {
  // The page is not stored, so the browser has nothing to show.
  await page.goBack().catch((error) => assert.match(`${error}`, /ERR_CACHE_MISS/));
  const shown = () => page.content().catch(() => '');
  const back = await eventually('the browser has gone back', shown);
  assert.ok(!back.includes(secret), 'the back button shows the secret');
  await page.reload();
  await page.getByText('This grant was made before.').waitFor();
  assert.ok(!(await page.content()).includes(secret), 'sent again, the form shows the secret');
}

await run({
  'the whole story': async (t) => {
    const { page, context } = await t.open();
    await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: given.url });
    await page.goto('/');
    await page.waitForURL('**/console/sign-in');
    await t.signIn(page, given.owner);
    assert.equal(new URL(page.url()).pathname, '/console/members');
    assert.equal(await page.title(), `Members · ${given.dataPlane} · Daypass`);
    await page.getByText('Nobody has access to this data plane at present.').waitFor();

    // What the role can do is in view before anything is given.
    await page.getByRole('main').getByRole('link', { name: 'Grant access' }).click();
    const choice = page.locator('.choice', { hasText: given.role });
    assert.match(await choice.innerText(), RIGHTS);
    assert.match(await choice.innerText(), /Can change things|Read-only/);
    assert.deepEqual(await memberIds(), []);
    await choice.getByRole('radio').check();
    await page.getByLabel('For how long').selectOption('2');
    assert.match(await page.getByLabel('For how long').locator('option:checked').innerText(), /UTC \(.* your time\)/);
    await page.getByLabel('For whom').fill('Ada Lovelace');
    await page.getByLabel('Why').fill('Case 0815');
    await page.getByRole('button', { name: 'Grant access' }).click();

    // The text and the secret are apart.
    await page.getByRole('heading', { name: 'Hand over the access' }).waitFor();
    const secret = t.secret(await page.locator('#secret').innerText());
    const text = await page.locator('#text').innerText();
    const [id] = await memberIds();
    assert.ok(secret.length > 30 && text.includes(id) && !text.includes(secret), text);
    assert.equal(new URL(page.url()).search, '');
    const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
    await copy(page, 'Copy password');
    assert.equal(await clipboard(), secret);
    await page.getByRole('button', { name: 'Copy text' }).click();
    await eventually('the text is copied', async () => (await clipboard()).trim() === text.trim());

    // Whoever comes back finds no secret, and nothing is made again.
    await page.getByRole('link', { name: 'Done' }).click();
    const row = page.getByRole('row', { name: new RegExp(id) });
    assert.match(await row.innerText(), /Ada Lovelace/);
    assert.match(await row.locator('.countdown').innerText(), /^1 h 5\d min$/);
    await assertGone(page, secret);
    assert.deepEqual(await memberIds(), [id]);
    assert.equal(await createdCount(id), 1);

    // Two kubeconfigs, of which one is revoked.
    const files = [await download(id, secret), await download(id, secret)];
    for (const file of files) assert.ok(await whoami(file));
    await page.goto('/console/members');
    await eventually('the list counts the kubeconfigs', async () => {
      await page.reload();
      return /\s2$/.test(await row.innerText());
    });
    await page.getByRole('link', { name: id }).click();
    await page.getByText('Case 0815').waitFor();
    assert.equal(await page.getByRole('button', { name: /^Revoke kubeconfig/ }).count(), 2);

    const newEnd = page.getByLabel('New end');
    await newEnd.selectOption('3');
    await page.getByRole('button', { name: 'Change the end' }).click();
    await page.getByText('The end has been changed.').waitFor();
    assert.match(await page.locator('dd .countdown').innerText(), /^2 h 5\d min$/);
    assert.equal((await rest('GET', `/members/${id}`, given.owner)).json.durationSeconds, 3 * 3600);

    const before = (await rest('GET', `/members/${id}/kubeconfigs`, given.owner)).json.items;
    await page.getByRole('button', { name: /^Revoke kubeconfig/ }).first().click();
    await page.getByText('The kubeconfig is revoked.').waitFor();
    assert.equal(await page.getByRole('button', { name: /^Revoke kubeconfig/ }).count(), 1);
    const after = (await rest('GET', `/members/${id}/kubeconfigs`, given.owner)).json.items;
    assert.equal(before.length - after.length, 1);
    await eventually('one kubeconfig is refused', async () => {
      const accepted = [await whoami(files[0]), await whoami(files[1])];
      return accepted.filter(Boolean).length === 1;
    });

    // Ending asks first.
    await page.getByRole('button', { name: 'End access…' }).click();
    const dialog = page.getByRole('dialog', { name: `End the access of ${id} in ${given.dataPlane}?` });
    await dialog.getByRole('button', { name: 'Cancel' }).click();
    await dialog.waitFor({ state: 'hidden' });
    assert.equal((await rest('GET', `/members/${id}`, given.owner)).status, 200);
    await page.getByRole('button', { name: 'End access…' }).click();
    await dialog.getByRole('button', { name: 'End access' }).click();
    await page.getByText('The access has ended.').waitFor();
    assert.equal((await rest('GET', `/members/${id}`, given.owner)).status, 404);
    for (const file of files) await eventually('no kubeconfig works', async () => !(await whoami(file)));
    await eventually('the member is listed as ended', async () => {
      await page.reload();
      const ended = page.getByRole('region', { name: 'Ended members' });
      return (await ended.count()) === 1 && (await ended.innerText()).includes(id);
    });

    const old = await t.sessionOf(context);
    const [answer] = await Promise.all([
      page.waitForResponse((response) => response.request().method() === 'POST'),
      page.getByRole('button', { name: 'Sign out', exact: true }).click(),
    ]);
    assert.match((await answer.allHeaders())['clear-site-data'], /"cache".*"storage"/);
    await page.getByText('You are signed out.').waitFor();
    assert.equal(await t.sessionOf(context), undefined);
    assert.equal((await rest('GET', '/tokens/self', old)).status, 401);
    await page.goBack();
    await page.waitForURL('**/console/sign-in?*');
  },

  'a role says what it can do and why it is not contained': async (t) => {
    const rule = (verbs, resources, more = {}) => ({ apiGroups: [''], resources, verbs, ...more });
    const roles = {
      reader: [rule(['get', 'list', 'watch'], ['pods'])],
      writer: [rule(['get', 'update'], ['configmaps'], { resourceNames: ['app'] })],
      everything: [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }],
      shell: [rule(['create'], ['pods/exec']), rule(['create'], ['serviceaccounts/token'])],
    };
    const ids = {};
    for (const [name, rules] of Object.entries(roles)) {
      ids[name] = await ask('role', { values: { description: `About <b>${name}</b>`, rules } });
    }
    const { page } = await t.open();
    await t.signIn(page, given.manager);
    const said = {};
    await eventually('all roles are offered', async () => {
      await page.goto('/console/grant');
      for (const [name, id] of Object.entries(ids)) {
        const choice = page.locator('.choice', { has: page.locator(`#role-${id}`) });
        if ((await choice.count()) === 0) return false;
        said[name] = (await choice.innerText()).replace(/\s+/g, ' ');
      }
      return true;
    });
    for (const name of Object.keys(roles)) assert.ok(said[name].includes(`About <b>${name}</b>`), said[name]);
    assert.match(said.reader, /Read-only May read pods in the whole cluster/);
    assert.ok(!said.reader.includes('Not contained'), said.reader);
    assert.match(said.writer, /Can change things or read secrets May get, update configmaps, only those named app/);
    assert.match(said.everything, /May do anything with every kind of object \(every API group\)/);
    assert.match(said.everything, /Not contained: it /);
    assert.match(said.shell, /create pods\/exec/);
    assert.match(said.shell, /Not contained: it may obtain/);
  },

  'the list has a filter and pages': async (t) => {
    await endAll();
    const names = ['First', 'Second', 'Third'];
    for (const username of names) await newMember({ username });
    const { page } = await t.open();
    await t.signIn(page, given.owner);
    const list = page.getByRole('region', { name: 'Members', exact: true });
    const shown = () => list.locator('td.for').allInnerTexts();
    const all = await shown();
    assert.deepEqual([...all].sort(), names);
    await page.goto('/console/members?limit=2');
    assert.deepEqual(await shown(), all.slice(0, 2));
    await page.getByRole('link', { name: 'Next' }).click();
    await page.getByText('3 to 3 of 3').waitFor();
    assert.deepEqual(await shown(), all.slice(2));
    await page.getByRole('link', { name: 'Previous' }).click();
    await page.getByText('1 to 2 of 3').waitFor();
    assert.deepEqual(await shown(), all.slice(0, 2));
    await page.getByLabel('Role').fill('another');
    await page.getByRole('button', { name: 'Filter' }).click();
    await page.getByText('Nobody has this role').waitFor();
    await page.getByRole('link', { name: 'Show all' }).click();
    await page.waitForURL('**/console/members');
    assert.deepEqual(await shown(), all);
    await page.getByLabel('Role').fill(given.role);
    await page.getByLabel('Role').press('Enter');
    await page.waitForURL(`**/console/members?roleId=${given.role}`);
    assert.deepEqual(await shown(), all);
    await endAll();
  },

  'with the keyboard alone': async (t) => {
    await endAll();
    const { page } = await t.open();
    await page.goto('/console/sign-in');
    const { keyboard } = page;
    await keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content');
    await tabTo(page.getByLabel('Password or token'));
    await keyboard.insertText(given.owner);
    await keyboard.press('Enter');
    await tabTo(page.getByRole('navigation').getByRole('link', { name: 'Grant access' }));
    await keyboard.press('Enter');
    const radio = page.getByRole('radio').first();
    await radio.waitFor();
    await tabTo(radio);
    await keyboard.press('Space');
    const hours = page.getByLabel('For how long');
    await tabTo(hours);
    await keyboard.press('ArrowUp');
    assert.equal(await hours.inputValue(), '3');
    await tabTo(page.getByLabel('For whom'));
    await keyboard.insertText('By keyboard');
    await tabTo(page.getByRole('button', { name: 'Grant access' }));
    await keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Hand over the access' }).waitFor();
    t.secret(await page.locator('#secret').innerText());
    await tabTo(page.getByRole('button', { name: 'Copy password' }));
    await tabTo(page.locator('#text'));
    await tabTo(page.getByRole('link', { name: 'Done' }));
    await keyboard.press('Enter');
    const [id] = await memberIds();
    const link = page.getByRole('link', { name: id });
    await link.waitFor();
    await tabTo(link);
    await keyboard.press('Enter');

    const newEnd = page.getByLabel('New end');
    await newEnd.waitFor();
    await tabTo(newEnd);
    await keyboard.press('End');
    await tabTo(page.getByRole('button', { name: 'Change the end' }));
    await keyboard.press('Enter');
    await page.getByText('The end has been changed.').waitFor();
    assert.equal((await rest('GET', `/members/${id}`, given.owner)).json.durationSeconds, 48 * 3600);

    const open = page.getByRole('button', { name: 'End access…' });
    await tabTo(open);
    await keyboard.press('Enter');
    const dialog = page.getByRole('dialog');
    await dialog.waitFor();
    const cancel = dialog.getByRole('button', { name: 'Cancel' });
    const isFocused = await cancel.evaluate((element) => element === document.activeElement);
    assert.ok(isFocused, 'the harmless button has the focus');
    await keyboard.press('Escape');
    await dialog.waitFor({ state: 'hidden' });
    await tabTo(open);
    await keyboard.press('Enter');
    await tabTo(dialog.getByRole('button', { name: 'End access' }));
    await keyboard.press('Enter');
    await page.getByText('The access has ended.').waitFor();
    assert.deepEqual(await memberIds(), []);
    await tabTo(page.getByRole('button', { name: 'Sign out', exact: true }));
    await keyboard.press('Enter');
    await page.getByText('You are signed out.').waitFor();
  },

  'without JavaScript': async (t) => {
    await endAll();
    const { page } = await t.open({ javaScriptEnabled: false });
    await t.signIn(page, given.token.secret);
    await page.getByRole('main').getByRole('link', { name: 'Grant access' }).click();
    assert.match(await page.locator('.choice').innerText(), RIGHTS);
    await page.getByRole('radio').check();
    await page.getByLabel('For whom').fill('No script');
    await page.getByRole('button', { name: 'Grant access' }).click();
    const secret = t.secret(await page.locator('#secret').innerText());
    assert.equal(await page.getByRole('button', { name: 'Copy password' }).count(), 0);
    const [id] = await memberIds();
    assert.equal((await rest('GET', `/members/${id}/me`, [id, secret])).status, 200);
    await page.getByRole('link', { name: 'Done' }).click();
    assert.match(await page.locator('.countdown').innerText(), /^3 h 5\d min$/);
    await page.getByRole('link', { name: id }).click();
    await page.getByLabel('New end').selectOption('5');
    await page.getByRole('button', { name: 'Change the end' }).click();
    await page.getByText('The end has been changed.').waitFor();
    await page.getByRole('button', { name: 'Issue a new credential' }).click();
    const second = t.secret(await page.locator('#secret').innerText());
    assert.equal((await rest('GET', `/members/${id}/me`, [id, secret])).status, 401);
    assert.equal((await rest('GET', `/members/${id}/me`, [id, second])).status, 200);
    await page.goto(`/console/members/${id}`);
    await page.getByRole('button', { name: 'End access…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'End access' }).click();
    await page.getByText('The access has ended.').waitFor();
    assert.deepEqual(await memberIds(), []);
    await page.getByRole('button', { name: 'Sign out', exact: true }).click();
    await page.getByText('You are signed out.').waitFor();
  },
});
