"""Measures what a login costs, how much memory it takes, and whether its time tells who has an account.

    accounts.py [--rounds 200] [--logins 10] [--json FILE] [BOOTSTRAP]

Starts a stack of its own for the tables, and the auth function with a Runtime API of this program in front of it, so that
nothing but the function is in the figures. See README.md.
"""

import argparse
import contextlib
import http.server
import json
import math
import os
import pathlib
import queue
import secrets
import statistics
import subprocess
import sys
import threading
import time

from common import ROOT, Failure, load, positive
from own_stack import own_stack
from startup import LAMBDA_ENVIRONMENT, find_binaries, label

ANSWER_LIMIT_SECONDS = 30
EVENT = ROOT / "tests" / "events" / "auth-http.json"
PASSWORD, WRONG = "correct horse battery staple", "wrong horse battery staple"
# Less work than any stack may be configured for: what an account from before a raise has.
WEAK = {"HASH_MEMORY_KIB": "8192", "HASH_PASSES": "1"}
KINDS = ("known", "outdated", "unknown")


class Runtime(http.server.ThreadingHTTPServer):
    """A Runtime API for one process: hands out events and takes answers."""

    daemon_threads = True

    def __init__(self):
        """Listens on a free port of loopback."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.events: queue.Queue = queue.Queue()
        self.answers: queue.Queue = queue.Queue()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """A process that is ended closes its connections in the middle."""


class Handler(http.server.BaseHTTPRequestHandler):
    """The two calls of the Runtime API that matter; an error of the function is an answer as well."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """The next event, when there is one."""
        body = json.dumps(self.server.events.get()).encode()
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", secrets.token_hex(8))
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + ANSWER_LIMIT_SECONDS) * 1000)))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:000000000000:function:bench")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        """The answer."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.answers.put(body)

    def log_message(self, *_):
        """Nothing: the figures are what is printed."""


class Function:
    """A process of the auth function."""

    def __init__(self, binary: pathlib.Path, environment: dict[str, str]):
        """Starts it."""
        self.runtime = Runtime()
        variables = {
            **LAMBDA_ENVIRONMENT,
            **environment,
            "PATH": "/usr/bin:/bin",
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.runtime.server_address[1]}",
        }
        self.child = subprocess.Popen([str(binary)], env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.event = json.loads(EVENT.read_text())

    def call(self, path: str, body: dict, expected: int) -> dict[str, float]:
        """Sends a request; tells its time on the clock and on the CPU."""
        event = self.event | {"rawPath": f"/api/v1/auth/{path}", "body": json.dumps(body)}
        event["requestContext"] = event["requestContext"] | {"http": event["requestContext"]["http"] | {
            "path": event["rawPath"]
        }}
        cpu, began = self.cpu_seconds(), time.perf_counter()
        self.runtime.events.put(event)
        try:
            answer = json.loads(self.runtime.answers.get(timeout=ANSWER_LIMIT_SECONDS))
        except queue.Empty:
            raise Failure(f"{path}: no answer within {ANSWER_LIMIT_SECONDS} s") from None
        wall = time.perf_counter() - began
        if answer.get("statusCode") != expected:
            raise Failure(f"{path}: {answer} instead of {expected}")
        return {"wall_ms": wall * 1000, "cpu_ms": (self.cpu_seconds() - cpu) * 1000}

    def cpu_seconds(self) -> float:
        """CPU time of all threads so far, to the nanosecond (the first number of schedstat)."""
        tasks = pathlib.Path(f"/proc/{self.child.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def end(self) -> int:
        """Ends it; tells the most memory that it had, in bytes."""
        self.child.kill()
        _, status, usage = os.wait4(self.child.pid, 0)
        self.child.returncode = os.waitstatus_to_exitcode(status)
        self.runtime.shutdown()
        self.runtime.server_close()
        return usage.ru_maxrss * 1024


def mann_whitney(first: list[float], second: list[float]) -> float:
    """The two-sided p-value that both come from one distribution, by the normal approximation. Ties hardly happen."""
    ranked = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    ranks = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which == 0)
    n, m = len(first), len(second)
    u = ranks - n * (n + 1) / 2
    z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(z) / math.sqrt(2))


def measure(binary: pathlib.Path, environment: dict[str, str], rounds: int, logins: int) -> dict:
    """All figures of one binary."""
    address = {kind: f"bench-{secrets.token_hex(8)}@example.com" for kind in KINDS}
    weak = Function(binary, environment | WEAK)
    try:
        weak.call("register", {"email": address["outdated"], "password": PASSWORD}, 201)
    finally:
        weak.end()

    function = Function(binary, environment)
    try:
        function.call("register", {"email": address["known"], "password": PASSWORD}, 201)
        runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        # In turns, so that the machine's moods meet all of them alike. The first round warms up.
        for number in range(rounds + 1):
            for kind in KINDS:
                run = function.call("login", {"email": address[kind], "password": WRONG}, 401)
                if number > 0:
                    runs[kind].append(run)
    finally:
        function.end()

    # Memory of a fresh process, with logins and nothing else.
    function = Function(binary, environment)
    try:
        right = {"email": address["known"], "password": PASSWORD}
        function.call("login", right, 200)
        costs = [function.call("login", right, 200) for _ in range(logins)]
    finally:
        peak_bytes = function.end()
    return {"failed": runs, "logins": costs, "peak_memory_bytes": peak_bytes}


def median(runs: list[dict[str, float]], clock: str) -> float:
    """The middle of a figure."""
    return statistics.median(run[clock] for run in runs)


def show(result: dict) -> None:
    """Prints the figures."""
    logins = result["logins"]
    print(f"a login: {median(logins, 'cpu_ms'):.1f} ms of CPU, {median(logins, 'wall_ms'):.1f} ms (median of {len(logins)})")
    print(f"peak memory of the process: {result['peak_memory_bytes'] / 2**20:.1f} MiB")
    failed = result["failed"]
    print(f"\n{'failed login':<14}{'CPU ms':>10}{'wall ms':>10}   (medians of {len(failed['known'])})")
    for kind in KINDS:
        print(f"{kind:<14}{median(failed[kind], 'cpu_ms'):>10.2f}{median(failed[kind], 'wall_ms'):>10.2f}")
    print(f"\n{'against known':<14}{'clock':>10}{'gap':>10}{'p':>10}   (Mann-Whitney)")
    for kind in KINDS[1:]:
        for clock in ("cpu_ms", "wall_ms"):
            known = median(failed["known"], clock)
            gap = median(failed[kind], clock) / known - 1
            values = [[run[clock] for run in failed[which]] for which in ("known", kind)]
            print(f"{kind:<14}{clock.removesuffix('_ms'):>10}{gap:>10.1%}{mann_whitney(*values):>10.3f}")


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Measures what a login costs and what its time tells.")
    parser.add_argument("--rounds", type=positive, default=200, help="failed logins of each kind (default 200)")
    parser.add_argument("--logins", type=positive, default=10, help="logins for cost and memory (default 10)")
    parser.add_argument("--json", type=pathlib.Path, help="also write all figures to this file")
    parser.add_argument("bootstrap", nargs="?", type=pathlib.Path, metavar="BOOTSTRAP", help="the function's binary")
    options = parser.parse_args()

    with own_stack() as stack:
        what, binaries = "the named binary", [options.bootstrap and options.bootstrap.resolve()]
        if not options.bootstrap:
            what, binaries = find_binaries()
            binaries = [path for path in binaries if label(path) in ("auth", "AuthFunction")]
        if not binaries or not os.access(binaries[0], os.X_OK):
            raise Failure("there is no binary of the auth function")
        path = f"/2015-03-31/functions/{stack.environment['AUTH_FUNCTION']}/configuration"
        variables = json.loads(stack.aws.call("lambda", "GET", path))["Environment"]["Variables"]
        names = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        variables |= {name: stack.environment[name] for name in names} | {"RUST_LOG": "error"}
        memory, passes = variables["HASH_MEMORY_KIB"], variables["HASH_PASSES"]
        print(f"{what}; m={memory} t={passes}; {os.cpu_count()} CPUs, load {load():.2f}", flush=True)
        result = measure(binaries[0], variables, options.rounds, options.logins)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    try:
        with contextlib.suppress(BrokenPipeError):
            sys.exit(main())
    except Failure as failure:
        sys.exit(f"accounts.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
