// Reads an MP4 with MP4Box.js, the reader of the GPAC project, and tells what it found.
//
//     node boxes.mjs TOOLS FILE > movie.json
//
// TOOLS is a folder with the packages of package-lock.json.

import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [tools, path] = process.argv.slice(2);
const { createFile, MP4BoxBuffer } = await import(
  pathToFileURL(join(resolve(tools), "node_modules/mp4box/dist/mp4box.all.mjs"))
);

const complaints = [];
const tracks = new Map();
const file = createFile();
file.onError = (module, message) => complaints.push(`${module}: ${message}`);
file.onReady = (movie) => {
  for (const { id, codec, nb_samples: samples } of movie.tracks) {
    tracks.set(id, { codec, samples, read_samples: 0, read_bytes: 0, sync_samples: 0 });
    file.setExtractionOptions(id, null, { nbSamples: 1 });
  }
  file.start();
};
file.onSamples = (id, _, samples) => {
  const track = tracks.get(id);
  for (const { data, is_sync: isSync } of samples) {
    track.read_samples += 1;
    track.read_bytes += data.byteLength;
    track.sync_samples += Number(isSync);
  }
};
const bytes = await readFile(path);
const whole = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
file.appendBuffer(MP4BoxBuffer.fromArrayBuffer(whole, 0));
file.flush();
process.stdout.write(JSON.stringify({ complaints, tracks: [...tracks.values()] }));
