// A job from registration to its outputs, by a client whose types are generated from /openapi.json. It has to compile
// with all of the compiler's checks, so a document that is vague about a field fails here before anything is sent.
import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Job = components["schemas"]["Job"];

const [baseUrl, email, source] = process.argv.slice(2);
if (!baseUrl || !email || !source) throw new Error("usage: journey BASE-URL EMAIL SOURCE");

const api = createClient<paths>({ baseUrl });

/** The body of a good answer, or the problem as an error. */
function good<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  if (answer.data === undefined) throw new Error(`${answer.response.status}: ${JSON.stringify(answer.error)}`);
  return answer.data;
}

const credentials = { email, password: "correct horse battery staple" };
const { account } = good(await api.POST("/auth/register", { body: credentials }));
const login = good(await api.POST("/auth/login", { body: credentials }));
api.use({ onRequest: ({ request }) => request.headers.set("authorization", `Bearer ${login.access_token}`) });

// A refusal is typed too: its code is one of those that are documented for this answer.
const refused = await api.POST("/jobs", { body: { filename: "a.mp4", size_bytes: 1, thumbnails: { count: 21 } } });
if (refused.error?.code !== "validation_failed") throw new Error(JSON.stringify(refused.error));
const pointers = refused.error.errors?.map((error) => error.pointer);

const bytes = await readFile(source);
const created = good(
  await api.POST("/jobs", {
    body: { filename: "journey.mp4", size_bytes: bytes.length, outputs: [{ format: "mp4", quality: "360p" }] },
  }),
);
if (created.upload?.method !== "PUT") throw new Error(`sent by ${created.upload?.method}`);
const { "content-length": _, ...headers } = created.upload.headers;
const upload = await fetch(created.upload.url, { method: created.upload.method, headers, body: new Uint8Array(bytes) });
if (!upload.ok) throw new Error(`the upload: ${upload.status}`);

const path = { id: created.id };
const ended: Job["status"][] = ["COMPLETED", "FAILED", "CANCELLED", "EXPIRED"];
let status: Job["status"] = created.status;
while (!ended.includes(status)) {
  await new Promise((resolve) => setTimeout(resolve, 500));
  ({ status } = good(await api.GET("/jobs/{id}/progress", { params: { path } })));
}
const job = good(await api.GET("/jobs/{id}", { params: { path } }));
const { outputs } = good(await api.GET("/jobs/{id}/outputs", { params: { path } }));
const { jobs } = good(await api.GET("/jobs", { params: { query: { limit: 1 } } }));
const again = await api.POST("/jobs/{id}/retry", { params: { path } });

console.log(
  JSON.stringify({
    account: account.email,
    status: job.status,
    error: job.error,
    cpu_seconds: job.metrics?.cpu_seconds,
    outputs: outputs.map((output) => [output.id, output.proof?.counted_frames ?? null]),
    listed: jobs.map(({ id }) => id === job.id),
    pointers,
    retry: again.error?.code,
  }),
);
