"""Compares a job through the whole stack with bare ffmpeg doing the same work.

    pipeline.py [--rounds 3] [--seconds 60] [--file F] [--json FILE]

Needs a running stack (`cargo local up`). See README.md for how to read the figures.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable

import recipe
from common import Api, Failure, epoch, media_tools, positive, run_child, stack_environment
from recipe import Source

# Without any end, a job is given up after this long, or after this many times its clip's duration.
JOB_LIMIT_SECONDS = 900
JOB_LIMIT_RATIO = 20
THUMBNAILS = 3
RENDITION = "mp4.mp4"
# x264 with a bounded bit rate and several threads decides a little by who is first, and chunks begin with a full buffer
# each, so no two renditions are the same byte for byte. Their sizes are this near to one another; a changed setting
# moves them further.
SIZE_TOLERANCE = 0.05


# ---------------------------------------------------------------------------------------------------------------------
# The two sides


def run_bare(ffmpeg: str, source: Source) -> dict:
    """One run of the encoder alone: no stack, no chunks, no limits, no transfer."""
    with tempfile.TemporaryDirectory(prefix="reelay-bench-") as name:
        folder = pathlib.Path(name)
        began = time.monotonic()
        commands = [recipe.file_args(source, RENDITION, recipe.threads(recipe.DEFAULT_MEMORY_MB))]
        commands += recipe.thumbnail_args(source, RENDITION, THUMBNAILS)
        used = [run_child([ffmpeg, *args], folder) for args in commands]
        wall = time.monotonic() - began
        rung = recipe.default_rung(source)
        return {
            "wall_seconds": wall,
            "cpu_seconds": sum(one.cpu_seconds for one in used),
            "peak_memory_mb": max(one.peak_memory_bytes for one in used) / 1e6,
            "picture": [rung.width_px, rung.height_px, source.frames],
            "rendition_bytes": (folder / RENDITION).stat().st_size,
            "thumbnails": len(list(folder.glob("thumbnail-*.jpg"))),
        }


def run_stack(base: str, source: Source) -> dict:
    """One job, from an account that does not exist yet to its end."""
    api = Api(base)
    began = time.time()
    api.sign_up()
    signed_up = time.time()
    body = {"filename": source.path.name, "size_bytes": source.path.stat().st_size, "priority": "high"}
    created = api.call("POST", "/jobs", body)
    job_made = time.time()
    api.upload(created["upload"], source.path)
    uploaded = time.time()
    job = api.wait(created["id"], max(JOB_LIMIT_SECONDS, JOB_LIMIT_RATIO * source.seconds))
    seen = time.time()

    outputs = api.call("GET", f"/jobs/{job['id']}/outputs")["outputs"]
    rendition = next(output for output in outputs if output["type"] == "rendition")
    stills = [output for output in outputs if output["type"] == "thumbnail"]
    metrics = job["metrics"]
    times = {name: job[name] for name in ("created_at", "queued_at", "started_at", "completed_at")}
    return {
        "cpu_seconds": metrics["cpu_seconds"],
        "processing_seconds": metrics["processing_seconds"],
        "peak_memory_mb": metrics["peak_memory_mb"],
        "journey_seconds": seen - began,
        "sign_up_seconds": signed_up - began,
        "create_seconds": job_made - signed_up,
        "upload_seconds": uploaded - job_made,
        # The intake may be quicker than the answer to the upload.
        "queue_seconds": max(epoch(times["started_at"]) - uploaded, 0.0),
        "notice_seconds": max(seen - epoch(times["completed_at"]), 0.0),
        "attempts": job["attempts"],
        "picture": [rendition["width_px"], rendition["height_px"], rendition["frames"]],
        "rendition_bytes": rendition["size_bytes"],
        "thumbnails": len(stills),
        **times,
    }


# ---------------------------------------------------------------------------------------------------------------------
# Rounds and figures


def make_clip(folder: pathlib.Path, seconds: int) -> pathlib.Path:
    """A clip with movement, fine detail and sound."""
    print(f"making a clip of {seconds} s", file=sys.stderr)
    clip = folder / "bench.mp4"
    command = [str(media_tools(folder) / "ffmpeg"), *"-nostdin -v error -y".split()]
    for made in (
        f"testsrc2=size=640x720:rate=25:duration={seconds}",
        "mandelbrot=size=640x720:rate=25",
        f"sine=frequency=330:beep_factor=4:sample_rate=48000:duration={seconds}",
    ):
        command += ["-f", "lavfi", "-i", made]
    command += ["-filter_complex", "[0][1]hstack=shortest=1[v]", "-map", "[v]", "-map", "2:a"]
    # Fast rather than small: this is a source.
    command += "-c:v libx264 -preset ultrafast -crf 20 -pix_fmt yuv420p -c:a aac -b:a 128k".split()
    if subprocess.run([*command, str(clip)], check=False).returncode != 0:
        raise Failure("the clip could not be made")
    return clip


def is_same_work(bare: dict, stack: dict) -> bool:
    """Whether both made the same: picture, length and number of stills, and size but for chance."""
    exact = all(bare[key] == stack[key] for key in ("picture", "thumbnails"))
    return exact and abs(stack["rendition_bytes"] / bare["rendition_bytes"] - 1) <= SIZE_TOLERANCE


def compare(bare: dict, stack: dict, seconds: float) -> dict:
    """The figures that put one run beside the other."""
    return {
        "cpu_ratio": stack["cpu_seconds"] / bare["cpu_seconds"],
        "wall_ratio": stack["processing_seconds"] / bare["wall_seconds"],
        "overhead_seconds": stack["journey_seconds"] - bare["wall_seconds"],
        "bare_speed": seconds / bare["wall_seconds"],
        "processing_speed": seconds / stack["processing_seconds"],
        "journey_speed": seconds / stack["journey_seconds"],
        "same_work": is_same_work(bare, stack),
    }


ROWS = (
    ("CPU, bare ffmpeg", "s", lambda r: r["bare"]["cpu_seconds"]),
    ("CPU, job", "s", lambda r: r["stack"]["cpu_seconds"]),
    ("CPU ratio, job / bare", "x", lambda r: r["ratios"]["cpu_ratio"]),
    ("wall, bare ffmpeg", "s", lambda r: r["bare"]["wall_seconds"]),
    ("wall, processing", "s", lambda r: r["stack"]["processing_seconds"]),
    ("wall ratio, processing / bare", "x", lambda r: r["ratios"]["wall_ratio"]),
    ("whole journey", "s", lambda r: r["stack"]["journey_seconds"]),
    ("  sign up and in", "s", lambda r: r["stack"]["sign_up_seconds"]),
    ("  create the job", "s", lambda r: r["stack"]["create_seconds"]),
    ("  upload", "s", lambda r: r["stack"]["upload_seconds"]),
    ("  uploaded to started", "s", lambda r: r["stack"]["queue_seconds"]),
    ("  completed to seen", "s", lambda r: r["stack"]["notice_seconds"]),
    ("journey overhead over bare", "s", lambda r: r["ratios"]["overhead_seconds"]),
    ("speed, bare ffmpeg", "x real time", lambda r: r["ratios"]["bare_speed"]),
    ("speed, processing", "x real time", lambda r: r["ratios"]["processing_speed"]),
    ("speed, whole journey", "x real time", lambda r: r["ratios"]["journey_speed"]),
    ("peak memory, bare ffmpeg", "MB", lambda r: r["bare"]["peak_memory_mb"]),
    ("peak memory, job", "MB", lambda r: r["stack"]["peak_memory_mb"]),
    ("load before the pair", "", lambda r: r["load"]),
)


def table(title: str, rows: Iterable[tuple[str, str, float]]) -> None:
    """Prints figures, one a line."""
    print(f"\n{title}")
    for name, unit, value in rows:
        print(f"  {name:<32}{value:>10.3f} {unit}".rstrip(), flush=True)


def run_round(number: int, environment: dict[str, str], source: Source) -> dict:
    """One pair. Which of the two goes first alternates, so that a machine that slows down harms both alike."""
    result: dict = {"load": os.getloadavg()[0], "first": "bare" if number % 2 else "stack"}
    for side in ("bare", "stack") if number % 2 else ("stack", "bare"):
        if side == "bare":
            result["bare"] = run_bare(environment["FFMPEG"], source)
        else:
            result["stack"] = run_stack(environment["API_URL"], source)
    result["ratios"] = compare(result["bare"], result["stack"], source.seconds)
    return result


def positive(text: str) -> int:
    """A number of the command line that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main() -> int:
    """Runs the rounds and prints the figures."""
    parser = argparse.ArgumentParser(description="Compares a job through the whole stack with bare ffmpeg.")
    parser.add_argument("--rounds", type=positive, default=3, help="pairs to run (default 3)")
    parser.add_argument("--seconds", type=positive, default=60, help="duration of the clip that is made (default 60)")
    parser.add_argument("--file", type=pathlib.Path, help="a video to take instead of a clip")
    parser.add_argument("--json", type=pathlib.Path, help="also write all figures to this file")
    options = parser.parse_args()
    if options.json and not options.json.absolute().parent.is_dir():
        raise Failure(f"there is no folder for {options.json}")

    environment = stack_environment()
    with tempfile.TemporaryDirectory(prefix="reelay-bench-") as folder:
        path = options.file.resolve() if options.file else make_clip(pathlib.Path(folder), options.seconds)
        source = recipe.probe(environment["FFPROBE"], path)
        megabytes = path.stat().st_size / 1e6
        picture = f"{source.width_px}x{source.height_px} at {float(source.rate):g} fps"
        print(f"{path.name}: {picture}, {source.seconds:.1f} s, {megabytes:.1f} MB; {os.cpu_count()} CPUs", flush=True)
        rounds = []
        for number in range(1, options.rounds + 1):
            result = run_round(number, environment, source)
            rounds.append(result)
            title = f"round {number} of {options.rounds} ({result['first']} first)"
            table(title, ((name, unit, value(result)) for name, unit, value in ROWS))
            if not result["ratios"]["same_work"]:
                print("  NOTE: what they made differs, so the two sides did not do the same work")

    medians = [(name, unit, statistics.median(value(result) for result in rounds)) for name, unit, value in ROWS]
    table(f"medians of {len(rounds)}", medians)
    if all(result["ratios"]["same_work"] for result in rounds):
        print("  both sides made the same in every round")

    if options.json:
        clip = {"name": path.name, "seconds": source.seconds, "megabytes": megabytes, "picture": picture}
        report = {
            "clip": clip,
            "cpus": os.cpu_count(),
            "rounds": rounds,
            "medians": {name.strip(): value for name, _, value in medians},
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    try:
        with contextlib.suppress(BrokenPipeError):
            sys.exit(main())
    except Failure as failure:
        sys.exit(f"pipeline.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
