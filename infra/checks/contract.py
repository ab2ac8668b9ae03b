"""Holds a deployed stack against its own OpenAPI document, with requests that a generator thinks up.

    cargo local with -- python infra/checks/contract.py [--max-examples N] [--seed N]

Schemathesis takes every operation of the document (all of its phases and checks): the examples, values at and behind each
bound, random ones, and sequences that follow the document's links. A finding is a 5xx, an answer with an undocumented
status, header, type or shape, a valid request that is refused, an invalid one that is not, a missing token that is not
missed. A completed job is there to be asked about. Needs API_URL. Exits 1 if anything was found, or if an operation was left out.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

import contract_hooks
from contract_hooks import call

HERE = pathlib.Path(__file__).parent
# A second of video, small enough to be encoded in no time.
CLIP = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=10:duration=1", "-c:v", "libx264", "-preset", "ultrafast",
        "-pix_fmt", "yuv420p"]
JOB_LIMIT_SECONDS = 120

# What a schema cannot say. Each is about one operation and one check; all else holds for it.
EXCEPTIONS = """
# A cursor is opaque: a text that fits its schema is still not one that the stack has handed out. Entries are for operators,
# and from and to must be in order.
[[operations]]
include-operation-id = ["listJobs", "listVideos", "listVideoTasks", "listAuditEntries"]
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 422, 429]
# Thought-up requests come with the same key and other bodies; what `metadata` of Uppy's may hold is a create request again.
[[operations]]
include-operation-id = ["createJob", "uploadVideo", "submitJob", "getUppyParams", "createUppyUpload"]
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 404, 409, 422, 429]
# Passwords that anybody would try are listed in no schema; how many parts an upload has depends on it.
[[operations]]
include-operation-id = ["register", "changePassword", "signParts", "signUppyParts", "signUppyPart", "completeUpload", "completeUppyUpload"]
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 422, 429]
"""


def document(url: str) -> dict:
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=30) as answer:
        return json.load(answer)


def completed_job(token: str, folder: pathlib.Path) -> str:
    """Makes a job and waits for its end."""
    lines = subprocess.run(["cargo", "local", "tools"], cwd=HERE, check=True, capture_output=True, text=True).stdout
    ffmpeg = dict(line.split("=", 1) for line in lines.splitlines() if "=" in line)["FFMPEG"]
    clip = folder / "clip.mp4"
    subprocess.run([ffmpeg, "-loglevel", "error", *CLIP, clip], check=True)
    data = clip.read_bytes()
    job = call("POST", "/jobs", {"filename": "clip.mp4", "size_bytes": len(data), "thumbnails": {"count": 1},
                                 "outputs": [{"format": "mp4"}, {"format": "hls"}]}, token)
    upload = urllib.request.Request(job["upload"]["url"], data, job["upload"]["headers"], method="PUT")
    urllib.request.urlopen(upload, timeout=60).close()
    end = time.monotonic() + JOB_LIMIT_SECONDS
    while (status := call("GET", f"/jobs/{job['id']}", token=token)["status"]) != "COMPLETED":
        if status == "FAILED" or time.monotonic() > end:
            raise SystemExit(f"contract: the job is {status}")
        time.sleep(0.5)
    return job["id"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-examples", type=int, default=25, help="random requests an operation (default: 25)")
    parser.add_argument("--seed", type=int, default=1, help="the same requests for the same seed (default: 1)")
    parser.add_argument("--include", help="only operations whose path matches this expression")
    arguments = parser.parse_args()
    url = os.environ["API_URL"]
    described = document(url)
    operations = sum(len(item) for item in described["paths"].values())

    with tempfile.TemporaryDirectory(prefix="reelay-contract-") as folder:
        config = pathlib.Path(folder) / "schemathesis.toml"
        config.write_text(EXCEPTIONS)
        # From a file: the generator leaves out the operation that it has a document from.
        schema = pathlib.Path(folder) / "openapi.json"
        schema.write_text(json.dumps(described))
        command = [
            pathlib.Path(sys.executable).with_name("schemathesis"), "--config-file", config, "run",
            schema, "--url", url, "--checks", "all", "--phases", "examples,coverage,fuzzing,stateful",
            "--mode", "all", "--max-examples", str(arguments.max_examples), "--seed", str(arguments.seed),
            "--generation-database", "none", "--request-timeout", "20", "--workers", "2",
            "--continue-on-failure", "--no-color",
        ]
        if arguments.include:
            command += ["--include-path-regex", arguments.include]
        token = contract_hooks.new_token()
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "contract_hooks", "PYTHONPATH": str(HERE), "CONTRACT_TOKEN": token,
            "CONTRACT_JOB": completed_job(token, pathlib.Path(folder)),
        }
        running = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        told = []
        for line in running.stdout:
            print(line, end="", flush=True)
            told.append(line)
        status = running.wait()

    text = "".join(told)
    tested = re.search(r"Tested: (\d+)", text)
    cases = re.search(r"(\d[\d,]*) generated", text)
    print(f"contract: {operations} operations, {tested[1] if tested else 0} tested, "
          f"{cases[1] if cases else 0} requests thought up")
    if not arguments.include and (tested is None or int(tested[1]) != operations):
        print("contract: operations were left out", file=sys.stderr)
        return 1
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
