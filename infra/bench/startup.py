"""Measures how long each function takes from the start of its process until it asks for work.

    startup.py [--rounds 30] [--json FILE] [BOOTSTRAP...]

Without BOOTSTRAP: what `sam build` wrote, or else the dev binaries in cargo's target folder. See README.md.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# What the Runtime API's clients ask for first, when they are ready.
NEXT = "/2018-06-01/runtime/invocation/next"
START_LIMIT_SECONDS = 30
MAX_REQUEST_BYTES = 64 * 1024

# Every function gets all of it and takes what it knows. Nothing here exists.
FUNCTION_ENVIRONMENT = {
    "RUST_LOG": "info",
    "ACCOUNTS_TABLE": "accounts",
    "JOBS_TABLE": "jobs",
    "SIGNING_KEY_SECRET": "arn:aws:secretsmanager:us-east-1:000000000000:secret:signing-key",
    "SOURCE_BUCKET": "source",
    "OUTPUT_BUCKET": "output",
    "HIGH_QUEUE_URL": "http://127.0.0.1/000000000000/high",
    "LOW_QUEUE_URL": "http://127.0.0.1/000000000000/low",
    "MAIL_SENDER": "sender@example.com",
    "ACCESS_TOKEN_SECONDS": "900",
    "REFRESH_TOKEN_SECONDS": "2592000",
    "HASH_MEMORY_KIB": "19456",
    "HASH_PASSES": "2",
    "UPLOAD_URL_SECONDS": "900",
    "DOWNLOAD_URL_SECONDS": "900",
    "MAX_SOURCE_BYTES": "5368709120",
    "SCRATCH_BYTES": "10737418240",
}
# What Lambda itself sets.
LAMBDA_ENVIRONMENT = {
    "_HANDLER": "bootstrap",
    "AWS_LAMBDA_FUNCTION_NAME": "bench",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "3008",
    "AWS_LAMBDA_LOG_GROUP_NAME": "bench",
    "AWS_LAMBDA_LOG_STREAM_NAME": "bench",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "LANG": "C.UTF-8",
    "TZ": ":UTC",
}


class Failure(Exception):
    """Something that ends the benchmark with one line."""


def request_line(client: socket.socket) -> str:
    """Reads the head of an HTTP request and returns its method and path."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_REQUEST_BYTES:
        piece = client.recv(4096)
        if not piece:
            break
        head += piece
    return " ".join(head.split(b"\r\n", 1)[0].decode(errors="replace").split(" ")[:2])


def environment(folder: pathlib.Path, runtime_api: str, closed_port: int) -> dict[str, str]:
    """All that a function sees. Calls to AWS reach a port where nobody listens, so none can hide in a figure."""
    return {
        **FUNCTION_ENVIRONMENT,
        **LAMBDA_ENVIRONMENT,
        "PATH": f"{folder}/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "LAMBDA_TASK_ROOT": str(folder),
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{closed_port}",
    }


def start_once(bootstrap: pathlib.Path, folder: pathlib.Path, closed_port: int) -> dict[str, float]:
    """Starts a function, waits until it asks for work, and ends it. Tells the time on the clock and on the CPUs."""
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.TemporaryFile() as output:
        server.settimeout(0.5)
        variables = environment(folder, f"127.0.0.1:{server.getsockname()[1]}", closed_port)
        began = time.perf_counter()
        child = subprocess.Popen(
            [str(bootstrap)], cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        asked, ready = "", 0.0
        try:
            while not asked and time.perf_counter() - began < START_LIMIT_SECONDS:
                try:
                    client, _ = server.accept()
                except TimeoutError:
                    # WNOWAIT leaves it to be reaped below, with what it used.
                    if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                        break
                    continue
                with client:
                    client.settimeout(START_LIMIT_SECONDS)
                    asked = request_line(client)
                    ready = time.perf_counter() - began
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, 9)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if asked != f"GET {NEXT}":
            output.seek(0)
            said = output.read()[-600:].decode(errors="replace").strip()
            what = f"asked for {asked!r}" if asked else "did not ask for work"
            raise Failure(f"{bootstrap}: {what}; it wrote: {said or 'nothing'}")
        return {"ready_ms": ready * 1000, "cpu_ms": (usage.ru_utime + usage.ru_stime) * 1000}


def zipped_bytes(bootstrap: pathlib.Path) -> int:
    """How large the function's package is."""
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(bootstrap, "bootstrap")
        return file.tell()


def dev_binaries() -> list[pathlib.Path]:
    """What `cargo build` left, wherever cargo builds."""
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(done.stderr.strip() or "`cargo metadata` failed")
    folder = pathlib.Path(json.loads(done.stdout)["target_directory"]) / "debug"
    crates = sorted(main.parents[1].name for main in ROOT.glob("functions/*/src/main.rs"))
    return [folder / crate for crate in crates if (folder / crate).is_file()]


def find_binaries() -> tuple[str, list[pathlib.Path]]:
    """The functions to measure when none is named, and what they are."""
    built = sorted((ROOT / ".aws-sam" / "build").glob("*Function/bootstrap"))
    if built:
        return "what sam build wrote", built
    binaries = dev_binaries()
    if not binaries:
        raise Failure("nothing is built: run `sam build` or `cargo build`, or name a BOOTSTRAP")
    return "dev binaries, not optimised: only good for comparing with one another", binaries


def label(bootstrap: pathlib.Path) -> str:
    """A function's name: the folder of a bootstrap, else the file."""
    return bootstrap.parent.name if bootstrap.name == "bootstrap" else bootstrap.name


def percentile(values: list[float], share: float) -> float:
    """The smallest value that this share of all values does not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def measure(binaries: list[pathlib.Path], rounds: int) -> list[dict]:
    """Starts every function once a round. One start before the first round is not counted: it fills the page cache."""
    runs: dict[pathlib.Path, list[dict[str, float]]] = {binary: [] for binary in binaries}
    with tempfile.TemporaryDirectory(prefix="reelay-bench-") as name, socket.socket() as closed:
        folder = pathlib.Path(name)
        # At its start the process function only looks whether the two are there.
        (folder / "bin").mkdir()
        for tool in ("ffmpeg", "ffprobe"):
            (folder / "bin" / tool).touch(mode=0o755)
        # Bound and never listening: connections are refused, and nobody else can take the port.
        closed.bind(("127.0.0.1", 0))
        for number in range(rounds + 1):
            for binary in binaries:
                run = start_once(binary, folder, closed.getsockname()[1])
                if number > 0:
                    runs[binary].append(run)

    results = []
    for binary, measured in runs.items():
        ready = [run["ready_ms"] for run in measured]
        results.append(
            {
                "function": label(binary),
                "min_ms": min(ready),
                "median_ms": statistics.median(ready),
                "p90_ms": percentile(ready, 0.9),
                "cpu_median_ms": statistics.median(run["cpu_ms"] for run in measured),
                "size_bytes": binary.stat().st_size,
                "zip_bytes": zipped_bytes(binary),
                "runs": measured,
            }
        )
    return results


def positive(text: str) -> int:
    """A number of the command line that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main() -> int:
    """Measures and prints one line a function."""
    parser = argparse.ArgumentParser(description="Measures how long functions take until they ask for work.")
    parser.add_argument("--rounds", type=positive, default=30, help="starts of each function (default 30)")
    parser.add_argument("--json", type=pathlib.Path, help="also write all figures to this file")
    parser.add_argument("bootstrap", nargs="*", type=pathlib.Path, metavar="BOOTSTRAP", help="a function's binary")
    options = parser.parse_args()
    if options.json and not options.json.absolute().parent.is_dir():
        raise Failure(f"there is no folder for {options.json}")

    what, binaries = "named binaries", [path.resolve() for path in options.bootstrap]
    if not binaries:
        what, binaries = find_binaries()
    for binary in binaries:
        if not os.access(binary, os.X_OK) or not binary.is_file():
            raise Failure(f"{binary} is no program")

    load = os.getloadavg()[0]
    print(f"{what}; rounds: {options.rounds}; {os.cpu_count()} CPUs, load {load:.2f}", flush=True)
    results = measure(binaries, options.rounds)
    print(f"{'function':<18}{'min ms':>9}{'median':>9}{'p90':>9}{'CPU ms':>9}{'MiB':>9}{'zip MiB':>9}")
    for row in results:
        times = "".join(f"{row[key]:>9.1f}" for key in ("min_ms", "median_ms", "p90_ms", "cpu_median_ms"))
        sizes = "".join(f"{row[key] / 2**20:>9.2f}" for key in ("size_bytes", "zip_bytes"))
        print(f"{row['function']:<18}{times}{sizes}")

    if options.json:
        report = {"what": what, "rounds": options.rounds, "cpus": os.cpu_count(), "load": load, "functions": results}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    try:
        with contextlib.suppress(BrokenPipeError):
            sys.exit(main())
    except Failure as failure:
        sys.exit(f"startup.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
