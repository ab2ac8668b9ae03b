// What a web page with Uppy does: its own code is the address, the token and what to make of a file.

import AwsS3 from "@uppy/aws-s3";
import Uppy from "@uppy/core";
import GoldenRetriever from "@uppy/golden-retriever";

const MIB = 1024 * 1024;

/** Starts Uppy on this page; a page that was loaded again finds its files by itself. */
globalThis.start = ({ api_url: endpoint, token, multipart_above_bytes: above, meta }) => {
  const uppy = new Uppy({ id: "journey" });
  const seen = { uploaded: [], failed: [], parts: 0, online: 0, bytes: 0 };
  uppy.use(AwsS3, {
    endpoint,
    headers: { authorization: `Bearer ${token}` },
    shouldUseMultipart: (file) => file.size > above,
    limit: 2,
  });
  // Its own limits are those of a page that keeps many files.
  uppy.use(GoldenRetriever, { indexedDB: { maxFileSize: 200 * MIB, maxTotalSize: 400 * MIB } });
  uppy.on("file-added", (file) => uppy.setFileMeta(file.id, { size_bytes: file.size, ...meta }));
  uppy.on("s3-multipart:part-uploaded", () => (seen.parts += 1));
  uppy.on("upload-progress", (file, { bytesUploaded }) => (seen.bytes = bytesUploaded));
  uppy.on("upload-success", (file, { body, status }) => {
    const { key } = uppy.getFile(file.id).s3Multipart ?? body ?? {};
    seen.uploaded.push({ key: key ?? body?.key, status });
  });
  uppy.on("upload-error", (file, error) => seen.failed.push(String(error?.message ?? error)));
  uppy.on("restored", () => (seen.restored = uppy.getFiles().length));
  document.querySelector("input").addEventListener("change", (event) => {
    for (const file of event.target.files) uppy.addFile({ name: file.name, type: file.type, data: file });
  });
  globalThis.seen = seen;
  globalThis.uppy = uppy;
};

globalThis.isReady = true;
