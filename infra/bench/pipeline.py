"""Compares a job through the whole stack with bare ffmpeg doing the same work.

    pipeline.py [--rounds 3] [--seconds 60] [--file F] [--json FILE]

Needs a running stack (`cargo local up`). See README.md for how to read the figures.
"""

import argparse
import contextlib
import dataclasses
import datetime
import fractions
import json
import math
import os
import pathlib
import resource
import secrets
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Between two looks at a job. The journey's end is seen at most this much late.
POLL_SECONDS = 0.25
# Without any end, a job is given up after this long, or after this many times its clip's duration.
JOB_LIMIT_SECONDS = 900
JOB_LIMIT_RATIO = 20
ANSWER_LIMIT_SECONDS = 60

# From here to `encoder_args`: what functions/process/src/cage/tool.rs, src/stages/encode.rs, and domain/geometry.rs and
# domain/timeline.rs of functions/core say, for a job with no options. The comparison of what both sides made,
# after each round, tells whether this still does the same work.
DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,ogg,mxf"
MAX_STREAMS = 32
MAX_PIXELS = 8192 * 8192
MAX_SHORT_SIDE_PX = 1080
MAX_LONG_SIDE_PX = 8192
THUMBNAIL_SIDES_PX = (360, 640)
THUMBNAILS = 3
RENDITION = "mp4.mp4"
GROUP_SECONDS = 4
# x264 with a bounded bit rate and several threads decides a little by who is first, so no two renditions are the same
# byte for byte. Their sizes are this near to one another; a changed setting moves them further.
SIZE_TOLERANCE = 0.02
# Short side of the picture up to which a peak bit rate holds.
PEAK_BITRATES_BPS = ((360, 800_000), (480, 1_400_000), (720, 2_800_000), (1080, 5_000_000))


class Failure(Exception):
    """Something that ends the benchmark with one line."""


@dataclasses.dataclass
class Source:
    """A clip, with what the encoder's arguments depend on."""

    path: pathlib.Path
    video_index: int
    audio_index: int | None
    audio_rate_hz: int
    width_px: int
    height_px: int
    rate: fractions.Fraction
    video_start_us: int
    lead_frames: int
    frames: int

    @property
    def seconds(self) -> float:
        """How long its outputs play."""
        return float(self.frames / self.rate)


# ---------------------------------------------------------------------------------------------------------------------
# The bare encoder


def rounded(value: float | fractions.Fraction) -> int:
    """The nearest whole number; halves go up, as they do in the worker (Python's own `round` goes to the even one)."""
    return math.floor(value + fractions.Fraction(1, 2))


def micros(text: str | None) -> int | None:
    """Seconds as ffprobe writes them, as microseconds."""
    try:
        return rounded(fractions.Fraction(text or "") * 1_000_000)
    except ValueError:
        return None


def within(width: int, height: int, short: int, long: int) -> tuple[int, int]:
    """A picture's size within bounds for its two sides, never enlarged, both sides even."""
    ratio = min(short / min(width, height), long / max(width, height), 1.0)
    return max(rounded(width * ratio / 2), 1) * 2, max(rounded(height * ratio / 2), 1) * 2


def probe(ffprobe: str, path: pathlib.Path) -> Source:
    """Looks at a file as the worker does: its tracks, then where the packets of its video end."""

    def ask(*args: str) -> str:
        command = [ffprobe, "-v", "error", *args, f"file:{path}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"ffprobe cannot read {path}: {done.stderr.strip()[-300:]}")
        return done.stdout

    streams = json.loads(ask("-show_streams", "-of", "json"))["streams"]

    def best(kind: str) -> dict | None:
        tracks = [s for s in streams if s.get("codec_type") == kind and not s["disposition"].get("attached_pic")]
        return next((s for s in tracks if s["disposition"].get("default")), tracks[0] if tracks else None)

    video, audio = best("video"), best("audio")
    if video is None:
        raise Failure(f"{path} has no video track")

    nominal, average = (
        fractions.Fraction(0 if text.endswith("/0") else text)
        for text in (video["r_frame_rate"], video["avg_frame_rate"])
    )
    if not 1 <= nominal <= 120 or abs(average / nominal - 1) >= fractions.Fraction(1, 100):
        raise Failure(f"{path} has a variable frame rate; take a file with a constant one")

    width, height = video["width"], video["height"]
    aspect = video.get("sample_aspect_ratio", "1:1").split(":")
    if "0" not in aspect:
        width = rounded(fractions.Fraction(width) * int(aspect[0]) / int(aspect[1]))
    turns = [data["rotation"] for data in video.get("side_data_list", []) if "rotation" in data]
    if turns and rounded(float(turns[0]) / 90) % 2:
        width, height = height, width

    start = micros(video.get("start_time")) or 0
    ends = [start]
    entries = "packet=pts_time,dts_time,duration_time"
    index = video["index"]
    for line in ask("-select_streams", str(index), "-show_entries", entries, "-of", "csv=p=0").splitlines():
        pts, dts, duration = (micros(field) for field in (line.split(",") + ["", ""])[:3])
        shown = pts if pts is not None else dts
        if shown is not None:
            ends.append(shown + (duration or rounded(1_000_000 / nominal)))

    # The grid begins on a whole number of frames before the video, and not after the sound.
    audio_start = micros(audio.get("start_time")) if audio else None
    lead = max(start - (start if audio_start is None else audio_start), 0)
    lead_frames = math.ceil(fractions.Fraction(lead, 1_000_000) * nominal)
    frames = lead_frames + rounded(fractions.Fraction(max(ends) - start, 1_000_000) * nominal)
    return Source(
        path=path,
        video_index=index,
        audio_index=audio["index"] if audio else None,
        audio_rate_hz=44_100 if audio and audio["sample_rate"] == "44100" else 48_000,
        width_px=width,
        height_px=height,
        rate=nominal,
        video_start_us=start,
        lead_frames=lead_frames,
        frames=max(frames, 1),
    )


def input_args(path: pathlib.Path | str) -> list[str]:
    """What opens a file as the worker does: under its allow-lists and bounds."""
    args = ["-protocol_whitelist", "file,pipe", "-format_whitelist", DEMUXERS]
    return [*args, "-max_streams", str(MAX_STREAMS), "-max_pixels", str(MAX_PIXELS), "-i", f"file:{path}"]


def filter_graph(source: Source) -> str:
    """The worker's filter graph for one rendition."""
    num, den = source.rate.numerator, source.rate.denominator
    origin = f"({source.video_start_us}/1000000-{source.lead_frames}*{den}/{num})"
    width, height = within(source.width_px, source.height_px, MAX_SHORT_SIDE_PX, MAX_LONG_SIDE_PX)
    chains = [
        f"[0:{source.video_index}]setpts=PTS-{origin}/TB,fps={num}/{den}:start_time=0,tpad=stop_mode=clone:stop=-1,"
        f"trim=start_pts=0:end_pts={source.frames},split=1[s0]",
        f"[s0]scale={width}:{height}:flags=bicubic,setsar=1,format=yuv420p[v0]",
    ]
    if source.audio_index is not None:
        chains.append(
            f"[0:{source.audio_index}]asetpts=PTS-{origin}/TB,aresample={source.audio_rate_hz}:async=1:first_pts=0,"
            "aformat=channel_layouts=mono|stereo,asplit=1[a0]"
        )
    return ";".join(chains)


def encoder_args(source: Source) -> list[str]:
    """All that the worker gives to ffmpeg for the rendition, with the clip's own path as the source."""
    short_side = min(within(source.width_px, source.height_px, MAX_SHORT_SIDE_PX, MAX_LONG_SIDE_PX))
    # No rendition without a quality is larger than the last of them.
    peak = next(bps for limit, bps in PEAK_BITRATES_BPS if short_side <= limit)
    group = str(max(rounded(source.rate * GROUP_SECONDS), 1))
    args = "-nostdin -hide_banner -v error -y -progress pipe:1 -stats_period 0.5 -copyts".split()
    args += input_args(source.path)
    args += ["-filter_complex", filter_graph(source), "-map", "[v0]"]
    if source.audio_index is not None:
        args += "-map [a0] -c:a aac -b:a 128000".split()
    args += "-c:v libx264 -profile:v high -preset veryfast -crf 23".split()
    args += ["-maxrate", str(peak), "-bufsize", str(2 * peak), "-g", group, "-keyint_min", group, "-sc_threshold", "0"]
    return [*args, *f"-map_metadata -1 -map_chapters -1 -bitexact -movflags +faststart -f mp4 file:{RENDITION}".split()]


def thumbnail_args(source: Source) -> list[list[str]]:
    """What the worker gives to ffmpeg for each still: one seek into the rendition."""
    width, height = within(source.width_px, source.height_px, *THUMBNAIL_SIDES_PX)
    count = min(THUMBNAILS, source.frames)
    commands = []
    for n in range(count):
        frame = (2 * n + 1) * source.frames // (2 * count)
        args = "-nostdin -hide_banner -v error -y -ss".split()
        args += [f"{max((frame - 0.5) / float(source.rate), 0):.6f}", *input_args(RENDITION)]
        args += "-map 0:v:0 -frames:v 1 -map_metadata -1 -vf".split()
        args.append(f"scale={width}:{height}:flags=bicubic:out_range=full,format=yuvj420p")
        args += f"-c:v mjpeg -q:v 4 -f image2 -update 1 file:thumbnail-{n + 1}.jpg".split()
        commands.append(args)
    return commands


def run_child(command: list[str], folder: str) -> resource.struct_rusage:
    """Runs one ffmpeg to its end in a folder; returns what it used."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": folder, "LANG": "C"}
    errors = pathlib.Path(folder, "errors")
    with errors.open("wb") as stderr:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            # Kernels share the CPUs out by session first. The stack's is not the one of this terminal, in which the
            # bare encoder would have to share with whatever else runs here.
            start_new_session=True,
        )
        try:
            # Only wait4 tells what this one child used.
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if child.returncode is None:
                child.kill()
                child.wait()
    if child.returncode != 0:
        raise Failure(f"ffmpeg ended with {child.returncode}: {errors.read_text(errors='replace')[-500:]}")
    return usage


def run_bare(ffmpeg: str, source: Source) -> dict:
    """One run of the encoder alone: no stack, no limits, no transfer."""
    with tempfile.TemporaryDirectory(prefix="reelay-bench-") as folder:
        began = time.monotonic()
        used = [run_child([ffmpeg, *args], folder) for args in [encoder_args(source), *thumbnail_args(source)]]
        wall = time.monotonic() - began
        width, height = within(source.width_px, source.height_px, MAX_SHORT_SIDE_PX, MAX_LONG_SIDE_PX)
        return {
            "wall_seconds": wall,
            "cpu_seconds": sum(usage.ru_utime + usage.ru_stime for usage in used),
            "peak_memory_mb": max(usage.ru_maxrss for usage in used) * 1024 / 1e6,
            "picture": [width, height, source.frames],
            "rendition_bytes": pathlib.Path(folder, RENDITION).stat().st_size,
            "thumbnails": len(list(pathlib.Path(folder).glob("thumbnail-*.jpg"))),
        }


# ---------------------------------------------------------------------------------------------------------------------
# The stack


class Api:
    """A client of the API."""

    def __init__(self, base: str):
        """Knows where the API is, and no account yet."""
        self.base = base
        self.token = ""
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
        self.token = self.call("POST", "/auth/login", credentials)["access_token"]

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


def stack_environment() -> dict[str, str]:
    """How to reach the stack: the environment if it says so, else what `cargo local env` prints."""
    names = ("API_URL", "FFMPEG", "FFPROBE")
    if all(os.environ.get(name) for name in names):
        return {name: os.environ[name] for name in names}
    done = subprocess.run(["cargo", "local", "env"], check=False, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(done.stderr.strip() or "`cargo local env` failed")
    # One KEY=VALUE a line, quoted for a shell where needed.
    found = dict(word.partition("=")[::2] for word in shlex.split(done.stdout))
    missing = [name for name in names if name not in found]
    if missing:
        raise Failure(f"`cargo local env` does not name {', '.join(missing)}")
    return {name: found[name] for name in names}


def make_clip(folder: pathlib.Path, seconds: int) -> pathlib.Path:
    """A clip with movement, fine detail and sound.

    The stack's own ffmpeg may be too strict to make media out of nothing, so the pinned prebuilt pair does it.
    """
    print(f"making a clip of {seconds} s", file=sys.stderr)
    script = ROOT / "layers" / "ffmpeg" / "prebuilt.sh"
    if subprocess.run(["bash", str(script), "--out", str(folder)], check=False).returncode != 0:
        raise Failure("no ffmpeg that can make a clip: name a video with --file")
    clip = folder / "bench.mp4"
    command = [str(folder / "bin" / "ffmpeg"), *"-nostdin -v error -y".split()]
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
        source = probe(environment["FFPROBE"], path)
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
