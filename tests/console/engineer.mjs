// An engineer's day: open the link of the hand-over text, log on, download, use, end early. And the end by itself.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { ask, eventually, given, newMember, rest, run } from './lib.mjs';

const LINK = /https:\/\/\S+\/console\/\S+/;
const kubectl = (file, ...args) => ask('kubectl', { file, args });

// Follows the link of the hand-over text and logs on.
async function logOn(t, page, member) {
  const [link] = member.credentials.handover.match(LINK);
  assert.ok(!member.credentials.handover.includes(t.secret(member.password)));
  const { fingerprint256 } = new X509Certificate(given.certificate);
  assert.ok(member.credentials.handover.includes(fingerprint256), 'the browser will ask about the certificate');
  await page.goto(link);
  assert.equal(await page.getByLabel('User name').inputValue(), member.id);
  await page.getByLabel('Password or token').fill(member.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('heading', { name: 'My access' }).waitFor();
  await t.sessionOf(page.context());
}

async function download(page) {
  // A second click within three seconds sends nothing.
  await page.locator('form[action$="/me/kubeconfig"]:not([data-sent])').waitFor();
  const [file] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: 'Download kubeconfig' }).click(),
  ]);
  return { name: file.suggestedFilename(), path: await file.path() };
}

await run({
  'the whole story': async (t) => {
    const member = await newMember({ username: 'Ada Lovelace', duration: 2 });
    const { page, context } = await t.open();
    await logOn(t, page, member);
    const main = page.getByRole('main');
    assert.match(await main.innerText(), /Your access to dp-1 ends in\s1 h 5\d min,/);
    assert.match(await main.innerText(), /It was granted to Ada Lovelace\./);
    assert.match(await main.innerText(), /May get, list namespaces, pods\s+in the whole cluster/);

    const { name, path } = await download(page);
    assert.equal(name, `dp-1-${member.id}.kubeconfig`);
    assert.ok((await page.locator('#posix').innerText()).includes(name));
    t.secret(readFileSync(path, 'utf8').match(/token: "?([^\s"]+)/)[1]);
    const [role, account] = member.id.split('.');
    const who = await kubectl(path, 'auth', 'whoami');
    assert.ok(who.output.includes(`system:serviceaccount:daypass-${role}:${account}`), who.output);
    const names = await kubectl(path, 'get', 'namespaces');
    assert.ok(names.status === 0 && names.output.includes('kube-system'), names.output);
    const secrets = await kubectl(path, 'get', 'secrets', '-A');
    assert.ok(secrets.status === 1 && secrets.output.includes('Forbidden'), secrets.output);

    // Each download is a kubeconfig of its own. The second is revoked, the first goes on.
    const second = await download(page);
    await page.reload();
    const buttons = page.getByRole('button', { name: /^Revoke kubeconfig/ });
    assert.equal(await buttons.count(), 2);
    assert.equal((await kubectl(second.path, 'auth', 'whoami')).status, 0);
    await buttons.last().click();
    await page.getByText('The kubeconfig is revoked.').waitFor();
    assert.equal(await buttons.count(), 1);
    await eventually('one of the two is refused', async () => {
      const statuses = [await kubectl(path, 'auth', 'whoami'), await kubectl(second.path, 'auth', 'whoami')];
      return statuses.filter(({ status }) => status === 0).length === 1;
    });

    const session = await t.sessionOf(context);
    await page.getByRole('button', { name: 'End my access…' }).click();
    const dialog = page.getByRole('dialog', { name: 'End your access to dp-1?' });
    await dialog.getByRole('button', { name: 'Cancel' }).click();
    assert.equal((await rest('GET', `/members/${member.id}`, given.owner)).status, 200);
    await page.getByRole('button', { name: 'End my access…' }).click();
    await dialog.getByRole('button', { name: 'End my access' }).click();
    await page.getByText('The access has ended.').waitFor();
    assert.equal(await t.sessionOf(context), undefined);
    assert.equal((await rest('GET', `/members/${member.id}/me`, session)).status, 401);
    for (const file of [path, second.path]) {
      await eventually('the kubeconfig is refused', async () => (await kubectl(file, 'auth', 'whoami')).status !== 0);
    }
    await page.goto('/console/me');
    await page.waitForURL('**/console/sign-in?*');
    const kinds = await ask('audit', { member: member.id });
    assert.equal(kinds.filter((kind) => kind === 'KUBECONFIG_ISSUED').length, 2);
  },

  'the open page says by itself that the access has ended': async (t) => {
    const member = await newMember();
    const { page } = await t.open();
    await logOn(t, page, member);
    const over = page.getByText('Your access has ended. Ask whoever granted it');
    const button = page.getByRole('button', { name: 'Download kubeconfig' });
    assert.ok(await button.isVisible() && !(await over.isVisible()));
    const end = Date.parse(await ask('end member', { id: member.id, seconds: 150 }));
    await eventually('the page shows the new end', async () => {
      await page.reload();
      const shown = await page.locator('[data-announce]').getAttribute('data-ends');
      return Math.abs(Date.parse(shown) - end) < 1000;
    });
    assert.ok(await button.isVisible() && !(await over.isVisible()));
    assert.match(await page.locator('#announcer').innerText(), /^Your access ends in (\d+ min )?\d+ s\.$/);
    await over.waitFor();
    assert.ok(Date.now() >= end - 1000, 'not before the end');
    assert.ok(!(await button.isVisible()), 'the download is gone');
    assert.ok(!(await page.getByRole('button', { name: 'End my access…' }).isVisible()));
    await t.axe(page);
    await eventually('the session has ended as well', async () => {
      await page.reload();
      return page.url().includes('/console/sign-in');
    });
  },

  'the kubeconfigs URL leads to the page as well': async (t) => {
    const member = await newMember();
    t.secret(member.password);
    const { page } = await t.open();
    await page.goto(member.credentials.kubeconfigUrl);
    assert.equal(await page.getByLabel('User name').inputValue(), member.id);
    await page.getByLabel('Password or token').fill(member.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('heading', { name: 'My access' }).waitFor();
    await t.sessionOf(page.context());
    // Somebody who is signed in may be asked again.
    await page.goto(member.credentials.kubeconfigUrl);
    assert.match(page.url(), /\/console\/(me|sign-in)/);
    assert.ok(!(await ask('audit', { member: member.id })).includes('KUBECONFIG_ISSUED'), 'a link downloads nothing');
  },

  'signing out everywhere signs out the other browser': async (t) => {
    const member = await newMember();
    const [here, there] = [await t.open(), await t.open()];
    for (const { page } of [here, there]) await t.signIn(page, member.password, member.id);
    const sessions = [await t.sessionOf(here.context), await t.sessionOf(there.context)];
    await here.page.getByRole('button', { name: 'Sign out everywhere' }).click();
    await here.page.getByText('You are signed out').waitFor();
    await there.page.reload();
    await there.page.waitForURL('**/console/sign-in?*');
    for (const session of sessions) {
      assert.equal((await rest('GET', `/members/${member.id}/me`, session)).status, 401);
    }
    assert.equal((await rest('GET', `/members/${member.id}/me`, [member.id, member.password])).status, 200);
  },

  'without JavaScript': async (t) => {
    const member = await newMember();
    const { page } = await t.open({ javaScriptEnabled: false });
    await logOn(t, page, member);
    const { path } = await download(page);
    assert.equal((await kubectl(path, 'auth', 'whoami')).status, 0);
    // A page that has no script still offers the download after the end. It is answered by the sign-in form.
    await rest('DELETE', `/members/${member.id}`, given.owner);
    await page.getByRole('button', { name: 'Download kubeconfig' }).click();
    await page.getByText('Your session has ended.').waitFor();
    const kinds = await ask('audit', { member: member.id });
    assert.equal(kinds.filter((kind) => kind === 'KUBECONFIG_ISSUED').length, 1);
  },

  'ending it without JavaScript': async (t) => {
    const member = await newMember();
    const { page } = await t.open({ javaScriptEnabled: false });
    await logOn(t, page, member);
    await page.getByRole('button', { name: 'End my access…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'End my access' }).click();
    await page.getByText('The access has ended.').waitFor();
    assert.equal((await rest('GET', `/members/${member.id}`, given.owner)).status, 404);
  },
});
