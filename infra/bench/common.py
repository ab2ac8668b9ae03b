"""What the benchmarks share: failures, children that are measured, the stack's client, the machine's state."""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import resource
import secrets
import shlex
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Between two looks at a job. The journey's end is seen at most this much late.
POLL_SECONDS = 0.25
ANSWER_LIMIT_SECONDS = 60


class Failure(Exception):
    """Something that ends a benchmark with one line."""


# ---------------------------------------------------------------------------------------------------------------------
# The machine


def load() -> float:
    """The load average of the last minute: above the number of CPUs, figures are those of a busy machine."""
    return os.getloadavg()[0]


def busy_seconds() -> float:
    """CPU seconds that all cores together have spent on something since the machine started, time taken by the host
    of a virtual machine included."""
    # proc_stat(5): user nice system idle iowait irq softirq steal; guests are in the first two already.
    fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    ticks = [int(field) for field in fields]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def positive(text: str) -> int:
    """A number of the command line that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def environment_lines(text: str) -> dict[str, str]:
    """One KEY=VALUE a line, quoted for a shell where needed."""
    return dict(word.partition("=")[::2] for word in shlex.split(text))


def stack_environment() -> dict[str, str]:
    """How to reach the stack: the environment if it says so, else what `cargo local env` prints."""
    names = ("API_URL", "FFMPEG", "FFPROBE")
    if all(os.environ.get(name) for name in names):
        return {name: os.environ[name] for name in names}
    done = subprocess.run(["cargo", "local", "env"], check=False, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(done.stderr.strip() or "`cargo local env` failed")
    found = environment_lines(done.stdout)
    missing = [name for name in names if name not in found]
    if missing:
        raise Failure(f"`cargo local env` does not name {', '.join(missing)}")
    return {name: found[name] for name in names}


def media_tools(folder: pathlib.Path) -> pathlib.Path:
    """The folder of the pinned prebuilt pair, which makes and compares media.

    The stack's own ffmpeg may be an own build, which is too strict to make media out of nothing.
    """
    script = ROOT / "layers" / "ffmpeg" / "prebuilt.sh"
    if subprocess.run(["bash", str(script), "--out", str(folder)], check=False).returncode != 0:
        raise Failure("there is no ffmpeg that can make media out of nothing")
    return folder / "bin"


# ---------------------------------------------------------------------------------------------------------------------
# Children


@dataclasses.dataclass(frozen=True)
class Used:
    """What a child took."""

    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    # Beginning and end, on the clock that only goes forward.
    began: float
    ended: float


def start_child(command: list[str], folder: pathlib.Path, stdout: int = subprocess.DEVNULL) -> subprocess.Popen:
    """Starts a tool in a folder, with nothing of our environment."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C"}
    with (folder / "errors").open("wb") as stderr:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            # Kernels share the CPUs out by session first. The stack's is not the one of this terminal, in which the
            # bare encoder would have to share with whatever else runs here.
            start_new_session=True,
        )


def wait_child(child: subprocess.Popen, folder: pathlib.Path) -> resource.struct_rusage:
    """Waits for the end of a tool; returns what it used."""
    try:
        # Only wait4 tells what this one child used.
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if child.returncode is None:
            child.kill()
            child.wait()
    if child.returncode != 0:
        said = (folder / "errors").read_text(errors="replace")[-500:]
        raise Failure(f"{pathlib.Path(child.args[0]).name} ended with {child.returncode}: {said}")
    return usage


def run_child(command: list[str], folder: pathlib.Path) -> Used:
    """Runs a tool to its end in a folder."""
    began = time.monotonic()
    usage = wait_child(start_child(command, folder), folder)
    ended = time.monotonic()
    cpu = usage.ru_utime + usage.ru_stime
    # Linux counts memory in KiB (getrusage(2)).
    return Used(ended - began, cpu, usage.ru_maxrss * 1024, began, ended)


# ---------------------------------------------------------------------------------------------------------------------
# The stack's client


class Api:
    """A client of the API."""

    def __init__(self, base: str):
        """Knows where the API is, and no account yet."""
        self.base = base
        self.token = ""
        self.refresh_token = ""
        self.refresh_after = 0.0
        # The stack is on this machine: a proxy of the environment is none of its business.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def send(self, request: urllib.request.Request) -> bytes:
        """Sends a request; everything but success is a failure."""
        where = f"{request.method} {request.full_url.split('?')[0]}"
        try:
            with self.opener.open(request, timeout=ANSWER_LIMIT_SECONDS) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            text = error.read(500).decode(errors="replace")
            raise Failure(f"{where} answered {error.code}: {text}") from error
        except OSError as error:
            raise Failure(f"{where}: {error}; is the stack running?") from error

    def call(self, method: str, path: str, body: dict | None = None) -> dict:
        """Calls the API with JSON in and out."""
        if self.token and time.monotonic() > self.refresh_after:
            # A run may take longer than an access token lives.
            self.token = ""
            self.keep(self.call("POST", "/auth/refresh", {"refresh_token": self.refresh_token}))
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, method=method)
        request.add_header("Accept", "application/json")
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        return json.loads(self.send(request))

    def sign_up(self) -> None:
        """Makes an account that nobody else knows, and signs it in."""
        credentials = {"email": f"bench-{secrets.token_hex(6)}@example.com", "password": secrets.token_hex(16)}
        self.call("POST", "/auth/register", credentials)
        self.keep(self.call("POST", "/auth/login", credentials))

    def keep(self, login: dict) -> None:
        """Keeps the tokens of a session."""
        self.token, self.refresh_token = login["access_token"], login["refresh_token"]
        self.refresh_after = time.monotonic() + login["expires_in_seconds"] * 3 / 4

    def upload(self, upload: dict, path: pathlib.Path) -> None:
        """Sends a file to where a new job wants it."""
        with path.open("rb") as file:
            request = urllib.request.Request(upload["url"], data=file, method=upload["method"])
            for name, value in upload["headers"].items():
                request.add_header(name, value)
            self.send(request)

    def wait(self, job_id: str, limit_seconds: float) -> dict:
        """Looks at a job until it has ended."""
        give_up = time.monotonic() + limit_seconds
        while time.monotonic() < give_up:
            job = self.call("GET", f"/jobs/{job_id}")
            if job["status"] == "COMPLETED":
                return job
            if job["status"] in ("FAILED", "CANCELLED", "EXPIRED"):
                raise Failure(f"the job ended as {job['status']}: {json.dumps(job['error'])}")
            time.sleep(POLL_SECONDS)
        raise Failure(f"the job did not end within {limit_seconds:.0f} s; see `cargo local logs process`")


def epoch(text: str) -> float:
    """A time of the API, as the clock of this machine counts."""
    return datetime.datetime.fromisoformat(text).timestamp()
