// What the console's tests share: one Chromium for each script, a fresh context for each case, and what must hold for
// every page of every case. tests/it/console and tests/node start the scripts. CONSOLE_TOOLS is the folder with their
// tools.

import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import https from 'node:https';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const tools = process.env.CONSOLE_TOOLS;
const require = createRequire(`${tools}/`);
const { chromium } = require('playwright-core');
const { AxeBuilder } = require('@axe-core/playwright');

// The longest that a test waits for anything. Long enough for a slow machine: no test asserts it.
export const DEADLINE = Number(process.env.DEADLINE ?? 90_000);

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const nextLine = async () => JSON.parse((await lines.next()).value);

// What the test was given: URLs, tokens, a role.
export const given = await nextLine();

// When the script last did something: a deed, a request or an answer.
let lastSign = Date.now();

// Asks the test for a deed (tests/it/console/deeds.rs), one at a time.
export async function ask(deed, details = {}) {
  process.stdout.write(`ask ${JSON.stringify({ deed, ...details })}\n`);
  const answer = await nextLine();
  lastSign = Date.now();
  return answer;
}

// A request without a browser.  { method, headers, body } → { status, headers, text }
export function send(url, { method = 'GET', headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const request = https.request(url, { method, headers, ca: given.certificate, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part) => (text += part));
      response.on('end', () => {
        lastSign = Date.now();
        resolve({ status: response.statusCode, headers: response.headers, text });
      });
    });
    request.on('error', reject);
    request.end(body);
  });
}

// A call of the REST API with a bearer token, or with [user, password].
export async function rest(method, path, credential, body) {
  const basic = Array.isArray(credential) && Buffer.from(credential.join(':')).toString('base64');
  const headers = { authorization: basic ? `Basic ${basic}` : `Bearer ${credential}` };
  if (body) headers['content-type'] = 'application/json';
  const url = `${given.url}/${given.dataPlane}${path}`;
  const answer = await send(url, { method, headers, body: body && JSON.stringify(body) });
  let json;
  try {
    json = JSON.parse(answer.text);
  } catch {
    json = undefined;
  }
  return { ...answer, json };
}

// A new member of the role.
export async function newMember(details = {}) {
  const body = { roleId: given.role, duration: 1, ...details };
  const { status, json } = await rest('POST', '/members', given.owner, body);
  assert.equal(status, 201);
  return { ...json, password: json.credentials.password };
}

// The ids of the role's members, as REST lists them.
export async function memberIds() {
  const { json } = await rest('GET', `/members?roleId=${given.role}&limit=1000`, given.owner);
  return json.items.map((item) => item.id);
}

// Ends all of the role's members.
export async function endAll() {
  for (const id of await memberIds()) await rest('DELETE', `/members/${id}`, given.owner);
}

// The owner's access tokens, as REST lists them.
export async function accessTokens() {
  return (await rest('GET', '/tokens?limit=1000', given.owner)).json.items;
}

// Polls until `poll` returns something.
export async function eventually(what, poll) {
  const deadline = Date.now() + DEADLINE;
  for (;;) {
    const found = await poll();
    if (found) return found;
    assert.ok(Date.now() < deadline, `not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

// Presses a button that copies something, until it has said so: it does for four seconds only.
export async function copy(page, name) {
  await eventually(`${name} says that it has`, async () => {
    await page.getByRole('button', { name }).click();
    return page.getByRole('button', { name: 'Copied' }).waitFor({ timeout: 4000 }).then(() => true, () => false);
  });
}

// Text must fit the width of the screen; only tables and code scroll by themselves.
export async function assertNoSidewaysScrolling(page) {
  const { wide, narrow, culprits } = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    // What is positioned absolutely leaves an element that scrolls, unless that is positioned as well.
    const scrolls = (element) => (element.offsetParent ?? element.parentElement)?.closest('.scroll, pre, select');
    const isOut = (element) => element.getBoundingClientRect().right > clientWidth + 1 && !scrolls(element);
    const out = [...document.querySelectorAll('body *')].filter(isOut);
    return { wide: scrollWidth, narrow: clientWidth, culprits: out.map((element) => element.outerHTML.slice(0, 90)) };
  });
  assert.ok(wide <= narrow, `${page.url()} is ${wide} px wide on a screen of ${narrow}: ${culprits.join('\n')}`);
}

// Presses Tab until this element has the focus, which must be visible.
export async function tabTo(locator) {
  const page = locator.page();
  for (let n = 0; n < 120; n++) {
    if (await locator.evaluate((element) => element === document.activeElement)) {
      const style = await locator.evaluate((element) => {
        const { outlineStyle, outlineWidth } = getComputedStyle(element);
        return `${outlineStyle} ${outlineWidth}`;
      });
      assert.ok(!style.startsWith('none') && !style.endsWith(' 0px'), `${locator} shows no focus: ${style}`);
      return;
    }
    await page.keyboard.press('Tab');
  }
  assert.fail(`Tab does not reach ${locator}`);
}

const HEADERS = {
  'cache-control': 'no-store',
  'referrer-policy': 'same-origin',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
};
const CSP = ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"];

// One case: its contexts, and what their pages have done.
class Case {
  #browser;
  #contexts = [];
  #faults = [];
  #seen = [];
  #secrets = new Set();
  #documents = 0;
  #checks = [];

  constructor(browser) {
    this.#browser = browser;
    for (const secret of [given.owner, given.manager, given.token?.secret, given.lister]) this.secret(secret);
  }

  // Notes a secret, which must be in no URL, header of a request, log or message.
  secret(value) {
    if (value) this.#secrets.add(value);
    return value;
  }

  // A new context with a page in it.
  async open(options = {}) {
    const context = await this.#browser.newContext({ baseURL: given.url, locale: 'en-GB', ...options });
    context.setDefaultTimeout(DEADLINE);
    this.#contexts.push(context);
    context.on('page', (page) => this.#watch(page));
    await context.addInitScript(() => {
      addEventListener('securitypolicyviolation', (event) => {
        console.error(`policy violated: ${event.violatedDirective} by ${event.blockedURI} ${event.sample}`);
      });
    });
    context.on('request', (request) => this.#checks.push(this.#request(request)));
    context.on('response', (response) => this.#checks.push(this.#response(response)));
    return { context, page: await context.newPage() };
  }

  #watch(page) {
    page.on('pageerror', (error) => this.#faults.push(`${page.url()}: ${error}`));
    page.on('console', (message) => {
      const text = message.text();
      this.#seen.push(text);
      // The answer's status is checked elsewhere.
      const isStatus = text.startsWith('Failed to load resource: the server responded with a status of');
      if (['error', 'warning'].includes(message.type()) && !isStatus && !this.isExpected(text, page.url())) {
        this.#faults.push(`${page.url()}: ${text}`);
      }
    });
  }

  // Whether the browser must complain so, or about that path, on the page of this URL. A case replaces it.
  isExpected(_what, _page) {
    return false;
  }

  async #request(request) {
    lastSign = Date.now();
    this.#seen.push(request.url());
    // Headers of a request that was aborted cannot be had.
    const headers = await request.allHeaders().catch(() => ({}));
    for (const name of ['referer', 'origin']) this.#seen.push(headers[name] ?? '');
  }

  async #response(response) {
    const url = new URL(response.url());
    if (![given.url, given.withoutTokens, given.strict].includes(url.origin)) return;
    const headers = await response.allHeaders().catch(() => null);
    if (!headers) return;
    this.#seen.push(headers.location ?? '');
    const isPage = response.request().resourceType() === 'document';
    if (!isPage && response.status() >= 400 && !this.isExpected(url.pathname, pageOf(response))) {
      this.#faults.push(`${response.status()} ${url}`);
    }
    if (!url.pathname.startsWith('/console/')) return;
    this.#documents += isPage ? 1 : 0;
    if (isPage || url.pathname === '/console/time') {
      for (const [name, value] of Object.entries(HEADERS)) {
        if (headers[name] !== value) this.#faults.push(`${url}: ${name} is ${headers[name]}`);
      }
    }
    const policy = headers['content-security-policy'] ?? '';
    if (policy.includes('unsafe') || CSP.some((part) => !policy.includes(part))) {
      this.#faults.push(`${url}: its policy is "${policy}"`);
    }
  }

  // Signs in on the page that is open, if it is the sign-in form.
  async signIn(page, password, username) {
    if (!page.url().includes('/console/sign-in')) await page.goto('/console/sign-in');
    if (username) await page.getByLabel('User name').fill(username);
    await page.getByLabel('Password or token').fill(this.secret(password));
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('button', { name: 'Sign out', exact: true }).waitFor();
    await this.sessionOf(page.context());
  }

  // The secret of the session in the cookie, if there is one.
  async sessionOf(context) {
    return this.secret((await sessionCookie(context))?.value);
  }

  // Looks for faults of accessibility in both colour schemes.
  async axe(page) {
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      const { violations, passes } = await new AxeBuilder({ page }).analyze();
      assert.ok(passes.length > 5, `axe looked at nothing on ${page.url()}`);
      for (const { id, help, nodes } of violations) {
        const where = nodes.map((node) => `${node.html} ${node.failureSummary}`).join('\n    ');
        this.#faults.push(`${page.url()} in ${colorScheme}: ${id}: ${help}\n    ${where}`);
      }
    }
  }

  // What the browser was asked for, and said.
  get seen() {
    return this.#seen;
  }

  // What must hold in every case.
  async finish() {
    await Promise.all(this.#checks);
    const secrets = [...this.#secrets];
    for (const secret of secrets) {
      for (const text of this.#seen) {
        const found = text.includes(secret) || text.includes(encodeURIComponent(secret));
        if (found) this.#faults.push(`a secret (${secret.slice(0, 8)}…) is in: ${text.slice(0, 200)}`);
      }
    }
    if ((await ask('leaks', { secrets })) !== 0) this.#faults.push('a secret is in a log, an event or a metric');
    if (this.#documents === 0) this.#faults.push('no page was loaded');
    assert.deepEqual(this.#faults, []);
  }

  // The pages that are open, in words.
  async show() {
    const pages = this.#contexts.flatMap((context) => context.pages());
    const texts = pages.map(async (page) => {
      const text = await page.locator('body').innerText({ timeout: 2000 }).catch((error) => `${error}`);
      return `--- ${page.url()}\n${text.replace(/\n+/g, '\n').slice(0, 900)}`;
    });
    return (await Promise.all(texts)).join('\n');
  }

  async close() {
    for (const context of this.#contexts) await context.close();
  }
}

// The URL of the page that asked for an answer.
function pageOf(response) {
  try {
    return response.frame().page().url();
  } catch {
    return '';
  }
}

// The console's cookie.
export async function sessionCookie(context) {
  const cookies = (await context.cookies()).filter((cookie) => cookie.name === '__Host-daypass');
  return cookies[0];
}

// Runs cases one after the other; CASE=text only those with this text in their name.
export async function run(cases) {
  let current = 'the start of the browser';
  // A script that hangs ends, and says where. One that goes on may take as long as a slow machine needs.
  setInterval(() => {
    if (Date.now() - lastSign < 3 * DEADLINE) return;
    console.error(`the script hangs in: ${current}`);
    process.exit(2);
  }, 1000).unref();
  // A certificate that the browser knows, so that its cache and its cookies work as they do in production.
  const { publicKey } = new X509Certificate(given.certificate);
  const spki = createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
  const browser = await chromium.launch({
    // As browsers are by default: a page that the back button shows again may come from it.
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
    executablePath: `${tools}/chromium`,
    args: [
      `--ignore-certificate-errors-spki-list=${spki}`,
      '--no-proxy-server',
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
    ],
  });
  let passed = 0;
  const failed = [];
  for (const [name, body] of Object.entries(cases)) {
    if (!name.includes(process.env.CASE ?? '')) continue;
    current = name;
    const started = Date.now();
    const one = new Case(browser);
    try {
      await body(one);
      await one.finish();
      passed++;
      console.log(`ok: ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
    } catch (error) {
      failed.push(name);
      console.log(`FAILED: ${name}\n${error.stack}\n${await one.show()}`);
    } finally {
      await one.close();
    }
  }
  await browser.close();
  console.log(`\ndone: ${passed} passed, ${failed.length} failed`);
  process.exit(failed.length === 0 && passed > 0 ? 0 : 1);
}
