"""A stack of the benchmark's own, with other parameters than the one of `cargo local up`, and a look behind its API.

The client of AWS here is small: it signs with Signature Version 4 and knows the few calls that are needed.
"""

import contextlib
import datetime
import hashlib
import hmac
import json
import pathlib
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import xml.etree.ElementTree
from collections.abc import Iterator

from common import ROOT, Api, Failure

STOP_LIMIT_SECONDS = 60
SETTLE_LIMIT_SECONDS = 30
# Tells its environment, then waits until whoever started it is done or gone.
HOLD = "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True); sys.stdin.read()"
S3_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


def sha256(data: bytes) -> str:
    """A digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


class Aws:
    """Signed calls of the AWS API at the stack's endpoint."""

    def __init__(self, environment: dict[str, str]):
        """Takes endpoint and credentials from the stack's environment."""
        self.endpoint = environment["AWS_ENDPOINT_URL"]
        self.region = environment["AWS_REGION"]
        self.key_id = environment["AWS_ACCESS_KEY_ID"]
        self.secret = environment["AWS_SECRET_ACCESS_KEY"]
        self.sender = Api(self.endpoint)

    def call(
        self, service: str, method: str, path: str, query: dict | None = None, body: bytes = b"", **headers: str
    ) -> bytes:
        """Sends one request. Header names have `_` for `-`."""
        now = datetime.datetime.now(datetime.UTC)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        quoted = urllib.parse.quote(path, safe="/~")
        pairs = sorted((query or {}).items())
        line = "&".join(f"{urllib.parse.quote(k, safe='~')}={urllib.parse.quote(str(v), safe='~')}" for k, v in pairs)
        all_headers = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        all_headers |= {
            "host": urllib.parse.urlsplit(self.endpoint).netloc,
            "x-amz-date": stamp,
            "x-amz-content-sha256": sha256(body),
        }
        names = ";".join(sorted(all_headers))
        listed = "".join(f"{name}:{all_headers[name]}\n" for name in sorted(all_headers))
        canonical = "\n".join((method, quoted, line, listed, names, sha256(body)))
        scope = f"{day}/{self.region}/{service}/aws4_request"
        signed = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, sha256(canonical.encode())))
        key = b"AWS4" + self.secret.encode()
        for part in (day, self.region, service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, signed.encode(), "sha256").hex()
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={self.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        url = f"{self.endpoint}{quoted}" + (f"?{line}" if line else "")
        request = urllib.request.Request(url, data=body or None, method=method)
        for name, value in {**all_headers, "authorization": authorization}.items():
            request.add_header(name, value)
        return self.sender.send(request)

    def objects(self, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
        """The objects below a prefix: key and size."""
        query = {"list-type": "2", "prefix": prefix}
        while True:
            page = xml.etree.ElementTree.fromstring(self.call("s3", "GET", f"/{bucket}", query))
            for item in page.iter(f"{S3_NAMESPACE}Contents"):
                yield item.findtext(f"{S3_NAMESPACE}Key", ""), int(item.findtext(f"{S3_NAMESPACE}Size", "0"))
            token = page.findtext(f"{S3_NAMESPACE}NextContinuationToken")
            if not token:
                return
            query["continuation-token"] = token

    def delete(self, bucket: str, key: str) -> None:
        """Removes all of an object: every version that there is."""
        query = {"prefix": key, "versions": ""}
        page = xml.etree.ElementTree.fromstring(self.call("s3", "GET", f"/{bucket}", query))
        for item in page.iter(f"{S3_NAMESPACE}Version"):
            version = item.findtext(f"{S3_NAMESPACE}VersionId", "")
            self.call("s3", "DELETE", f"/{bucket}/{key}", {"versionId": version})

    def tasks(self, table: str, job_id: str) -> dict[str, dict]:
        """The task items of a job's first generation, by their names."""
        body = {
            "TableName": table,
            "KeyConditionExpression": "job_id = :j AND begins_with(#i, :t)",
            "ExpressionAttributeNames": {"#i": "item"},
            "ExpressionAttributeValues": {":j": {"S": job_id}, ":t": {"S": "task#1#"}},
        }
        answer = self.call(
            "dynamodb",
            "POST",
            "/",
            body=json.dumps(body).encode(),
            content_type="application/x-amz-json-1.0",
            x_amz_target="DynamoDB_20120810.Query",
        )
        items = [{name: plain(value) for name, value in item.items()} for item in json.loads(answer)["Items"]]
        return {item["item"].removeprefix("task#1#"): item for item in items}


def plain(value: dict):
    """A value of DynamoDB without its type tags."""
    ((kind, inner),) = value.items()
    if kind == "N":
        return float(inner)
    if kind == "M":
        return {name: plain(item) for name, item in inner.items()}
    if kind == "L":
        return [plain(item) for item in inner]
    return inner


class OwnStack:
    """A stack that ends with this process."""

    def __init__(self, environment: dict[str, str]):
        """Takes what the stack told of itself."""
        self.environment = environment
        self.aws = Aws(environment)
        self.function = environment["PROCESS_FUNCTION"]

    def configure(self, memory_mb: int, workers: int, **variables: int) -> None:
        """Gives the worker another memory size, number at a time and environment, as a deployment would."""
        path = f"/2015-03-31/functions/{self.function}/configuration"
        # Environment variables are replaced as a whole.
        now = json.loads(self.aws.call("lambda", "GET", path))["Environment"]["Variables"]
        wanted = {"Variables": now | {name: str(value) for name, value in variables.items()}}
        body = json.dumps({"MemorySize": memory_mb, "Environment": wanted}).encode()
        self.aws.call("lambda", "PUT", path, body=body)
        # MaximumConcurrency of a queue is two at least; reserved concurrency may be one.
        path = f"/2017-10-31/functions/{self.function}/concurrency"
        self.aws.call("lambda", "PUT", path, body=json.dumps({"ReservedConcurrentExecutions": workers}).encode())
        until = time.monotonic() + SETTLE_LIMIT_SECONDS
        path = f"/2015-03-31/functions/{self.function}/configuration"
        while json.loads(self.aws.call("lambda", "GET", path)).get("LastUpdateStatus") == "InProgress":
            if time.monotonic() > until:
                raise Failure("the worker's new configuration does not settle")
            time.sleep(0.1)

    def api(self) -> Api:
        """A client with an account of its own."""
        api = Api(self.environment["API_URL"])
        api.sign_up()
        return api

    def run(self, path: pathlib.Path, body: dict, limit_seconds: float) -> dict:
        """Runs a job to its end: the job, its outputs, its tasks and what it left in the output bucket."""
        api = self.api()
        request = {"filename": path.name, "size_bytes": path.stat().st_size, "priority": "high"} | body
        created = api.call("POST", "/jobs", request)
        api.upload(created["upload"], path)
        job = api.wait(created["id"], limit_seconds)
        bucket = self.environment["OUTPUT_BUCKET"]
        account = api.call("GET", "/auth/me")["account"]["id"]
        written = {
            kind: dict(self.aws.objects(bucket, f"{kind}/{account}/{job['id']}/")) for kind in ("outputs", "work")
        }
        return {
            "job": job,
            "outputs": api.call("GET", f"/jobs/{job['id']}/outputs")["outputs"],
            "tasks": self.aws.tasks(self.environment["JOBS_TABLE"], job["id"]),
            "written": written,
        }

    def forget(self, run: dict) -> None:
        """Removes what a job wrote: the emulator keeps it in memory."""
        for objects in run["written"].values():
            for key in objects:
                self.aws.delete(self.environment["OUTPUT_BUCKET"], key)


@contextlib.contextmanager
def own_stack(**parameters: int) -> Iterator[OwnStack]:
    """Starts a stack with parameters of template.yaml, and ends it. Its progress goes to standard error."""
    command = ["cargo", "local", "with"]
    for name, value in parameters.items():
        command += ["--set", f"{name}={value}"]
    child = subprocess.Popen(
        [*command, "--", sys.executable, "-c", HOLD],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A Ctrl-C is for us; the stack ends when its standard input does.
        start_new_session=True,
    )
    try:
        told = child.stdout.readline()
        if not told:
            raise Failure("the stack did not start")
        yield OwnStack(json.loads(told))
    finally:
        child.stdin.close()
        try:
            child.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()
