"""Measures what it costs to encode one video in chunks, and models what that would take on AWS.

    chunks.py [--quick] [--only PART...] [--from FILE] [--json FILE] [--slowdown 2.2]

Starts a stack of its own with the default chunk length. Prints Markdown; progress goes to standard error. See
README.md.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

import measure
import report
from common import ROOT, Failure, environment_lines, load, media_tools
from model import INPUTS
from own_stack import own_stack

STACK_PARTS = ("overhead", "workers", "joining")
PARTS = (*STACK_PARTS, "lengths", "large", "probing")
# In this order: what later ones use comes first.
ORDER = ("overhead", "lengths", "workers", "joining", "large", "probing")


def build_folder() -> pathlib.Path:
    """Where cargo builds: clips are kept below it."""
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(done.stderr.strip() or "`cargo metadata` failed")
    return pathlib.Path(json.loads(done.stdout)["target_directory"])


def stack_tools() -> dict[str, str]:
    """The ffmpeg and the ffprobe that the functions run."""
    done = subprocess.run(["cargo", "local", "tools"], check=False, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure("`cargo local tools` failed")
    return environment_lines(done.stdout)


def processor() -> str:
    """What this machine's processor calls itself."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def measured(options: argparse.Namespace, parts: list[str]) -> dict:
    """Runs the measurements that were asked for."""
    size = measure.QUICK if options.quick else measure.FULL
    tools = stack_tools()
    cache = build_folder() / "bench"
    cache.mkdir(parents=True, exist_ok=True)
    media = media_tools(cache / "tools") / "ffmpeg"
    bench = measure.Bench(size, cache, tools["FFMPEG"], tools["FFPROBE"], media)
    found: dict = {}
    with contextlib.ExitStack() as opened:
        opened.callback(measure.clear, bench)
        # Clips first: while a stack runs, nothing else should.
        bench.say("clips")
        bench.clip()
        if set(parts) & set(STACK_PARTS):
            bench.say("a stack")
            most = max(*size.workers, bench.at_a_time, 2)
            parameters = {"ChunkSeconds": measure.CHUNK_SECONDS, "SingleInvocationSeconds": measure.SINGLE_SECONDS}
            bench.stack = opened.enter_context(own_stack(**parameters, HighPriorityConcurrency=most))
        for part in ORDER:
            if part in parts and (part != "large" or size.large):
                began = time.monotonic()
                bench.say(f"== {part}")
                found[part] = getattr(measure, part)(bench)
                found[part]["took_seconds"] = time.monotonic() - began
    return found


def printed(found: dict, slowdown: float) -> dict:
    """Prints what there is; returns the model's figures."""
    for part in ("overhead", "workers", "lengths"):
        if part in found:
            print(getattr(report, part)(found[part]), end="\n\n", flush=True)
    if "joining" in found:
        print(report.joining(found["joining"], slowdown), end="\n\n", flush=True)
    if "lengths" not in found:
        return {}
    probe = found.get("probing", {}).get("cpu_seconds", 0.0)
    jobs = report.works(found["lengths"], found.get("large"), probe)
    text, figures = report.modelled(jobs, slowdown)
    print(text)
    return {"jobs": [job.__dict__ for job in jobs], "figures": figures}


def main() -> int:
    """Measures, models and prints."""
    parser = argparse.ArgumentParser(description="Measures what chunks cost, and models what they would take on AWS.")
    parser.add_argument("--quick", action="store_true", help="one pair at 720p and fewer lengths: to see that it works")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "model"], help="measure these parts only")
    parser.add_argument("--from", dest="earlier", type=pathlib.Path, help="take other parts from the --json of a run")
    parser.add_argument("--json", type=pathlib.Path, help="also write all figures to this file")
    parser.add_argument(
        "--slowdown",
        type=float,
        default=INPUTS["slowdown"].value,
        help="how much slower one of Lambda's virtual CPUs is than a core here (default %(default)s)",
    )
    options = parser.parse_args()
    if options.json and not options.json.absolute().parent.is_dir():
        raise Failure(f"there is no folder for {options.json}")
    if not 0.1 <= options.slowdown <= 20:
        raise Failure("--slowdown must be between 0.1 and 20")
    found = {}
    if options.earlier:
        earlier = json.loads(options.earlier.read_text())
        found = {part: earlier[part] for part in PARTS if part in earlier}

    began, load_before = time.monotonic(), load()
    parts = [part for part in options.only or PARTS if part != "model"]
    if parts:
        found |= measured(options, parts)
    machine = f"{os.cpu_count()} CPUs ({processor()}), load {load_before:.2f} before and {load():.2f} after"
    print(f"# Chunks\n\n{machine}; {time.monotonic() - began:.0f} s.\n", flush=True)
    modelled = printed(found, options.slowdown)
    if options.json:
        whole = {"machine": machine, "cpus": os.cpu_count(), "quick": options.quick, **found, "model": modelled}
        options.json.write_text(json.dumps(whole, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    # Ends the stack and removes what is temporary, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(BrokenPipeError):
            sys.exit(main())
    except Failure as failure:
        sys.exit(f"chunks.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
