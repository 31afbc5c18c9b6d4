// Drives the page of a running aggregator in a real browser: CAVRA_URL is its
// address, CAVRA_TOKEN_FILE a file with an admin token.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';

const base = process.env.CAVRA_URL;
const token = readFileSync(process.env.CAVRA_TOKEN_FILE, 'utf8').trim();
const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

let browser;
before(async () => { browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: flags }); });
after(async () => { await browser.close(); });

async function api(path) {
  const answer = await fetch(base + path, { headers: { Authorization: `Bearer ${token}` } });
  assert.equal(answer.status, 200, path);
  return answer;
}

// open logs in, in a window of its own, and fails on any complaint of the
// browser's: a script, a style or a request that the policy refused.
async function open(viewport) {
  const context = await browser.newContext({ viewport });
  const page = await context.newPage();
  const complaints = [];
  page.on('console', m => { if (['error', 'warning'].includes(m.type())) complaints.push(m.text()); });
  page.on('pageerror', e => complaints.push(String(e)));
  await page.goto(base + '/');
  await login(page, token);
  return { context, page, complaints };
}

async function login(page, secret) {
  await page.locator('input[name=token]').fill(secret);
  await Promise.all([page.waitForLoadState('load'), page.locator('main button, form button').first().click()]);
}

test('nobody sees anything without a good token', async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(base + '/exposures');
  assert.match(page.url(), /\/login/);
  await login(page, 'cavra_api_nobody');
  assert.match(page.url(), /\/login/);
  assert.equal(await page.locator('[role=alert]').count(), 1);
  const raw = await fetch(base + '/v1/posture');
  assert.equal(raw.status, 401);
  await context.close();
});

test('the figures of the page are those of the API', async () => {
  const posture = await (await api('/v1/posture')).json();
  const { context, page, complaints } = await open({ width: 1280, height: 900 });
  const text = (await page.locator('main').innerText()).replace(/\s+/g, ' ');
  assert.ok(text.includes(posture.score.toFixed(1)), 'score');
  for (const [word, n] of [['fail', posture.artifacts.fail], ['warn', posture.artifacts.warn], ['pass', posture.artifacts.pass]]) {
    assert.match(text, new RegExp(`\\b${n} ${word}\\b`), word);
  }
  for (const severity of ['critical', 'high', 'medium', 'low', 'info']) {
    assert.match(text, new RegExp(`${severity} ${posture.exposures[severity]}\\b`), severity);
  }
  assert.deepEqual(complaints, []);
  await context.close();
});

test('from a score to the envelope that is its evidence', async () => {
  const { context, page, complaints } = await open({ width: 1280, height: 900 });
  const worst = (await (await api('/v1/artifacts?limit=1')).json()).artifacts[0];
  await page.locator(`a[href*="${worst.digest}"]`).first().click();
  await page.waitForURL('**/artifacts/**');
  assert.ok((await page.locator('main').innerText()).includes('What to do'));
  await page.locator(`a[href*="${worst.statement}"]`).first().click();
  await page.waitForURL('**/statements/**');
  assert.ok((await page.locator('main').innerText()).includes(worst.digest));
  const [download] = await Promise.all([page.waitForEvent('download'), page.locator('a[href*="/envelope"]').first().click()]);
  const served = Buffer.from(await (await api(`/v1/statements/${worst.statement}/envelope`)).arrayBuffer());
  assert.ok(readFileSync(await download.path()).equals(served), 'the download is the envelope, byte for byte');
  assert.deepEqual(complaints, []);
  await context.close();
});

test('every page fits a phone, has a heading, and can be walked by keyboard', async () => {
  const { context, page, complaints } = await open({ width: 375, height: 760 });
  const worst = (await (await api('/v1/artifacts?limit=1')).json()).artifacts[0];
  for (const path of ['/', '/exposures', '/agents', '/quarantine', `/artifacts/${worst.digest}`, `/statements/${worst.statement}`]) {
    await page.goto(base + path);
    const [inner, scroll] = await page.evaluate(() => [window.innerWidth, document.documentElement.scrollWidth]);
    assert.ok(scroll <= inner, `${path} is ${scroll} wide in a window of ${inner}`);
    assert.equal(await page.locator('h1').count(), 1, path);
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.tagName), 'A', `${path}: the first stop is a link`);
  }
  assert.deepEqual(complaints, []);
  await context.close();
});

test('logging out ends the session', async () => {
  const { context, page } = await open({ width: 1280, height: 900 });
  const cookies = await context.cookies();
  assert.ok(cookies.length === 1 && cookies[0].httpOnly && cookies[0].sameSite === 'Strict', JSON.stringify(cookies.map(c => ({ ...c, value: '' }))));
  await page.getByRole('button', { name: /log out/i }).click();
  await page.waitForURL('**/login**');
  await context.addCookies(cookies);
  await page.goto(base + '/');
  assert.match(page.url(), /\/login/, 'the old cookie still opens the door');
  await context.close();
});
