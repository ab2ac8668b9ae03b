// Uploads files with Uppy in Chromium, with what happens to people on the way, and tells what came of it.
//
//     node upload.mjs TOOLS CHROMIUM < wish.json > uploaded.json
//
// TOOLS is a folder with the packages of package-lock.json. The wish has `origin`, the web app's origin that the stack
// allows, `api_url` and `token`, the files `small` and `large`, and the `meta` of all.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { text } from "node:stream/consumers";

const STEP_LIMIT_MS = 60_000;
const OFFLINE_MS = 2_000;
const MULTIPART_ABOVE_BYTES = 20_000_000;
const PAGE = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><input type="file" multiple>
<script type="module" src="/upload.js"></script>`;

const [tools, executablePath] = process.argv.slice(2);
const require = createRequire(join(resolve(tools), "/"));
const wish = JSON.parse(await text(process.stdin));

async function bundle() {
  const contents = await readFile(new URL("upload-page.js", import.meta.url), "utf8");
  const stdin = { contents, resolveDir: resolve(tools), sourcefile: "upload-page.js" };
  const { outputFiles } = await require("esbuild").build({ stdin, bundle: true, format: "esm", write: false });
  return outputFiles[0].text;
}

async function servePage(script) {
  const server = createServer((request, response) => {
    const isScript = request.url === "/upload.js";
    response.writeHead(200, { "content-type": isScript ? "text/javascript" : "text/html" });
    response.end(isScript ? script : PAGE);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return server;
}

async function until(what, holds) {
  const end = performance.now() + STEP_LIMIT_MS;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`${what}: not within ${STEP_LIMIT_MS} ms`);
    await new Promise((again) => setTimeout(again, 20));
  }
}

const seen = (page) => page.evaluate(() => globalThis.seen);

async function open(page) {
  await page.goto(wish.origin);
  await start(page);
}

async function start(page) {
  await page.waitForFunction(() => globalThis.isReady);
  await page.evaluate((options) => globalThis.start(options), { ...wish, multipart_above_bytes: MULTIPART_ABOVE_BYTES });
}

async function finish(page, what) {
  try {
    await until(what, async () => (await seen(page)).uploaded.length > 0);
  } catch (error) {
    throw new Error(`${error.message}: ${JSON.stringify(await seen(page))}`);
  }
  return seen(page);
}

const begin = (page) => page.evaluate(() => void globalThis.uppy.upload().catch(() => {}));

/** A small file, in one piece. */
async function small(page) {
  await open(page);
  await page.setInputFiles("input", wish.small);
  await begin(page);
  return finish(page, "the small file");
}

/** A large file in parts, and a network that goes away in the middle. */
async function cut(page, context) {
  await open(page);
  await page.setInputFiles("input", wish.large);
  await begin(page);
  await until("two parts", async () => (await seen(page)).parts >= 2);
  await context.setOffline(true);
  const { parts: partsBefore } = await seen(page);
  await new Promise((done) => setTimeout(done, OFFLINE_MS));
  const { parts: partsMeanwhile, uploaded } = await seen(page);
  if (uploaded.length > 0) throw new Error("the file was there before the network went");
  await context.setOffline(false);
  return { ...(await finish(page, "the file after a cut")), partsBefore, partsMeanwhile };
}

/** A large file in parts, and a page that is closed and opened again in the middle. */
async function reload(page) {
  await open(page);
  await page.setInputFiles("input", wish.large);
  await begin(page);
  await until("three parts", async () => (await seen(page)).parts >= 3);
  const { parts: partsBefore } = await seen(page);
  await page.reload();
  await start(page);
  await until("the restored file", async () => (await seen(page)).restored > 0);
  await page.evaluate(() => globalThis.uppy.emit("restore-confirmed"));
  return { ...(await finish(page, "the file after a reload")), partsBefore };
}

const server = await servePage(await bundle());
const { chromium } = require("playwright-core");
const browser = await chromium.launch({
  executablePath,
  args: [
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-proxy-server",
    // As in play.mjs.
    `--host-resolver-rules=MAP ${new URL(wish.origin).host} 127.0.0.1:${server.address().port}`,
  ],
});
const told = { browser: browser.version() };
const complaints = [];
try {
  for (const [name, journey] of Object.entries({ small, cut, reload })) {
    // Each with a browser's memory of its own.
    const context = await browser.newContext();
    const page = await context.newPage();
    const answers = [];
    page.on("console", (message) => complaints.push(`${name}: ${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => complaints.push(`${name}: ${error}`));
    page.on("response", (response) => {
      const { pathname } = new URL(response.url());
      answers.push({ method: response.request().method(), path: pathname, status: response.status() });
    });
    told[name] = { ...(await journey(page, context)), answers };
    await context.close();
  }
} catch (error) {
  throw new Error(`${error.message}\n${complaints.join("\n")}`);
} finally {
  await browser.close();
  server.close();
}
process.stdout.write(`${JSON.stringify(told)}\n`);
