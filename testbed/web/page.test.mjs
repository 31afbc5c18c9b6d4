// Drives the page of a running aggregator as a person would, in a real browser.
//
//   CAVRA_URL=http://127.0.0.1:8080 CAVRA_TOKEN_FILE=data/admin.token npm test
//
// The tenant needs at least one artifact with findings. CHROMIUM names the
// browser, /usr/bin/chromium unless it is set.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';

const base = process.env.CAVRA_URL?.replace(/\/$/, '');
const tokenFile = process.env.CAVRA_TOKEN_FILE;
if (!base || !tokenFile) {
  throw new Error('set CAVRA_URL to a running aggregator and CAVRA_TOKEN_FILE to the file with an admin token of it');
}
const token = (await readFile(tokenFile, 'utf8')).trim();

let browser;
const complaints = [];

before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
});

after(() => browser?.close());

// open gives a page whose complaints (errors, refused resources, requests to
// elsewhere) are collected.
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, acceptDownloads: true, ...options });
  const page = await context.newPage();
  page.on('console', (m) => { if (m.type() === 'error' || m.type() === 'warning') complaints.push(`${page.url()}: ${m.text()}`); });
  page.on('pageerror', (e) => complaints.push(`${page.url()}: ${e}`));
  page.on('requestfailed', (r) => { if (!r.failure()?.errorText.includes('ERR_ABORTED')) complaints.push(`${r.url()}: ${r.failure()?.errorText}`); });
  page.on('request', (r) => { if (!r.url().startsWith(base + '/')) complaints.push(`a request to ${r.url()}`); });
  return page;
}

async function login(page) {
  await page.goto(base + '/login');
  await page.fill('#token', token);
  await page.click('main button[type=submit]');
  await page.waitForSelector('#score');
}

async function api(path) {
  const answer = await fetch(base + path, { headers: { Authorization: 'Bearer ' + token } });
  assert.equal(answer.status, 200, path);
  return answer;
}

const json = async (path) => (await api(path)).json();

// number reads a figure of the page, whose thousands are apart.
const number = async (page, selector) => Number((await page.textContent(selector)).trim().replaceAll(',', ''));

async function worst() {
  const { artifacts } = await json('/v1/artifacts?limit=500');
  const found = artifacts.find((a) => a.findings > 0 && a.kind === 'file');
  assert.ok(found, 'the tenant has no artifact with findings: scan a tree that has one, such as that of `make demo`');
  return found;
}

test('a wrong token is refused and not shown again', async () => {
  const page = await open();
  await page.goto(base + '/');
  assert.equal(new URL(page.url()).pathname, '/login');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'token');
  const before = complaints.length;
  await page.fill('#token', 'cavra_api_wrong');
  await page.click('main button[type=submit]');
  assert.match(await page.textContent('[role=alert]'), /not good/);
  assert.equal(await page.inputValue('#token'), '');
  assert.equal(await page.getAttribute('#token', 'aria-invalid'), 'true');
  assert.deepEqual(await page.context().cookies(), []);
  // The browser itself reports the 401.
  complaints.splice(before, complaints.length, ...complaints.slice(before).filter((c) => !c.includes('401')));
  await page.context().close();
});

test('a good token opens a session that scripts cannot read', async () => {
  const page = await open();
  await login(page);
  const [cookie] = await page.context().cookies();
  assert.equal(cookie.httpOnly, true);
  assert.equal(cookie.sameSite, 'Strict');
  assert.equal(cookie.secure, base.startsWith('https:'));
  assert.equal(await page.evaluate(() => document.cookie), '');
  await page.context().close();
});

test('the overview has the figures of the API', async () => {
  const page = await open();
  await login(page);
  // A fleet at work moves: ask on both sides of the page until they agree.
  for (let tries = 0; ; tries++) {
    const earlier = await json('/v1/posture');
    await page.goto(base + '/');
    const p = await json('/v1/posture');
    if (tries < 20 && JSON.stringify({ ...earlier, as_of: 0 }) !== JSON.stringify({ ...p, as_of: 0 })) continue;
    const score = (await page.textContent('#score')).trim();
    if (p.score === null) assert.equal(score, 'Not assessed yet');
    else assert.equal(score, `${p.score.toFixed(1)} of 100`);
    for (const [selector, want] of Object.entries({
      '#fail': p.artifacts.fail, '#warn': p.artifacts.warn, '#error': p.artifacts.error, '#unassessed': p.artifacts.unassessed, '#pass': p.artifacts.pass,
      '#exposures': p.exposures.total, '#critical': p.exposures.critical, '#high': p.exposures.high, '#medium': p.exposures.medium, '#low': p.exposures.low, '#info': p.exposures.info,
      '#linked': p.statements.linked, '#early': p.statements.early, '#forked': p.statements.forked, '#replayed': p.statements.replayed, '#refused': p.statements.refused,
      '#online': p.agents.online, '#stale': p.agents.stale, '#silent': p.agents.silent, '#never': p.agents.never,
    })) assert.equal(await number(page, selector), want, selector);
    break;
  }
  await page.context().close();
});

test('a score leads to its findings, its statement and the envelope', async () => {
  const artifact = await worst();
  const detail = await json('/v1/artifacts/' + artifact.digest);
  const page = await open();
  await login(page);
  await page.goto(base + '/artifacts?verdict=' + artifact.verdict);
  await page.click(`a[href="/artifacts/${artifact.digest}"]`);
  assert.equal(await number(page, '#score'), artifact.score);
  assert.equal(await page.locator('.finding').count(), detail.found.length);
  assert.match(await page.textContent('.finding'), /What to do:/);
  await page.click('#statement');
  assert.match(await page.textContent('#verified'), /Verified again just now/);
  assert.ok((await page.textContent('#payload')).includes(artifact.digest.slice('sha256:'.length)));
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#envelope')]);
  const got = await readFile(await download.path());
  const want = Buffer.from(await (await api(`/v1/statements/${detail.statement}/envelope`)).arrayBuffer());
  assert.ok(got.equals(want), `${got.length} bytes downloaded, ${want.length} from the API`);
  assert.equal(download.suggestedFilename(), detail.statement.slice('sha256:'.length) + '.dsse.json');
  // The statement's name is the hash of what its envelope holds (DSSE's PAE).
  const { payloadType, payload } = JSON.parse(got);
  const body = Buffer.from(payload, 'base64');
  const pae = Buffer.concat([Buffer.from(`DSSEv1 ${payloadType.length} ${payloadType} ${body.length} `), body]);
  assert.equal('sha256:' + createHash('sha256').update(pae).digest('hex'), detail.statement);
  await page.context().close();
});

test('the filters of the exposures are those of the API', async () => {
  const page = await open();
  await login(page);
  for (const query of ['', '?status=open', '?severity=critical&status=open', '?severity=low']) {
    const { exposures } = await json('/v1/exposures' + (query ? query + '&' : '?') + 'limit=100');
    await page.goto(base + '/exposures' + query);
    assert.equal(await page.locator('tbody tr').count(), exposures.length, query);
  }
  await page.context().close();
});

test('the fleet has the figures and the filters of the API', async () => {
  const page = await open();
  await login(page);
  for (const query of ['', '?status=online', '?status=silent', '?trouble=less_isolated', '?q=demo', '?q=no-such-agent']) {
    const { agents, total, fleet } = await json('/v1/agents' + query);
    await page.goto(base + '/agents' + query);
    assert.equal(await page.locator('table.agents tbody tr').count(), agents.length, query);
    if (agents.length > 0) assert.equal(await page.textContent('table.agents tbody th a'), agents[0].name, query);
    for (const word of ['online', 'stale', 'silent', 'never', 'revoked']) assert.equal(await number(page, '#' + word), fleet.agents[word], word);
    for (const t of fleet.troubles) assert.equal(await number(page, '#' + t.kind), t.agents, t.kind);
    assert.ok(total >= agents.length);
  }
  await page.goto(base + '/agents');
  const { agents: [first] } = await json('/v1/agents');
  await page.fill('#q', first.id);
  await page.click('form.search button');
  assert.equal(new URL(page.url()).search, '?q=' + first.id);
  await page.click(`a[href="/agents/${first.id}"]`);
  assert.match(await page.textContent('h1'), new RegExp(first.name));
  await page.context().close();
});

test('everything is reached with the keyboard, and one sees where one is', async () => {
  const page = await open();
  await login(page);
  await page.goto(base + '/');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content');
  assert.ok(await page.evaluate(() => document.activeElement.getBoundingClientRect().left >= 0), 'the skip link stays hidden');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  await page.goto(base + '/');
  const wanted = await page.locator('a[href], button, input:not([type=hidden]), summary').count();
  const seen = new Set();
  for (let i = 0; i < wanted; i++) {
    await page.keyboard.press('Tab');
    const at = await page.evaluate(() => {
      const e = document.activeElement, style = getComputedStyle(e);
      return { at: [...document.querySelectorAll('*')].indexOf(e), outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2, skip: e.classList.contains('skip'), what: e.outerHTML.slice(0, 80) };
    });
    assert.ok(at.outline || at.skip, 'no focus to be seen on ' + at.what);
    seen.add(at.at);
  }
  assert.equal(seen.size, wanted);
  await page.context().close();
});

// contrast is the worst of WCAG 2's contrast ratios of the text on a page.
function contrast() {
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const parse = (c) => { const n = c.match(/[\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3]));
  let worst = { ratio: 21, text: '' };
  for (const e of document.querySelectorAll('body *')) {
    const text = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join('');
    if (!text || e.closest('svg') || e.classList.contains('skip')) continue;
    const layers = [];
    let opacity = 1;
    for (let p = e; p; p = p.parentElement) { layers.unshift(parse(getComputedStyle(p).backgroundColor)); opacity *= Number(getComputedStyle(p).opacity); }
    const back = layers.reduce((under, top) => over(top, under), [255, 255, 255]);
    const colour = parse(getComputedStyle(e).color);
    const front = over([...colour.slice(0, 3), colour[3] * opacity], back);
    const [a, b] = [luminance(front), luminance(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst.ratio) worst = { ratio, text: text.slice(0, 60), html: e.outerHTML.slice(0, 100) };
  }
  return worst;
}

for (const [width, colorScheme] of [[1280, 'light'], [1280, 'dark'], [375, 'light'], [375, 'dark']]) {
  test(`every page is readable at ${width} px, ${colorScheme}`, async () => {
    const artifact = await worst();
    const { agents } = await json('/v1/agents');
    const page = await open({ viewport: { width, height: 900 }, colorScheme });
    await page.goto(base + '/login');
    const pages = ['/', '/artifacts', '/artifacts/' + artifact.digest, '/statements/' + artifact.statement, '/exposures', '/agents', '/agents?trouble=less_isolated', '/quarantine', ...agents.slice(0, 2).map((a) => '/agents/' + a.id)];
    const check = async (path) => {
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(overflow <= 0, `${path} is ${overflow} px too wide`);
      const low = await page.evaluate(contrast);
      assert.ok(low.ratio >= 4.5, `${path}: contrast ${low.ratio.toFixed(2)} of ${JSON.stringify(low)}`);
      assert.equal(await page.locator('h1').count(), 1, path);
      assert.equal(await page.locator('th:not([scope])').count(), 0, path);
      assert.equal(await page.locator('input:not([type=hidden]):not([id])').count(), 0, path);
      assert.equal(await page.getAttribute('html', 'lang'), 'en');
    };
    await check('/login');
    await login(page);
    for (const path of pages) {
      const answer = await page.goto(base + path);
      assert.equal(answer.status(), 200, path);
      assert.match(answer.headers()['content-security-policy'], /^default-src 'none'; style-src 'self';/);
      await check(path);
    }
    await page.context().close();
  });
}

test('a logout ends the session on the aggregator too', async () => {
  const page = await open();
  await login(page);
  const cookies = await page.context().cookies();
  await page.click('header button[type=submit]');
  assert.equal(new URL(page.url()).pathname, '/login');
  assert.deepEqual(await page.context().cookies(), []);
  await page.context().addCookies(cookies);
  await page.goto(base + '/artifacts');
  assert.equal(new URL(page.url()).pathname, '/login');
  await page.context().close();
});

test('no page complained', () => {
  assert.deepEqual(complaints, []);
});
