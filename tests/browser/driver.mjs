// A browser by remote control: one JSON order a line on stdin, one JSON answer a line on
// stdout. What is claimed about the page is written in tests/browser.rs, not here.
//
// It notes what must not happen: errors in the console, uncaught errors, refused content,
// and requests to any host but the page's own.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(new URL('../../ui/package.json', import.meta.url));
const { chromium } = require('playwright-core');

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});

let page;
let host = '';
const problems = [];
const downloads = [];

async function open({ width, height, touch = false }) {
  await page?.context().close();
  const context = await browser.newContext({
    viewport: { width, height },
    hasTouch: touch,
    acceptDownloads: true,
  });
  page = await context.newPage();
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') problems.push(message.text());
  });
  page.on('pageerror', (error) => problems.push(`uncaught: ${error.message}`));
  page.on('download', (download) => downloads.push(download.suggestedFilename()));
  const ours = (url) => ['blob:', 'data:'].includes(url.protocol) || url.host === host;
  page.on('request', (request) => {
    if (!ours(new URL(request.url()))) problems.push(`asked elsewhere: ${request.url()}`);
  });
  page.on('websocket', (socket) => {
    if (new URL(socket.url()).host !== host) problems.push(`asked elsewhere: ${socket.url()}`);
  });
}

const orders = {
  open,
  async goto({ url }) {
    host = new URL(url).host;
    await page.goto(url);
  },
  async eval({ expression }) {
    return page.evaluate(expression);
  },
  async wait({ expression, ms }) {
    // Not waitForFunction: it evaluates inside the page, which the page's own policy forbids.
    const deadline = performance.now() + ms;
    for (;;) {
      const value = await page.evaluate(expression);
      if (value) return value;
      if (performance.now() > deadline) {
        const seen = await page.evaluate('document.body.innerText');
        throw new Error(`not within ${ms} ms; the page says:\n${seen}`);
      }
      await sleep(25);
    }
  },
  // At a hand's pace: what comes faster is a barcode scanner.
  async press({ key }) {
    await page.keyboard.press(key);
    await sleep(80);
  },
  type: ({ text, delay }) => page.keyboard.type(text, { delay }),
  click: ({ selector }) => page.click(selector),
  async tap({ x, y }) {
    await page.mouse.click(x, y);
  },
  async wheel({ x, y, by }) {
    await page.mouse.move(x, y);
    await page.mouse.wheel(0, by);
  },
  async drag({ from, to }) {
    await page.mouse.move(...from);
    await page.mouse.down();
    await page.mouse.move(...to, { steps: 8 });
    await page.mouse.up();
  },
  async shot({ path }) {
    await page.screenshot({ path });
  },
  // Takes what was noted so far.
  problems: async () => problems.splice(0),
  downloads: async () => downloads.splice(0),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { order, ...rest } = JSON.parse(line);
  let answer;
  try {
    answer = { ok: (await orders[order](rest)) ?? null };
  } catch (error) {
    answer = { error: String(error.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
