// Takes the README's pictures of the console, in both colour schemes, each of one size.

import assert from 'node:assert/strict';
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { eventually, given, rest, run } from './lib.mjs';

const SIZE = { width: 880, height: 680 };
const ADDRESS = 'https://daypass.example.com';

async function grant(details) {
  const { status, json } = await rest('POST', '/members', given.owner, details);
  assert.equal(status, 201);
  return { id: json.id, password: json.credentials.password };
}

// What differs from run to run or is secret: the address, its certificate and the password.
function censor(page) {
  return page.evaluate(([from, to]) => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      node.data = node.data
        .replaceAll(from, to)
        .replace(/^The browser will not know.*\n/m, '')
        .replace(/ '[^']*ca\.pem'\ncat > [^]*?\nEOF\n/, '\n')
        .replace(/ --cacert '[^']*'/g, '')
        .replace(/dp[mp]_([a-z0-9.-]+)_\S+/g, 'dpm_$1_Ux5mEXAMPLEonlyEXAMPLEonlyEXAMPLE')
        .replaceAll('system:serviceaccount:default:owner', 'ada@example.com');
    }
  }, [given.url, ADDRESS]);
}

async function take(page, name, height = SIZE.height) {
  await censor(page);
  await page.evaluate(() => scrollTo(0, 0));
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    const path = join(given.folder, `console-${name}-${colorScheme}.png`);
    const clip = { x: 0, y: 0, width: SIZE.width, height };
    await page.screenshot({ path, clip, caret: 'hide', animations: 'disabled' });
    assert.ok(statSync(path).size < 100_000, `${path} has ${statSync(path).size} bytes`);
  }
}

mkdirSync(given.folder, { recursive: true });

await run({
  'the pictures': async (t) => {
    const owner = await t.open({ viewport: SIZE });
    const { page } = owner;
    await t.signIn(page, given.owner);
    await page.goto('/console/grant');
    await page.locator(`#role-${given.role}`).check();
    await page.getByLabel('For whom').fill('Grace Hopper');
    await page.getByLabel('Why').fill('Case 0815: volumes of the shop do not attach');
    // What is chosen is what the picture begins with.
    await page.locator('fieldset').first().evaluate((all, id) => {
      all.querySelector('legend').after(all.querySelector(`#role-${id}`).parentElement);
      document.activeElement.blur();
    }, given.role);
    await take(page, 'grant');
    await page.getByRole('button', { name: 'Grant access' }).click();
    const password = t.secret(await page.locator('#secret').innerText());
    const id = await page.getByRole('main').getByRole('link').first().innerText();
    await take(page, 'hand-over', 560);

    for (const details of [
      { roleId: 'nodes-view', duration: 1, username: 'Katherine Johnson' },
      { roleId: 'projects-view', duration: 8, username: 'Linus Pauling' },
      { roleId: 'pods-restart', duration: 24, username: 'Margaret Hamilton' },
    ]) {
      const member = await grant(details);
      await rest('GET', `/members/${member.id}/kubeconfig`, [member.id, member.password]);
    }
    for (let n = 0; n < 2; n++) await rest('GET', `/members/${id}/kubeconfig`, [id, password]);
    await page.goto('/console/members');
    await eventually('the list counts the kubeconfigs', async () => {
      await page.reload();
      return /\b2\b/.test(await page.getByRole('row', { name: new RegExp(id) }).locator('td').nth(3).innerText());
    });
    await take(page, 'members');

    const engineer = await t.open({ viewport: SIZE });
    await t.signIn(engineer.page, password, id);
    await take(engineer.page, 'my-access');
  },
});
