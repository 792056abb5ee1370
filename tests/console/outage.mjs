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
    await owner.page.getByRole('radio').first().check();
    await owner.page.getByLabel('Why').fill('Kept');
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
        const response = await owner.page.goto(`/console/${path}`);
        assert.equal(response.status(), 503, path);
        assert.match(await owner.page.getByRole('alert').innerText(), /Kubernetes API/, path);
      }
      assert.equal((await engineer.page.goto('/console/me')).status(), 503);
      // Nobody is signed out by it.
      for (const { context } of [owner, engineer]) assert.ok(await sessionCookie(context));
      const stranger = await t.open();
      await stranger.page.goto('/console/sign-in');
      await stranger.page.getByLabel('Password or token').fill(given.owner);
      const [response] = await Promise.all([
        stranger.page.waitForResponse((answer) => answer.request().method() === 'POST'),
        stranger.page.getByRole('button', { name: 'Sign in' }).click(),
      ]);
      assert.equal(response.status(), 503);
      await stranger.page.getByRole('alert').waitFor();
    } finally {
      await ask('start API server');
    }
    await eventually('Daypass is ready', async () => (await ask('probe', { path: '/readyz' })) === 200);
    await eventually('the pages are back', async () => (await owner.page.goto('/console/members')).status() === 200);
    await eventually('the page is back', async () => (await engineer.page.goto('/console/me')).status() === 200);
    assert.deepEqual(await memberIds(), before, 'nothing was granted');
  },
});
