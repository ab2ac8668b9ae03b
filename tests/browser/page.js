// What the browser does: plays HLS by hls.js and files by themselves.

import Hls from "/hls.mjs";
import { newVideo, ranges, until, watch } from "/watch.js";

// Far more than any test has: all of it is to be buffered.
const EVERYTHING_SECONDS = 3_600;
const EVERYTHING_BYTES = 1_000_000_000;

function newPlayer({ api_url: api, token }) {
  return new Hls({
    autoStartLoad: false,
    maxBufferLength: EVERYTHING_SECONDS,
    maxMaxBufferLength: EVERYTHING_SECONDS,
    maxBufferSize: EVERYTHING_BYTES,
    // A signed URL is its own permission, and S3 refuses a request that has two.
    xhrSetup(xhr, url) {
      if (url.startsWith(`${api}/`)) xhr.setRequestHeader("Authorization", `Bearer ${token}`);
    },
  });
}

function levelOf({ width, height, attrs }) {
  return { width_px: width, height_px: height, codecs: attrs.CODECS, resolution: attrs.RESOLUTION };
}

/** Plays one level from its beginning to its end. */
async function watchLevel(hls, video, media, index, wish) {
  video.currentTime = 0;
  if (hls.loadLevel !== index) hls.currentLevel = index;
  // A switch empties the buffers first, and the level is the current one when it is in them. The stream has ended when
  // all of it is: a seek before that can keep hls.js from ending it at all.
  await until(`all of level ${index}`, () => hls.currentLevel === index && media.source.readyState === "ended");
  const buffered = bufferedRanges(media);
  return { ...(await watch(video, wish)), buffered };
}

function bufferedRanges({ buffers = {} }) {
  return Object.fromEntries(Object.entries(buffers).map(([kind, buffer]) => [kind, ranges(buffer.buffered)]));
}

async function playHls(wish) {
  const video = newVideo();
  const hls = newPlayer(wish);
  const errors = [];
  const media = {};
  hls.on(Hls.Events.ERROR, (_, { type, details, fatal, reason, error }) => {
    errors.push({ type, details, fatal, reason: reason ?? error?.message ?? null });
  });
  // Chosen before anything is loaded, so that nothing has to be aborted.
  hls.on(Hls.Events.MANIFEST_PARSED, () => {
    hls.loadLevel = 0;
    hls.startLoad(0);
  });
  hls.on(Hls.Events.MEDIA_ATTACHED, (_, { mediaSource }) => {
    media.source = mediaSource;
  });
  hls.on(Hls.Events.BUFFER_CREATED, (_, { tracks }) => {
    media.buffers = Object.fromEntries(Object.entries(tracks).map(([kind, track]) => [kind, track.buffer]));
  });
  const play = async () => {
    hls.loadSource(wish.hls_url);
    hls.attachMedia(video);
    await until("the first segments", () => video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA);
    const levels = [];
    for (let index = 0; index < hls.levels.length; index += 1) {
      const watched = await watchLevel(hls, video, media, index, wish);
      levels.push({ ...levelOf(hls.levels[index]), watched });
    }
    return { levels, audio_tracks: hls.audioTracks.length, errors, video_error: video.error?.message ?? null };
  };
  const played = await play().catch((error) => {
    const state = { errors, buffered: bufferedRanges(media), video_error: video.error?.message };
    throw new Error(`${error.message}: ${JSON.stringify(state)}`);
  });
  hls.destroy();
  return played;
}

async function playFile({ name, url }, wish) {
  const video = newVideo();
  video.src = url;
  const isReady = () => video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA;
  await until(`${name}'s first frame`, () => isReady() || video.error);
  if (video.error) throw new Error(`${name}: ${video.error.message}`);
  const watched = await watch(video, wish);
  return { name, watched, video_error: video.error?.message ?? null };
}

globalThis.play = async (wish) => {
  const hls = await playHls(wish);
  const files = [];
  for (const file of wish.files) files.push(await playFile(file, wish));
  return { hls, files };
};
