// Looks at a <video> as a viewer would: what picture is shown at a time, and whether playback runs on.

// As in tests/harness/barcode.rs: a frame's number is 16 blocks, the lowest bit first, in the upper left corner. The
// picture is read as if it were 640 pixels wide; a block has 16 of them then.
const BITS = 16;
const READING_WIDTH_PX = 640;
const BLOCK_PX = 16;
const BLOCK_EDGE_PX = 4;
const UNREADABLE = { from: 85, to: 170 };

// How long anything may take that a player does at once on an idle machine.
const STEP_LIMIT_MS = 15_000;
const POLL_MS = 10;
// How much of the media is played before and after a seam.
const RUN_UP_SECONDS = 0.6;
// A busy machine may stop a player for a moment, which a fault of the media does every time.
const CROSSINGS = 3;
const GOOD_CROSSING_MS = 250;

const canvas = document.createElement("canvas");
canvas.width = BITS * BLOCK_PX;
canvas.height = BLOCK_PX;
const context = canvas.getContext("2d", { willReadFrequently: true });

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks again and again until the answer is true. */
export async function until(what, holds) {
  const end = performance.now() + STEP_LIMIT_MS;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`${what}: not within ${STEP_LIMIT_MS} ms`);
    await pause(POLL_MS);
  }
}

/** The frame that is shown: its time stamp in seconds and its number, which is null when it cannot be read. */
function shown(video) {
  // Taken as a whole: the next frame may be shown at any moment.
  const frame = new VideoFrame(video);
  const seconds = frame.timestamp / 1e6;
  const scale = frame.displayWidth / READING_WIDTH_PX;
  const { width, height } = canvas;
  context.drawImage(frame, 0, 0, width * scale, height * scale, 0, 0, width, height);
  frame.close();
  const inner = BLOCK_PX - 2 * BLOCK_EDGE_PX;
  let number = 0;
  for (let bit = 0; bit < BITS; bit += 1) {
    const { data } = context.getImageData(bit * BLOCK_PX + BLOCK_EDGE_PX, BLOCK_EDGE_PX, inner, inner);
    let sum = 0;
    for (let at = 0; at < data.length; at += 4) sum += data[at] + data[at + 1] + data[at + 2];
    const luma = sum / (3 * inner * inner);
    if (luma >= UNREADABLE.from && luma < UNREADABLE.to) return [seconds, null];
    if (luma >= UNREADABLE.to) number |= 1 << bit;
  }
  return [seconds, number];
}

/** Moves the playhead and waits until its picture is shown. It must be another one than before. */
async function seek(video, seconds) {
  let painted = false;
  let sought = false;
  video.requestVideoFrameCallback(() => (painted = true));
  video.addEventListener("seeked", () => (sought = true), { once: true });
  video.currentTime = seconds;
  await until(`the picture at ${seconds} s`, () => painted && sought);
}

/** The frames that are shown at some times. */
async function look(video, times) {
  const frames = [];
  for (const seconds of times) {
    await seek(video, seconds);
    frames.push(shown(video));
  }
  return frames;
}

/** Plays across a seam. */
async function cross(video, seamSeconds) {
  await seek(video, seamSeconds - RUN_UP_SECONDS);
  const frames = [];
  let waits = 0;
  let running = true;
  const onWaiting = () => (waits += 1);
  const onFrame = () => {
    if (!running) return;
    frames.push(shown(video));
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
  await video.play();
  const begin = video.currentTime;
  // Only from here on: a start takes a moment, which is no stall.
  await until("the playhead's first move", () => video.currentTime > begin);
  video.addEventListener("waiting", onWaiting);
  const start = { clock: video.currentTime, wall: performance.now() };
  await until(`${seamSeconds} s`, () => video.currentTime >= seamSeconds + RUN_UP_SECONDS || video.ended);
  const clockLagMs = performance.now() - start.wall - (video.currentTime - start.clock) * 1000;
  running = false;
  video.pause();
  video.removeEventListener("waiting", onWaiting);
  // The clock follows the sound, so a picture that stands still does not stop it.
  const stepsMs = frames.slice(1).map(([seconds], index) => (seconds - frames[index][0]) * 1000);
  return { seam_seconds: seamSeconds, stalled_ms: Math.max(0, clockLagMs, ...stepsMs), waits, frames };
}

async function crossWell(video, seamSeconds) {
  const crossings = [];
  for (let count = 0; count < CROSSINGS; count += 1) {
    const crossing = await cross(video, seamSeconds);
    if (crossing.stalled_ms < GOOD_CROSSING_MS && crossing.waits === 0) return crossing;
    crossings.push(crossing);
  }
  return crossings.sort((a, b) => a.waits - b.waits || a.stalled_ms - b.stalled_ms)[0];
}

/** Plays the last moment. */
async function end(video) {
  await seek(video, video.duration - RUN_UP_SECONDS);
  await video.play();
  await until("the end", () => video.ended);
}

/** Begin and end of each range, in seconds. */
export function ranges(buffered) {
  return Array.from({ length: buffered.length }, (_, index) => [buffered.start(index), buffered.end(index)]);
}

export function newVideo() {
  const video = document.createElement("video");
  // Without it, the canvas may not be read: the media come from another origin.
  video.crossOrigin = "anonymous";
  video.preload = "auto";
  document.body.replaceChildren(video);
  return video;
}

/** All of the above for a video that is ready to play. */
export async function watch(video, { looks_seconds: looks, seams_seconds: seams }) {
  const looked = await look(video, looks);
  const crossings = [];
  for (const seam of seams) crossings.push(await crossWell(video, seam));
  await end(video);
  return {
    width_px: video.videoWidth,
    height_px: video.videoHeight,
    duration_seconds: video.duration,
    looked,
    crossings,
    audio_decoded_bytes: video.webkitAudioDecodedByteCount,
  };
}
