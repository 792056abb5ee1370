// Single sign-on: there and back, and an access token that is confirmed by signing in anew.

import assert from 'node:assert/strict';
import { accessTokens, eventually, given, run, sessionCookie } from './lib.mjs';

// A page of somebody who has signed in at the provider. Its certificate is its own.
async function signedIn(t, start) {
  const { page, context } = await t.open({ ignoreHTTPSErrors: true });
  await page.goto(start);
  await page.getByRole('button', { name: 'Sign in with corp' }).click();
  await page.getByRole('link', { name: given.person }).click();
  await page.getByRole('button', { name: 'Sign out', exact: true }).waitFor();
  await t.sessionOf(context);
  return { page, context };
}

await run({
  'a person signs in at the provider and comes to the page that was asked for': async (t) => {
    const { page, context } = await signedIn(t, '/console/grant?username=Talend');
    assert.equal(new URL(page.url()).pathname, '/console/grant');
    assert.equal(await page.getByLabel('For whom').inputValue(), 'Talend');
    assert.match(await page.locator('.who').innerText(), new RegExp(`corp:${given.person}`));
    const { httpOnly, secure, sameSite } = await sessionCookie(context);
    assert.deepEqual({ httpOnly, secure, sameSite }, { httpOnly: true, secure: true, sameSite: 'Lax' });
  },

  'the pages of a sign-in have no faults of accessibility': async (t) => {
    const { page } = await t.open({ ignoreHTTPSErrors: true });
    await page.goto('/console/sign-in');
    await t.axe(page);
    // The script would lead on at once.
    await page.route(`${given.issuer}/**`, (route) => route.fulfill({ status: 204 }));
    await page.getByRole('button', { name: 'Sign in with corp' }).click();
    await page.getByRole('link', { name: 'Continue to corp' }).waitFor();
    await t.axe(page);
  },

  'without a script a link leads on': async (t) => {
    const { page } = await t.open({ ignoreHTTPSErrors: true, javaScriptEnabled: false });
    await page.goto('/console/members');
    await page.getByRole('button', { name: 'Sign in with corp' }).click();
    await page.getByRole('link', { name: 'Continue to corp' }).click();
    await page.getByRole('link', { name: given.person }).click();
    await page.getByRole('heading', { name: 'Members', exact: true }).waitFor();
    await t.sessionOf(page.context());
  },

  'an access token is confirmed by signing in anew': async (t) => {
    const { page, context } = await signedIn(t, '/console/tokens');
    const session = (await sessionCookie(context)).value;
    // The confirmation must be later than the session, in whole seconds.
    const secret = await eventually('the token is confirmed', async () => {
      await page.goto('/console/tokens');
      await page.getByLabel('Name', { exact: true }).first().fill('CI');
      await page.getByLabel('members:read').check();
      await page.getByRole('button', { name: 'Generate token: confirm with corp' }).click();
      await page.getByText('shown only now').or(page.getByRole('alert')).waitFor();
      return (await page.locator('#secret').count()) > 0 && page.locator('#secret').innerText();
    });
    assert.match(t.secret(secret), /^dpp_/);
    await t.axe(page);
    const after = (await sessionCookie(context)).value;
    assert.notEqual(t.secret(after), session);
    await page.getByRole('link', { name: 'Done' }).click();
    await page.getByRole('rowheader', { name: /^CI/ }).waitFor();
    assert.equal((await accessTokens()).length, 0, 'it is the token of the person, not of another owner');
  },
});
