// Forms that are sent again, from two tabs, or after their session has ended.

import assert from 'node:assert/strict';
import {
  accessTokens, ask, assertNoSidewaysScrolling, given, memberIds, newMember, rest, run, sessionCookie,
} from './lib.mjs';

const kinds = (member) => ask('audit', { member });

// Ends the session in the browser's cookie, as a sign-out elsewhere would.
async function endSession(t, context) {
  assert.equal((await rest('DELETE', '/sessions/current', await t.sessionOf(context))).status, 204);
}

async function fillGrant(page, username, description) {
  await page.goto('/console/grant');
  await page.getByRole('radio').first().check();
  await page.getByLabel('For how long').selectOption('7');
  await page.getByLabel('For whom').fill(username);
  await page.getByLabel('Why').fill(description);
}

await run({
  'a grant that is sent again makes one member': async (t) => {
    const { page, context } = await t.open();
    await t.signIn(page, given.owner);
    const before = await memberIds();
    // Twice from one form: by a reload of the result, and from a second tab with the same form.
    await fillGrant(page, 'Once', 'Sent again');
    const key = await page.locator('input[name=key]').inputValue();
    await page.getByRole('button', { name: 'Grant access' }).click();
    const secret = t.secret(await page.locator('#secret').innerText());
    await page.reload();
    await page.getByText('This grant was made before.').waitFor();
    assert.ok(!(await page.content()).includes(secret));
    const tab = await context.newPage();
    await fillGrant(tab, 'Once', 'Sent again');
    await tab.locator('input[name=key]').evaluate((input, value) => (input.value = value), key);
    await tab.getByRole('button', { name: 'Grant access' }).click();
    await tab.getByText('This grant was made before.').waitFor();
    assert.equal((await memberIds()).length, before.length + 1);

    // A double click sends one form.
    await fillGrant(page, 'Clicked twice', 'Clicked twice');
    // Nobody clicks as fast as this, and none of the machine's pauses comes between.
    const grant = page.getByRole('button', { name: 'Grant access' });
    await grant.evaluate((button) => [1, 2].forEach(() => button.click()));
    await page.getByRole('heading', { name: 'Hand over the access' }).waitFor();
    t.secret(await page.locator('#secret').innerText());
    assert.equal((await memberIds()).length, before.length + 2);
  },

  'two tabs grant two members, and the second end says so': async (t) => {
    const { page, context } = await t.open();
    await t.signIn(page, given.owner);
    const other = await context.newPage();
    const before = await memberIds();
    for (const [tab, name] of [[page, 'First tab'], [other, 'Second tab']]) await fillGrant(tab, name, 'Two tabs');
    for (const tab of [page, other]) {
      await tab.getByRole('button', { name: 'Grant access' }).click();
      t.secret(await tab.locator('#secret').innerText());
    }
    const [id] = (await memberIds()).filter((member) => !before.includes(member));
    assert.equal((await memberIds()).length, before.length + 2);

    // Both have the member's page open, and end it one after the other.
    for (const tab of [page, other]) {
      await tab.goto(`/console/members/${id}`);
      await tab.getByRole('button', { name: 'End access…' }).click();
    }
    await page.getByRole('dialog').getByRole('button', { name: 'End access' }).click();
    await page.getByText('The access has ended.').waitFor();
    await other.getByRole('dialog').getByRole('button', { name: 'End access' }).click();
    await other.getByText('The member had ended before.').waitFor();
    assert.equal((await kinds(id)).filter((kind) => kind === 'REVOKED').length, 1);
    // Its page is gone, and says where to go on.
    await page.goto(`/console/members/${id}`);
    await page.getByRole('alert').waitFor();
    await page.getByRole('link', { name: 'Go back' }).click();
    await page.waitForURL(/\/console\/members/);
  },

  'a new credential that is sent again is issued once': async (t) => {
    const member = await newMember();
    const { page, context } = await t.open();
    await t.signIn(page, given.owner);
    const tab = await context.newPage();
    for (const one of [page, tab]) await one.goto(`/console/members/${member.id}`);
    await page.getByRole('button', { name: 'Issue a new credential' }).click();
    const second = t.secret(await page.locator('#secret').innerText());
    const works = async () => (await rest('GET', `/members/${member.id}/me`, [member.id, second])).status;
    assert.equal(await works(), 200);
    await page.reload();
    await page.getByRole('alert').waitFor();
    await tab.getByRole('button', { name: 'Issue a new credential' }).click();
    await tab.getByRole('alert').waitFor();
    assert.equal(await works(), 200, 'the credential that was handed over goes on working');
    assert.equal((await rest('GET', `/members/${member.id}/me`, [member.id, member.password])).status, 401);
  },

  'what was typed is there after signing in again, except secrets': async (t) => {
    for (const how of ['signed out elsewhere', 'expired']) {
      const { page, context } = await t.open();
      await t.signIn(page, given.owner);
      const before = await memberIds();
      const why = 'Grün & "quoted" = 100 % <b>\u{1F511}';
      await fillGrant(page, 'Ada & Bob', why);
      if (how === 'expired') {
        await ask('end token', { id: (await t.sessionOf(context)).slice(4).split('_')[0], seconds: 0 });
      } else {
        await endSession(t, context);
      }
      await page.getByRole('button', { name: 'Grant access' }).click();
      await page.getByText('Your session has ended.').waitFor();
      assert.equal(await sessionCookie(context), undefined);
      assert.deepEqual(await memberIds(), before, 'nothing was made');
      await page.getByLabel('Password or token').fill(given.owner);
      await page.getByRole('button', { name: 'Sign in' }).click();
      await page.getByRole('heading', { name: 'Grant access' }).waitFor();
      await t.sessionOf(context);
      assert.equal(await page.getByLabel('For whom').inputValue(), 'Ada & Bob');
      assert.equal(await page.getByLabel('Why').inputValue(), why);
      assert.equal(await page.getByLabel('For how long').inputValue(), '7');
      assert.ok(await page.getByRole('radio').first().isChecked());
      await page.getByRole('button', { name: 'Grant access' }).click();
      t.secret(await page.locator('#secret').innerText());
      const [id] = (await memberIds()).filter((member) => !before.includes(member));
      assert.equal((await rest('GET', `/members/${id}`, given.owner)).json.description, why);
    }
  },

  'a long text is there as well': async (t) => {
    const { page, context } = await t.open();
    await t.signIn(page, given.owner);
    const why = 'ü'.repeat(1024);
    await fillGrant(page, 'n'.repeat(255), why);
    await endSession(t, context);
    await page.getByRole('button', { name: 'Grant access' }).click();
    await page.getByText('Your session has ended.').waitFor();
    await page.getByLabel('Password or token').fill(given.owner);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('heading', { name: 'Grant access' }).waitFor();
    await t.sessionOf(context);
    assert.equal(await page.getByLabel('Why').inputValue(), why);
  },

  'a text of several lines becomes one line': async (t) => {
    const { page } = await t.open();
    await t.signIn(page, given.owner);
    const before = await memberIds();
    await fillGrant(page, 'Lines', 'first line\nsecond line');
    await page.getByRole('button', { name: 'Grant access' }).click();
    t.secret(await page.locator('#secret').innerText());
    const [id] = (await memberIds()).filter((member) => !before.includes(member));
    assert.equal((await rest('GET', `/members/${id}`, given.owner)).json.description, 'first line second line');
  },

  'a token form carries its fields but no secret': async (t) => {
    const { page, context } = await t.open();
    await t.signIn(page, given.token.secret);
    await page.goto('/console/tokens');
    await page.getByLabel('Name', { exact: true }).first().fill('half-filled');
    await page.getByLabel('Days until it ends').fill('11');
    await page.getByRole('checkbox', { name: 'members:read' }).check();
    await page.getByLabel('The token that you signed in with, once more').fill(given.token.secret);
    await endSession(t, context);
    await page.getByRole('button', { name: 'Generate token' }).click();
    await page.getByText('Your session has ended.').waitFor();
    assert.ok(!(await page.content()).includes(given.token.secret));
    assert.equal(await page.getByLabel('Password or token').inputValue(), '');
    await page.getByLabel('Password or token').fill(given.token.secret);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('heading', { name: 'Settings > Access tokens' }).waitFor();
    await t.sessionOf(context);
    assert.equal(await page.getByLabel('Name', { exact: true }).first().inputValue(), 'half-filled');
    assert.equal(await page.getByLabel('Days until it ends').inputValue(), '11');
    assert.ok(await page.getByRole('checkbox', { name: 'members:read' }).isChecked());
    assert.equal(await page.getByLabel('The token that you signed in with, once more').inputValue(), '');
    assert.equal((await accessTokens()).filter((token) => token.name === 'half-filled').length, 0);
  },

  'signing in again in another tab keeps the first': async (t) => {
    const { page, context } = await t.open();
    await t.signIn(page, given.owner);
    const before = await memberIds();
    await fillGrant(page, 'Kept', 'Signed in again in another tab');
    await endSession(t, context);
    const tab = await context.newPage();
    await t.signIn(tab, given.owner);
    await page.getByRole('button', { name: 'Grant access' }).click();
    t.secret(await page.locator('#secret').innerText());
    assert.equal((await memberIds()).length, before.length + 1);
  },

  'a warning comes before the session ends': async (t) => {
    const { page, context } = await t.open();
    await page.clock.install();
    await t.signIn(page, given.owner);
    const warning = page.getByText('You will be signed out in less than two minutes.');
    assert.ok(!(await warning.isVisible()));
    await page.clock.fastForward('20:00');
    await page.clock.runFor(2000);
    assert.ok(!(await warning.isVisible()));
    await page.clock.fastForward('08:10');
    await page.clock.runFor(2000);
    await warning.waitFor();
    // The link is another tab's, so nothing typed here is lost.
    const [tab] = await Promise.all([
      context.waitForEvent('page'),
      page.getByRole('link', { name: 'Sign in again' }).click(),
    ]);
    await tab.getByLabel('Password or token').waitFor();
  },

  'on a phone': async (t) => {
    const members = [await newMember({ username: 'W'.repeat(255) }), await newMember({ username: 'Ada' })];
    await rest('PATCH', `/members/${members[1].id}`, given.owner, { duration: 2 });
    await rest('GET', `/members/${members[0].id}/kubeconfig`, [members[0].id, members[0].password]);
    const phone = { viewport: { width: 375, height: 812 }, isMobile: true, hasTouch: true };
    const { page } = await t.open(phone);
    await page.goto('/console/sign-in');
    await assertNoSidewaysScrolling(page);
    await t.signIn(page, given.owner);
    for (const path of ['members', `members/${members[0].id}`, 'grant', 'tokens', 'members/none.such']) {
      await page.goto(`/console/${path}`);
      await assertNoSidewaysScrolling(page);
    }
    await page.goto(`/console/members/${members[0].id}`);
    await page.getByRole('button', { name: 'End access…' }).tap();
    await page.getByRole('dialog').waitFor();
    await assertNoSidewaysScrolling(page);
    await fillGrant(page, 'On a phone', 'x'.repeat(1024));
    await page.getByRole('button', { name: 'Grant access' }).tap();
    t.secret(await page.locator('#secret').innerText());
    await assertNoSidewaysScrolling(page);

    const engineer = await t.open(phone);
    await t.signIn(engineer.page, members[0].password, members[0].id);
    await assertNoSidewaysScrolling(engineer.page);
    await engineer.page.getByRole('button', { name: 'End my access…' }).tap();
    await engineer.page.getByRole('dialog').waitFor();
    await assertNoSidewaysScrolling(engineer.page);
  },
});
