// axe on every page in both colour schemes, and countdowns that do not trust the browser's clock.

import assert from 'node:assert/strict';
import { ask, assertNoSidewaysScrolling, endAll, eventually, given, newMember, rest, run } from './lib.mjs';

await run({
  'axe finds nothing on the pages of an owner': async (t) => {
    await endAll();
    const { page } = await t.open();
    await page.goto('/console/sign-in');
    await t.axe(page);
    await page.getByLabel('Password or token').fill('wrong');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('alert').waitFor();
    await t.axe(page);

    await t.signIn(page, given.owner);
    await page.getByText('Nobody has access to this data plane at present.').waitFor();
    await t.axe(page);
    await page.goto('/console/grant');
    await t.axe(page);
    // Refused: the browser would not send it.
    await page.getByRole('radio').first().check();
    await page.getByLabel('Why').evaluate((field) => {
      field.removeAttribute('maxlength');
      field.value = 'x'.repeat(2000);
    });
    await page.getByRole('button', { name: 'Grant access' }).click();
    await page.getByRole('alert').waitFor();
    assert.equal(await page.getByLabel('Why').inputValue(), 'x'.repeat(2000), 'what was refused is still there');
    await t.axe(page);
    await page.getByLabel('Why').fill('Case 0815');
    await page.getByLabel('For whom').fill('Ada');
    await page.getByRole('button', { name: 'Grant access' }).click();
    const secret = t.secret(await page.locator('#secret').innerText());
    await t.axe(page);

    await page.getByRole('link', { name: 'Done' }).click();
    const link = page.getByRole('row').getByRole('link');
    const id = await link.innerText();
    for (let n = 0; n < 2; n++) await rest('GET', `/members/${id}/kubeconfig`, [id, secret]);
    await newMember({ username: 'Bob', description: 'Another' });
    const gone = await newMember();
    await rest('DELETE', `/members/${gone.id}`, given.owner);
    await eventually('an ended member is listed', async () => {
      await page.reload();
      return page.getByRole('region', { name: 'Ended members' }).isVisible();
    });
    await t.axe(page);
    await page.goto(`/console/members/${id}`);
    await page.getByRole('button', { name: /^Revoke kubeconfig/ }).first().waitFor();
    await t.axe(page);
    await page.getByRole('button', { name: 'End access…' }).click();
    await page.getByRole('dialog').waitFor();
    await t.axe(page);

    await page.goto('/console/tokens');
    await page.getByRole('region', { name: 'Access tokens' }).waitFor();
    await t.axe(page);
    await page.locator('summary').first().click();
    await t.axe(page);
    await page.getByRole('button', { name: 'Revoke token…' }).first().click();
    await page.getByRole('dialog').waitFor();
    await t.axe(page);
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
    await page.getByLabel('Name', { exact: true }).first().fill('axe');
    await page.getByRole('checkbox').first().check();
    await page.getByLabel('The token that you signed in with, once more').fill(given.owner);
    await page.getByRole('button', { name: 'Generate token' }).click();
    t.secret(await page.locator('#secret').innerText());
    await t.axe(page);
    await page.goto('/console/no-such-page');
    await t.axe(page);
  },

  'axe finds nothing on the page of an engineer': async (t) => {
    const member = await newMember({ username: 'Ada' });
    await rest('GET', `/members/${member.id}/kubeconfig`, [member.id, member.password]);
    const { page } = await t.open();
    await t.signIn(page, member.password, member.id);
    await page.getByText('PowerShell').click();
    await page.getByRole('region', { name: 'Your kubeconfigs' }).waitFor();
    await t.axe(page);
    await page.getByRole('button', { name: 'End my access…' }).click();
    await page.getByRole('dialog').waitFor();
    await t.axe(page);
  },

  'each page has a title, a heading, a language and landmarks': async (t) => {
    const member = await newMember();
    const { page } = await t.open();
    const look = async (path, title) => {
      await page.goto(`/console/${path}`);
      assert.equal(await page.title(), `${title} · ${given.dataPlane} · Daypass`);
      assert.equal(await page.locator('h1').count(), 1);
      assert.equal(await page.locator('html').getAttribute('lang'), 'en');
      assert.ok((await page.getByRole('banner').innerText()).includes(given.dataPlane));
    };
    await look('sign-in', 'Sign in');
    await t.signIn(page, given.owner);
    await look('members', 'Members');
    await look('grant', 'Grant access');
    await look(`members/${member.id}`, member.id);
    await look('tokens', 'Access tokens');
    const engineer = await t.open();
    await t.signIn(engineer.page, member.password, member.id);
    assert.equal(await engineer.page.title(), `My access · ${given.dataPlane} · Daypass`);
  },

  'colours follow the system, and forced colours and reduced motion are respected': async (t) => {
    const { page } = await t.open();
    await page.goto('/console/sign-in');
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.emulateMedia({ colorScheme: 'light' });
    const light = await background();
    await page.emulateMedia({ colorScheme: 'dark' });
    assert.notEqual(await background(), light);
    await page.emulateMedia({ forcedColors: 'active', reducedMotion: 'reduce' });
    const moving = await page.evaluate(() => [...document.querySelectorAll('*')].filter((element) => {
      const { animationName, transitionDuration } = getComputedStyle(element);
      return animationName !== 'none' || transitionDuration.split(', ').some((time) => parseFloat(time) > 0.01);
    }).length);
    assert.equal(moving, 0);
  },

  'text can be twice as large': async (t) => {
    // WCAG 1.4.10: 1,280 px at 400 % are 320 px.
    const member = await newMember({ username: 'Ada' });
    const { page } = await t.open({ viewport: { width: 320, height: 640 } });
    await t.signIn(page, given.owner);
    for (const path of ['members', 'grant', 'tokens', `members/${member.id}`]) {
      await page.goto(`/console/${path}`);
      await assertNoSidewaysScrolling(page);
    }
  },

  'a countdown is right with a browser clock that is an hour off': async (t) => {
    const member = await newMember({ duration: 2 });
    for (const [off, name] of [[3_600_000, 'fast'], [-3_600_000, 'slow']]) {
      const { page, context } = await t.open();
      await context.addInitScript((milliseconds) => {
        const Real = Date;
        // eslint-disable-next-line no-global-assign
        Date = class extends Real {
          constructor(...args) {
            if (args.length === 0) super(Real.now() + milliseconds);
            else super(...args);
          }

          static now() {
            return Real.now() + milliseconds;
          }
        };
      }, off);
      await t.signIn(page, given.owner);
      assert.ok(Math.abs((await page.evaluate(() => Date.now())) - Date.now() - off) < 60_000, `the clock is ${name}`);
      // Not only as it was rendered: the script has counted.
      const countdown = page.getByRole('row', { name: new RegExp(member.id) }).locator('.countdown');
      await countdown.evaluate((element) => (element.textContent = ''));
      await eventually('the script counts', async () => /^1 h 5\d min$/.test(await countdown.innerText()));
      // It still does after it has asked for the server's time.
      await Promise.all([
        page.waitForResponse('**/console/time'),
        page.evaluate(() => dispatchEvent(new Event('focus'))),
      ]);
      await countdown.evaluate((element) => (element.textContent = ''));
      await eventually('the script counts', async () => /^1 h 5\d min$/.test(await countdown.innerText()));
      const warning = page.getByText('You will be signed out in less than two minutes.');
      assert.ok(!(await warning.isVisible()));
    }
  },

  'a countdown is right after the computer has slept': async (t) => {
    const member = await newMember({ duration: 2 });
    const { page } = await t.open();
    await page.clock.install();
    await t.signIn(page, member.password, member.id);
    const countdown = page.locator('[data-announce]');
    assert.match(await countdown.innerText(), /^1 h 5\d min$/);
    // The page's clocks stood still for as long as the server went on, here the other way round.
    await page.clock.fastForward('01:00:00');
    await page.clock.runFor(1000);
    assert.match(await countdown.innerText(), /^5\d min \d+ s$/);
    await Promise.all([
      page.waitForResponse('**/console/time'),
      page.evaluate(() => dispatchEvent(new Event('focus'))),
    ]);
    await eventually('it has asked for the time', async () => {
      await page.clock.runFor(1000);
      return /^1 h 5\d min$/.test(await countdown.innerText());
    });
  },

  'a screen reader is told now and then': async (t) => {
    const member = await newMember();
    const { page } = await t.open();
    await page.clock.install();
    await t.signIn(page, member.password, member.id);
    const announcer = page.locator('#announcer');
    assert.equal(await announcer.getAttribute('role'), 'status');
    assert.equal(await announcer.textContent(), '');
    const said = new Set();
    const countdowns = new Set();
    for (let step = 0; step < 63; step++) {
      // The real time that passes meanwhile is added. Less than a minute, so that it skips none.
      await page.clock.fastForward(56_000);
      await page.clock.runFor(1000);
      said.add(await announcer.textContent());
      countdowns.add(await page.locator('[data-announce]').textContent());
    }
    assert.ok(countdowns.size > 50, 'it counts down');
    assert.equal([...said].filter(Boolean).length, 4, `at 30, 10, 5 and 1 minutes: ${[...said]}`);
    assert.equal((await ask('audit', { member: member.id })).includes('EXPIRED'), false);
  },
});
