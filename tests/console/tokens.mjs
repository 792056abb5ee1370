// Settings > Access tokens.

import assert from 'node:assert/strict';
import { accessTokens, ask, copy, given, rest, run } from './lib.mjs';

const CONFIRM = 'The token that you signed in with, once more';

// Fills in the form for a new token.
async function fill(page, name, password) {
  await page.getByLabel('Name', { exact: true }).first().fill(name);
  await page.getByLabel('Days until it ends').fill('7');
  for (const name of ['members:read', 'tokens:read']) await page.getByRole('checkbox', { name }).check();
  await page.getByLabel(CONFIRM).fill(password);
}

const named = async (name) => (await accessTokens()).filter((token) => token.name === name);

await run({
  'a token is generated, shown once, renamed, rotated and revoked': async (t) => {
    const { page, context } = await t.open();
    await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: given.url });
    await t.signIn(page, given.owner);
    await page.getByRole('link', { name: 'Access tokens' }).click();
    await page.getByRole('heading', { name: 'Settings > Access tokens' }).waitFor();

    // A session alone makes none, and a wrong password leaves what was typed.
    await fill(page, 'ci', t.secret('dpp_not-a-credential-at-all'));
    await page.getByRole('button', { name: 'Generate token' }).click();
    await page.getByRole('alert').waitFor();
    assert.equal(await page.getByLabel('Name', { exact: true }).first().inputValue(), 'ci');
    assert.equal(await page.getByLabel('Days until it ends').inputValue(), '7');
    assert.ok(await page.getByRole('checkbox', { name: 'members:read' }).isChecked());
    assert.equal(await page.getByLabel(CONFIRM).inputValue(), '');
    assert.deepEqual(await named('ci'), []);

    await page.getByLabel(CONFIRM).fill(given.owner);
    await page.getByRole('button', { name: 'Generate token' }).click();
    await page.getByRole('heading', { name: 'The token is ready' }).waitFor();
    const secret = t.secret(await page.locator('#secret').innerText());
    const self = await rest('GET', '/tokens/self', secret);
    assert.deepEqual([self.json.name, self.json.scopes], ['ci', ['members:read', 'tokens:read']]);
    const days = (Date.parse(self.json.expiresAt) - Date.now()) / 86_400_000;
    assert.ok(days > 6.9 && days <= 7.01, `${days}`);
    await copy(page, 'Copy secret');
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret);

    // The result page, sent again.
    await page.reload();
    assert.ok(!(await page.content()).includes(secret));
    const afterwards = await named('ci');
    assert.equal(afterwards.length, 1);
    assert.equal((await rest('GET', '/tokens/self', secret)).status, 200);

    await page.goto('/console/tokens');
    const row = page.getByRole('row', { name: /ci/ });
    assert.ok(!(await page.content()).includes(secret));
    assert.equal(await row.locator('time').count(), 3, 'created, last used, end');
    await row.getByText('Change', { exact: true }).click();
    await row.getByLabel('Name').fill('nightly build');
    await row.getByRole('button', { name: 'Rename' }).click();
    await page.getByText('The token has a new name.').waitFor();
    assert.equal((await named('nightly build')).length, 1);

    const renamed = page.getByRole('row', { name: /nightly build/ });
    await renamed.getByText('Change', { exact: true }).click();
    await renamed.getByLabel('The token that you signed in with').fill(given.owner);
    await renamed.getByRole('button', { name: 'Rotate' }).click();
    await page.getByRole('heading', { name: 'The token has a new secret' }).waitFor();
    const rotated = t.secret(await page.locator('#secret').innerText());
    assert.notEqual(rotated, secret);
    assert.equal((await rest('GET', '/tokens/self', secret)).status, 401);
    await page.reload();
    assert.ok(!(await page.content()).includes(rotated));
    assert.equal((await rest('GET', '/tokens/self', rotated)).status, 200, 'sent again, it does not rotate again');

    await page.goto('/console/tokens');
    await renamed.getByText('Change', { exact: true }).click();
    await renamed.getByRole('button', { name: 'Revoke token…' }).click();
    const dialog = page.getByRole('dialog', { name: 'Delete the token nightly build?' });
    await dialog.getByRole('button', { name: 'Cancel' }).click();
    await dialog.waitFor({ state: 'hidden' });
    assert.equal((await rest('GET', '/tokens/self', rotated)).status, 200);
    await renamed.getByRole('button', { name: 'Revoke token…' }).click();
    await dialog.getByRole('button', { name: 'Delete' }).click();
    await page.getByText('The token is revoked.').waitFor();
    assert.equal((await rest('GET', '/tokens/self', rotated)).status, 401);
    assert.deepEqual(await named('nightly build'), []);
  },

  'rotating the token of the session signs out': async (t) => {
    const scopes = ['members:read', 'tokens:read', 'tokens:write'];
    const body = { name: 'my own', expiresInDays: 1, scopes };
    const own = (await rest('POST', '/tokens', given.owner, body)).json;
    const { page } = await t.open();
    await t.signIn(page, own.token);
    await page.goto('/console/tokens');
    const row = page.getByRole('row', { name: /my own/ });
    await row.getByText('Change', { exact: true }).click();
    await row.getByText('rotating it signs you out').waitFor();
    await row.getByLabel('The token that you signed in with').fill(own.token);
    await row.getByRole('button', { name: 'Rotate' }).click();
    const rotated = t.secret(await page.locator('#secret').innerText());
    assert.equal((await rest('GET', '/tokens/self', rotated)).status, 200);
    await page.getByRole('link', { name: 'Done' }).click();
    await page.waitForURL('**/console/sign-in?*');
    await rest('DELETE', '/tokens/self', rotated);
  },

  'somebody elses credential generates nothing': async (t) => {
    const other = t.secret(await ask('caller', { verbs: ['list'], resources: ['members'], privilege: 'generate' }));
    const { page } = await t.open();
    await t.signIn(page, given.owner);
    await page.goto('/console/tokens');
    await fill(page, 'stolen', other);
    await page.getByRole('button', { name: 'Generate token' }).click();
    await page.getByRole('alert').waitFor();
    assert.deepEqual(await named('stolen'), []);
    assert.deepEqual((await rest('GET', '/tokens', other)).json.items, []);
  },

  'without the privilege it is greyed out and says why': async (t) => {
    const { page } = await t.open();
    const token = await ask('caller', { verbs: ['list'], resources: ['members'] });
    await t.signIn(page, token);
    await page.goto('/console/tokens');
    await page.getByText('You lack the right to generate personalaccesstokens.daypass.dev').waitFor();
    assert.ok(await page.getByRole('button', { name: 'Generate token' }).isDisabled());
    assert.ok(await page.getByLabel(CONFIRM).isDisabled());
    await t.axe(page);

    // A token without the scope.
    const body = { name: 'reader', expiresInDays: 1, scopes: ['members:read', 'tokens:read'] };
    const reader = (await rest('POST', '/tokens', given.owner, body)).json;
    const second = await t.open();
    await t.signIn(second.page, reader.token);
    await second.page.goto('/console/tokens');
    await second.page.getByText('lacks the scope tokens:write').waitFor();
    assert.ok(await second.page.getByRole('button', { name: 'Generate token' }).isDisabled());
    await rest('DELETE', '/tokens/self', reader.token);
  },

  'where access tokens are disabled it says so': async (t) => {
    const { page } = await t.open({ baseURL: given.withoutTokens });
    await page.goto('/console/sign-in');
    await t.signIn(page, given.owner);
    await page.goto('/console/tokens');
    await page.getByText('Token based authentication is disabled').waitFor();
    assert.ok(await page.getByRole('button', { name: 'Generate token' }).isDisabled());
    // So they cannot sign in either.
    const other = await t.open({ baseURL: given.withoutTokens });
    await other.page.goto('/console/sign-in');
    await other.page.getByLabel('Password or token').fill(given.token.secret);
    await other.page.getByRole('button', { name: 'Sign in' }).click();
    await other.page.getByRole('alert').waitFor();
  },
});
