// A member has all its kubeconfigs, or a role can do more than it could: the pages say so.

import assert from 'node:assert/strict';
import { ask, eventually, given, newMember, rest, run } from './lib.mjs';

await run({
  'whoever has ten kubeconfigs is told so, and gets another after revoking one': async (t) => {
    const member = await newMember();
    for (let n = 0; n < 10; n++) {
      const answer = await rest('GET', `/members/${member.id}/kubeconfig`, [member.id, member.password]);
      assert.equal(answer.status, 200);
    }
    const { page } = await t.open();
    await t.signIn(page, member.password, member.id);
    const revoke = page.getByRole('button', { name: /^Revoke kubeconfig/ });
    assert.equal(await revoke.count(), 10);
    const [response] = await Promise.all([
      page.waitForResponse((answer) => answer.request().method() === 'POST'),
      page.getByRole('button', { name: 'Download kubeconfig' }).click(),
    ]);
    assert.equal(response.status(), 409);
    await page.getByRole('heading', { name: 'The member has its maximum number of kubeconfigs' }).waitFor();
    assert.match(await page.getByRole('alert').innerText(), /at most 10 may be live at a time; revoke one/);
    await t.axe(page);
    await page.goto('/console/me');
    await revoke.first().click();
    await page.getByText('The kubeconfig is revoked.').waitFor();
    assert.equal(await revoke.count(), 9);
    await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'Download kubeconfig' }).click(),
    ]);
    await page.reload();
    assert.equal(await revoke.count(), 10);
  },

  'a role that was widened since the grant is shown': async (t) => {
    const member = await newMember();
    const [, name] = member.id.split('.');
    const status = async () =>
      (await ask('object', { namespace: `daypass-${given.role}`, kind: 'member', name })).status ?? {};
    await eventually('what the role can do is recorded', async () => (await status()).roleHash);
    const { page } = await t.open();
    await t.signIn(page, given.owner);
    const words = page.getByText('The role can do more by now than when this member was created.');
    await page.goto(`/console/members/${member.id}`);
    assert.equal(await words.count(), 0);
    const rule = { apiGroups: [''], resources: ['pods', 'namespaces', 'services'], verbs: ['get', 'list', 'watch'] };
    await ask('rules', { values: { description: "A test's", rules: [rule] } });
    await eventually('it is recorded', async () =>
      (await status()).conditions?.some(({ type }) => type === 'RoleWidened'));
    await eventually('the page says so', async () => {
      await page.reload();
      return (await words.count()) === 1;
    });
    await t.axe(page);
  },
});
