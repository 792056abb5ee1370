// The API server is away: each page says so, nothing is lost, and afterwards it goes on.

import assert from 'node:assert/strict';
import { ask, eventually, given, memberIds, newMember, run, sessionCookie } from './lib.mjs';

await run({
  'the page says that the Kubernetes API is away': async (t) => {
    const member = await newMember();
    const owner = await t.open();
    await t.signIn(owner.page, given.owner);
    const engineer = await t.open();
    await t.signIn(engineer.page, member.password, member.id);
    await owner.page.goto('/console/grant');
    const role = owner.page.locator(`input[name=roleId][value="${given.role}"]`);
    await role.check();
    await owner.page.getByLabel('For how long').selectOption('7');
    await owner.page.getByLabel('Why').fill('Kept & sent once');
    const key = await owner.page.locator('input[name=key]').inputValue();
    const tab = await owner.context.newPage();
    // Somebody who was signed out while they filled in the form.
    const stranger = await t.open();
    await stranger.page.goto('/console/grant?description=Kept+as+well');
    await stranger.page.getByLabel('Password or token').fill(given.owner);
    const before = await memberIds();

    await ask('stop API server');
    try {
      const [granted] = await Promise.all([
        owner.page.waitForResponse((answer) => answer.request().method() === 'POST'),
        owner.page.getByRole('button', { name: 'Grant access' }).click(),
      ]);
      assert.equal(granted.status(), 503);
      assert.ok(Number((await granted.allHeaders())['retry-after']) > 0);
      await owner.page.getByRole('alert').waitFor();
      await t.axe(owner.page);
      for (const path of ['members', 'grant', 'tokens', `members/${member.id}`]) {
        const response = await tab.goto(`/console/${path}`);
        assert.equal(response.status(), 503, path);
        assert.match(await tab.getByRole('alert').innerText(), /Kubernetes API/, path);
      }
      assert.equal((await engineer.page.goto('/console/me')).status(), 503);
      // Nobody is signed out by it.
      for (const { context } of [owner, engineer]) assert.ok(await sessionCookie(context));
      const [response] = await Promise.all([
        stranger.page.waitForResponse((answer) => answer.request().method() === 'POST'),
        stranger.page.getByRole('button', { name: 'Sign in' }).click(),
      ]);
      assert.equal(response.status(), 503);
      assert.ok(Number((await response.allHeaders())['retry-after']) > 0);
      await stranger.page.getByRole('alert').waitFor();
    } finally {
      await ask('start API server');
    }
    await eventually('Daypass is ready', async () => (await ask('probe', { path: '/readyz' })) === 200);
    await eventually('the pages are back', async () => (await tab.goto('/console/members')).status() === 200);
    await eventually('the page is back', async () => (await engineer.page.goto('/console/me')).status() === 200);
    assert.deepEqual(await memberIds(), before, 'nothing was granted');

    // What was typed is there, in the same form: had the member been made after all, it would not be made twice.
    await owner.page.getByRole('link', { name: 'Go back' }).click();
    assert.equal(await owner.page.getByLabel('Why').inputValue(), 'Kept & sent once');
    assert.equal(await owner.page.getByLabel('For how long').inputValue(), '7');
    assert.ok(await role.isChecked());
    assert.equal(await owner.page.locator('input[name=key]').inputValue(), key);
    const form = owner.page.url();
    await owner.page.getByRole('button', { name: 'Grant access' }).click();
    t.secret(await owner.page.locator('#secret').innerText());
    await owner.page.goto(form);
    await owner.page.getByRole('button', { name: 'Grant access' }).click();
    await owner.page.getByText('This grant was made before.').waitFor();
    assert.equal((await memberIds()).length, before.length + 1);

    await stranger.page.getByLabel('Password or token').fill(given.owner);
    await stranger.page.getByRole('button', { name: 'Sign in' }).click();
    await stranger.page.getByRole('heading', { name: 'Grant access' }).waitFor();
    await t.sessionOf(stranger.context);
    assert.equal(await stranger.page.getByLabel('Why').inputValue(), 'Kept as well');
  },
});
