"""The measurements of chunks.py: each returns plain figures, with the machine's load beside them."""

import concurrent.futures
import dataclasses
import datetime
import hashlib
import math
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import media
import recipe
from common import Used, busy_seconds, load, run_child
from own_stack import OwnStack
from pinning import Pinning
from recipe import Chunk, Rung, Source

# The stack's defaults, which the local stack of samconfig.toml has smaller values for.
MEMORY_MB = recipe.DEFAULT_MEMORY_MB
CHUNK_SECONDS = 24
SINGLE_SECONDS = 36
LADDER_BODY = {"outputs": [{"format": "hls"}], "thumbnails": {"count": 0}}
ONE_THREAD_MB = 1769
# Renditions of a chunked and of an unchunked encode are this near to one another in size.
SIZE_TOLERANCE = 0.05
JOB_LIMIT_SECONDS = 900
# Noise at the highest bit rate that a job may ask for, in chunks of one group of pictures.
JOIN_BODY = {
    "outputs": [{"format": "mp4"}],
    "thumbnails": {"count": 0},
    "compression": {"crf": 1, "preset": "ultrafast", "max_bitrate_bps": 100_000_000},
}
JOIN_BYTES_PER_SECOND = 100_000_000 / 8
NEVER = 1 << 50
HASHED_BYTES = 256 << 20
# Of the 4K source, one chunk in its middle.
LARGE_LADDER_PX = (360, 480, 720, 1080, 2160)
LARGE_SECONDS = 12
LARGE_CHUNK = (4, 12)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    height_px: int
    clip_seconds: int
    pairs: int
    worker_clip_seconds: int
    worker_chunk_seconds: int
    workers: tuple[int, ...]
    lengths_seconds: tuple[int, ...]
    join_gb: tuple[float, ...]
    large: bool


FULL = Size(1080, 60, 3, 56, 4, (1, 2, 4), (24, 20, 12, 8, 4), (0.25, 1.0), True)
QUICK = Size(720, 48, 1, 32, 8, (1, 2), (24, 8), (0.25,), False)


class Bench:
    """Where things are: tools, clips, and the stack once somebody needs it."""

    def __init__(self, size: Size, cache: pathlib.Path, ffmpeg: str, ffprobe: str, media_ffmpeg: pathlib.Path):
        """Takes the stack's tools, and the ffmpeg that makes and compares media."""
        self.size = size
        self.cache = cache
        self.ffmpeg = ffmpeg
        self.ffprobe = ffprobe
        self.media_ffmpeg = media_ffmpeg
        self.threads = recipe.threads(MEMORY_MB)
        # As many at a time as there are cores for their threads: what they use is then what one alone would use.
        self.at_a_time = max((os.cpu_count() or 1) // self.threads, 1)
        self.stack: OwnStack | None = None
        # Renditions of an unchunked encode, which two measurements need.
        self.whole: dict[int, dict] = {}

    def say(self, text: str) -> None:
        """One line of progress."""
        print(f"{time.strftime('%H:%M:%S')} load {load():.2f}: {text}", file=sys.stderr, flush=True)

    def clip(self) -> Source:
        """The clip of most measurements."""
        path = media.make_clip(self.media_ffmpeg, self.cache, self.size.height_px, self.size.clip_seconds)
        return recipe.probe(self.ffprobe, path)


# ---------------------------------------------------------------------------------------------------------------------
# Direct runs of the worker's lines


def encode(bench: Bench, source: Source, cut: list[Chunk], ladder: list[Rung], crf: int, keep: pathlib.Path) -> dict:
    """Runs the worker's line for each chunk; joins the renditions into `keep`."""

    def one(chunk: Chunk, folder: pathlib.Path) -> Used:
        folder.mkdir()
        return run_child([bench.ffmpeg, *recipe.chunk_args(source, chunk, ladder, bench.threads, crf)], folder)

    with tempfile.TemporaryDirectory(dir=bench.cache) as scratch:
        folders = [pathlib.Path(scratch, str(n)) for n in range(len(cut))]
        before, busy_before = load(), busy_seconds()
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(bench.at_a_time) as pool:
            used = list(pool.map(one, cut, folders))
        wall = time.monotonic() - began
        after, all_busy = load(), busy_seconds() - busy_before
        keep.mkdir(exist_ok=True)
        files = []
        for n in range(len(ladder)):
            files.append(keep / f"v{n}.mp4")
            media.join([folder / f"v{n}.mp4" for folder in folders], files[-1])
        sound = sum((folder / "a0.mp4").stat().st_size for folder in folders) if source.audio_index is not None else 0
    cpu = [one.cpu_seconds for one in used]
    running = sum(one.wall_seconds for one in used)
    return {
        "chunks": len(cut),
        "frames": [chunk.frames for chunk in cut],
        "cpu_seconds": sum(cpu),
        "chunk_cpu_seconds": cpu,
        "wall_seconds": wall,
        "peak_memory_mb": max(one.peak_memory_bytes for one in used) / 1e6,
        # How well the threads are used: 1 is all of them, all the time.
        "efficiency": sum(cpu) / (running * bench.threads),
        # What others took of the machine meanwhile: 1 is all cores, all the time.
        "others": max(all_busy - sum(cpu), 0) / (wall * (os.cpu_count() or 1)),
        "rung_bytes": [file.stat().st_size for file in files],
        "sound_bytes": sound,
        "files": [str(file) for file in files],
        "load": max(before, after),
    }


def whole_encode(bench: Bench, source: Source, crf: int) -> dict:
    """An encode without chunks: the newest one, if there is one."""
    if crf not in bench.whole:
        bench.say(f"one encode of {source.seconds:.0f} s without chunks, crf {crf}")
        keep = bench.cache / f"whole-{crf}"
        cut = recipe.chunks(source, None)
        bench.whole[crf] = encode(bench, source, cut, recipe.rungs(source), crf, keep)
    return bench.whole[crf]


# ---------------------------------------------------------------------------------------------------------------------
# (a) and (d): a job against bare ffmpeg; bytes


def rendition_bytes(written: dict[str, dict[str, int]]) -> dict[str, int]:
    """Bytes of each picture rendition of a job, by its name."""
    found: dict[str, int] = {}
    for objects in written.values():
        for key, size in objects.items():
            name = key.rpartition("/")[2]
            if name.startswith("h264-") and name.endswith(".mp4"):
                found[name.removesuffix(".mp4")] = found.get(name.removesuffix(".mp4"), 0) + size
    return found


def overhead(bench: Bench) -> dict:
    """Pairs of bare ffmpeg and a job through the stack, both of which make the whole ladder."""
    source = bench.clip()
    ladder = recipe.rungs(source)
    bench.stack.configure(MEMORY_MB, bench.at_a_time, CHUNK_SECONDS=CHUNK_SECONDS, SINGLE_SECONDS=SINGLE_SECONDS)
    pairs = []
    for number in range(bench.size.pairs):
        pair: dict = {"first": "stack" if number % 2 else "bare", "load": load()}
        for side in ("stack", "bare") if number % 2 else ("bare", "stack"):
            bench.say(f"pair {number + 1} of {bench.size.pairs}: {side}")
            if side == "bare":
                bench.whole.pop(recipe.CRF, None)
                pair["bare"] = dict(whole_encode(bench, source, recipe.CRF))
            else:
                pair["stack"] = stack_side(bench, source)
        pair["load"] = max(pair["load"], load())
        bare, stack = pair["bare"], pair["stack"]
        pair["cpu_ratio"] = stack["cpu_seconds"] / bare["cpu_seconds"]
        names = [f"h264-{rung.width_px}x{rung.height_px}" for rung in ladder]
        sizes = [stack["rung_bytes"].get(name, 0) for name in names]
        pair["size_ratios"] = [made / wanted for made, wanted in zip(sizes, bare["rung_bytes"], strict=True)]
        same = stack["frames"] == source.frames and all(abs(r - 1) <= SIZE_TOLERANCE for r in pair["size_ratios"])
        pair["same_work"] = same
        pairs.append(pair)

    def median(name: str) -> float:
        return statistics.median(pair["stack"][name] for pair in pairs)

    return {
        "clip": {"seconds": source.seconds, "megabytes": source.size_bytes / 1e6, "height_px": source.height_px},
        "rungs": len(ladder),
        "threads": bench.threads,
        "workers": bench.at_a_time,
        "chunk_seconds": CHUNK_SECONDS,
        "pairs": pairs,
        "cpu_ratio_median": statistics.median(pair["cpu_ratio"] for pair in pairs),
        "read_per_source_byte": median("read_bytes") / source.size_bytes,
        "published_per_source_byte": median("published_bytes") / source.size_bytes,
        "work_per_source_byte": median("work_bytes") / source.size_bytes,
        "requests_written": pairs[-1]["stack"]["objects"],
        "load": max(pair["load"] for pair in pairs),
    }


def stack_side(bench: Bench, source: Source) -> dict:
    """A job through the stack."""
    run = bench.stack.run(source.path, LADDER_BODY, JOB_LIMIT_SECONDS)
    metrics = run["job"]["metrics"]
    tasks = run["tasks"]
    encodes = [task for name, task in tasks.items() if name.startswith("encode#")]
    bench.stack.forget(run)
    return {
        "cpu_seconds": metrics["cpu_seconds"],
        "processing_seconds": metrics["processing_seconds"],
        "peak_memory_mb": metrics["peak_memory_mb"],
        "chunks": len(encodes),
        "attempts": sum(int(task["attempts"]) for task in tasks.values()),
        "frames": sum(int(task["result"]["frames"]) for task in encodes),
        "read_bytes": metrics["read_bytes"],
        "published_bytes": sum(run["written"]["outputs"].values()),
        "work_bytes": sum(run["written"]["work"].values()),
        "objects": sum(len(objects) for objects in run["written"].values()),
        "rung_bytes": rendition_bytes(run["written"]),
        "plan_seconds": tasks["plan"]["cost"]["seconds"],
        "assemble_seconds": assembly_seconds(run),
    }


def assembly_seconds(run: dict) -> float:
    """From the claim of the assembly to the end of the job, which is its last write."""
    ended = datetime.datetime.fromisoformat(run["job"]["completed_at"])
    return ended.timestamp() - run["tasks"]["assemble"]["started_ms"] / 1000


# ---------------------------------------------------------------------------------------------------------------------
# (b): more workers


def workers(bench: Bench) -> dict:
    """The same job with one, two and four workers of one thread and one core."""
    whole = bench.clip()
    seconds = bench.size.worker_clip_seconds
    source = recipe.probe(bench.ffprobe, media.first_seconds(bench.media_ffmpeg, bench.cache, whole.path, seconds))
    rows = []
    with Pinning() as pinning:
        for count in bench.size.workers:
            bench.say(f"{count} worker(s) of one thread")
            length = bench.size.worker_chunk_seconds
            bench.stack.configure(ONE_THREAD_MB, count, CHUNK_SECONDS=length, SINGLE_SECONDS=length)
            before = load()
            run = bench.stack.run(source.path, LADDER_BODY, JOB_LIMIT_SECONDS)
            encodes = [task for name, task in run["tasks"].items() if name.startswith("encode#")]
            began = min(task["started_ms"] for task in encodes)
            ended = max(task["started_ms"] + task["took_ms"] for task in encodes)
            rows.append(
                {
                    "workers": count,
                    "chunks": len(encodes),
                    "encode_seconds": (ended - began) / 1000,
                    "processing_seconds": run["job"]["metrics"]["processing_seconds"],
                    "cpu_seconds": run["job"]["metrics"]["cpu_seconds"],
                    "cores_bound": len(set(pinning.workers.values())),
                    "load": max(before, load()),
                }
            )
            bench.stack.forget(run)
    for row in rows:
        row["speedup"] = rows[0]["encode_seconds"] / row["encode_seconds"]
        row["speedup_of_job"] = rows[0]["processing_seconds"] / row["processing_seconds"]
    return {
        "clip_seconds": source.seconds,
        "height_px": source.height_px,
        "chunk_seconds": bench.size.worker_chunk_seconds,
        "rows": rows,
        "load": max(row["load"] for row in rows),
    }


# ---------------------------------------------------------------------------------------------------------------------
# (c): the length of chunks


def lengths(bench: Bench) -> dict:
    """CPU, bytes and quality by chunk length, against one encode of the whole."""
    source = bench.clip()
    ladder = recipe.rungs(source)
    whole = whole_encode(bench, source, recipe.CRF)
    coarser = whole_encode(bench, source, recipe.CRF + 1)
    qualities = [quality(bench, source, ladder, made) for made in (whole, coarser)]
    rows = [row(source, whole, qualities, None, whole, qualities[0])]
    for seconds in bench.size.lengths_seconds:
        bench.say(f"chunks of {seconds} s")
        with tempfile.TemporaryDirectory(dir=bench.cache) as keep:
            cut = recipe.chunks(source, seconds)
            made = encode(bench, source, cut, ladder, recipe.CRF, pathlib.Path(keep))
            found = quality(bench, source, ladder, made)
        rows.append(row(source, whole, qualities, seconds, made, found, coarser))
    fixed, each = fit([(r["chunks"], source.seconds, r["cpu_seconds"]) for r in rows])
    return {
        "clip_seconds": source.seconds,
        "height_px": source.height_px,
        "sides_px": [rung.height_px for rung in ladder],
        "rows": rows,
        "fixed_cpu_seconds": fixed,
        "cpu_per_second": each,
        "output_bytes_per_second": (sum(whole["rung_bytes"]) + whole["sound_bytes"]) / source.seconds,
        "efficiency": statistics.median(r["efficiency"] for r in rows),
        "others": statistics.median(r["others"] for r in rows),
        "load": max(r["load"] for r in rows),
    }


def quality(bench: Bench, source: Source, ladder: list[Rung], made: dict) -> list[media.Quality]:
    """SSIM and PSNR of an encode."""
    with tempfile.TemporaryDirectory(dir=bench.cache) as scratch:
        files = [pathlib.Path(file) for file in made["files"]]
        return media.compare(bench.media_ffmpeg, pathlib.Path(scratch), source, ladder, files)


def row(
    source: Source,
    whole: dict,
    of_whole: list[list[media.Quality]],
    seconds: int | None,
    made: dict,
    found: list[media.Quality],
    coarser: dict | None = None,
) -> dict:
    """One chunk length against the whole."""
    fine, coarse = of_whole
    # What an encode without chunks would need for the SSIM that was reached, rung by rung.
    equal = whole["rung_bytes"]
    if coarser is not None:
        pairs = zip(whole["rung_bytes"], coarser["rung_bytes"], fine, coarse, found, strict=True)
        equal = [at_ssim(large, small, best.ssim, worse.ssim, now.ssim) for large, small, best, worse, now in pairs]
    penalties = [made_bytes / needed - 1 for made_bytes, needed in zip(made["rung_bytes"], equal, strict=True)]
    return {
        "seconds": seconds,
        "chunks": made["chunks"],
        "cpu_seconds": made["cpu_seconds"],
        "cpu_ratio": made["cpu_seconds"] / whole["cpu_seconds"],
        "wall_seconds": made["wall_seconds"],
        "efficiency": made["efficiency"],
        "others": made["others"],
        "peak_memory_mb": made["peak_memory_mb"],
        "bytes": sum(made["rung_bytes"]),
        "bytes_ratio": sum(made["rung_bytes"]) / sum(whole["rung_bytes"]),
        "ssim": [one.ssim for one in found],
        "ssim_difference": [now.ssim - best.ssim for now, best in zip(found, fine, strict=True)],
        "psnr_db_difference": [now.psnr_db - best.psnr_db for now, best in zip(found, fine, strict=True)],
        "bitrate_at_equal_ssim_by_rung": penalties,
        "bitrate_at_equal_ssim": sum(made["rung_bytes"]) / sum(equal) - 1,
        "load": made["load"],
    }


def at_ssim(large: int, small: int, best: float, worse: float, wanted: float) -> float:
    """Bytes at an SSIM, by a line through two points: decibels of what SSIM lacks, against the logarithm of bytes."""
    lack = [-10 * math.log10(1 - ssim) for ssim in (best, worse, wanted)]
    slope = math.log(large / small) / (lack[0] - lack[1])
    return large * math.exp(slope * (lack[2] - lack[0]))


def fit(points: list[tuple[int, float, float]]) -> tuple[float, float]:
    """Least squares for cpu = chunks * fixed + seconds * each."""
    nn = sum(n * n for n, _, _ in points)
    ns = sum(n * s for n, s, _ in points)
    ss = sum(s * s for _, s, _ in points)
    nc = sum(n * c for n, _, c in points)
    sc = sum(s * c for _, s, c in points)
    determinant = nn * ss - ns * ns
    return max((nc * ss - sc * ns) / determinant, 0.0), (nn * sc - ns * nc) / determinant


# ---------------------------------------------------------------------------------------------------------------------
# For the model: a chunk of 4K, and a probe


def large(bench: Bench) -> dict:
    """One chunk from the middle of a 4K source, five rungs."""
    bench.say("a chunk of 4K")
    path = media.make_clip(bench.media_ffmpeg, bench.cache, 2160, LARGE_SECONDS)
    source = recipe.probe(bench.ffprobe, path)
    ladder = recipe.rungs(source, LARGE_LADDER_PX)
    first, end = (seconds * source.rate.numerator // source.rate.denominator for seconds in LARGE_CHUNK)
    with tempfile.TemporaryDirectory(dir=bench.cache) as keep:
        made = encode(bench, source, [Chunk(first, end, True)], ladder, recipe.CRF, pathlib.Path(keep))
    seconds = LARGE_CHUNK[1] - LARGE_CHUNK[0]
    return {
        "rungs": len(ladder),
        "chunk_seconds": seconds,
        "cpu_seconds": made["cpu_seconds"],
        "peak_memory_mb": made["peak_memory_mb"],
        "others": made["others"],
        "output_bytes_per_second": (sum(made["rung_bytes"]) + made["sound_bytes"]) / seconds,
        "load": made["load"],
    }


def probing(bench: Bench) -> dict:
    """CPU of the looks at a source that a plan needs; a job's metrics count only what chunks and joining take."""
    source = bench.clip()
    packets = ["-show_entries", "packet=pts_time,flags", "-select_streams"]
    whole = ["-show_format", "-show_streams"]
    ends = [["-read_intervals", "999999%", *packets, track] for track in "01"]
    trials = [["-read_intervals", f"{source.seconds * share:.6f}%+#1", *packets, "0"] for share in (0.3, 0.6, 0.9)]
    with tempfile.TemporaryDirectory(dir=bench.cache) as scratch:
        folder = pathlib.Path(scratch)
        used = [
            run_child([bench.ffprobe, "-v", "error", *args, f"file:{source.path}"], folder)
            for args in (whole, *ends, *trials)
        ]
    return {"cpu_seconds": sum(one.cpu_seconds for one in used), "load": load()}


# ---------------------------------------------------------------------------------------------------------------------
# (f): joining


def joining(bench: Bench) -> dict:
    """Large MP4s, joined by copies of parts and by stream copy."""
    rows = []
    for gigabytes in bench.size.join_gb:
        group = recipe.GROUP_SECONDS
        seconds = max(round(gigabytes * 1e9 / JOIN_BYTES_PER_SECOND / group), 4) * group
        path = media.make_noise(bench.media_ffmpeg, bench.cache, seconds)
        for way, least_bytes in (("copies of parts", 0), ("stream copy", NEVER)):
            bench.say(f"joining {gigabytes:g} GB by {way}")
            bench.stack.configure(
                MEMORY_MB, bench.at_a_time, CHUNK_SECONDS=group, SINGLE_SECONDS=group, COMPOSE_MIN_BYTES=least_bytes
            )
            before = load()
            run = bench.stack.run(path, JOIN_BODY, JOB_LIMIT_SECONDS)
            output = next(output for output in run["outputs"] if output["type"] == "rendition")
            took = assembly_seconds(run)
            rows.append(
                {
                    "way": way,
                    "bytes": output["size_bytes"],
                    "parts": sum(name.startswith("encode#") for name in run["tasks"]),
                    "seconds": took,
                    "seconds_per_gb": took / (output["size_bytes"] / 1e9),
                    "load": max(before, load()),
                }
            )
            bench.stack.forget(run)
    data = bytes(HASHED_BYTES)
    began = time.perf_counter()
    hashlib.sha256(data).digest()
    return {
        "rows": rows,
        "hash_mb_per_second": HASHED_BYTES / 1e6 / (time.perf_counter() - began),
        "load": max(entry["load"] for entry in rows),
    }


def clear(bench: Bench) -> None:
    """Removes what is not worth keeping for the next run: clips stay."""
    for folder in bench.cache.glob("whole-*"):
        shutil.rmtree(folder, ignore_errors=True)
