// Plays a job's outputs in Chromium and tells what was seen.
//
//     node play.mjs TOOLS CHROMIUM < wish.json > played.json
//
// TOOLS is a folder with the packages of package-lock.json. The wish has `origin`, the web app's origin that the stack
// allows, and what page.js reads.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { text } from "node:stream/consumers";

const OLDEST_NODE = 20;
const PAGE = {
  "/": ["text/html", "index.html"],
  "/page.js": ["text/javascript", "page.js"],
  "/watch.js": ["text/javascript", "watch.js"],
};

async function servePage(tools) {
  const own = Object.entries(PAGE).map(([path, [type, file]]) => [path, type, new URL(file, import.meta.url)]);
  const files = [...own, ["/hls.mjs", "text/javascript", join(tools, "node_modules/hls.js/dist/hls.min.mjs")]];
  const answers = new Map();
  for (const [path, type, file] of files) answers.set(path, { type, body: await readFile(file) });
  const server = createServer((request, response) => {
    const answer = answers.get(request.url);
    response.writeHead(answer ? 200 : 404, { "content-type": answer?.type ?? "text/plain" });
    response.end(answer?.body);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return server;
}

function launch(tools, executablePath, origin, port) {
  const { chromium } = createRequire(join(tools, "/"))("playwright-core");
  return chromium.launch({
    executablePath,
    args: [
      "--autoplay-policy=no-user-gesture-required",
      "--disable-gpu",
      "--disable-quic",
      "--disable-sync",
      "--no-proxy-server",
      // The page has the origin that the stack allows, without taking that port from whoever develops a web app.
      `--host-resolver-rules=MAP ${new URL(origin).host} 127.0.0.1:${port}`,
    ],
  });
}

/** Notes each answer that the page got, and whether its request carried a token. */
function noteAnswers(page) {
  const answers = [];
  page.on("response", (response) => {
    const { origin, pathname } = new URL(response.url());
    const note = async () => {
      const headers = await response.request().allHeaders();
      return { url: origin + pathname, status: response.status(), authorized: "authorization" in headers };
    };
    answers.push(note());
  });
  return async () => {
    const settled = await Promise.allSettled(answers);
    return settled.flatMap(({ value }) => (value ? [value] : []));
  };
}

async function play(tools, chromium, wish) {
  const server = await servePage(tools);
  const browser = await launch(tools, chromium, wish.origin, server.address().port);
  try {
    const page = await browser.newPage();
    const complaints = [];
    page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => complaints.push(String(error)));
    const answers = noteAnswers(page);
    await page.goto(wish.origin);
    await page.waitForFunction(() => "play" in globalThis).catch((error) => {
      throw new Error(`${error.message}: ${complaints.join("; ")}`);
    });
    const played = await page.evaluate((asked) => globalThis.play(asked), wish).catch((error) => {
      throw new Error(`${error.message}\n${complaints.join("\n")}`);
    });
    return { browser: browser.version(), ...played, answers: await answers() };
  } finally {
    await browser.close();
    server.close();
  }
}

if (Number(process.versions.node.split(".")[0]) < OLDEST_NODE) {
  throw new Error(`Node.js ${process.versions.node} is too old: install Node.js ${OLDEST_NODE} or newer`);
}
const [tools, chromium] = process.argv.slice(2);
const played = await play(resolve(tools), chromium, JSON.parse(await text(process.stdin)));
process.stdout.write(`${JSON.stringify(played)}\n`);
