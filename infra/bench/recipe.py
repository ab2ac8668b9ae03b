"""The worker's command lines, said a second time: ffmpeg without a stack must do the same work.

It follows functions/process/src/cage/tool.rs, src/stages/probe.rs, src/stages/encode/args.rs, and domain/audio.rs,
domain/geometry.rs, domain/plan.rs and domain/timeline.rs of functions/core, for H.264 and AAC. Whoever uses it compares
what both sides made: that tells whether this still does the same work.
"""

import dataclasses
import fractions
import json
import math
import pathlib
import subprocess

from common import Failure

Fraction = fractions.Fraction

DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,ogg,mxf"
MAX_STREAMS = 32
MAX_PIXELS = 8192 * 8192
MAX_SHORT_SIDE_PX = 1080
MAX_LONG_SIDE_PX = 8192
THUMBNAIL_SIDES_PX = (360, 640)
# Of the HLS ladder that is made when no rung is named.
LADDER_PX = (360, 480, 720, 1080)
# Short side of the picture up to which a peak bit rate holds.
PEAK_BITRATES_BPS = (
    (360, 800_000),
    (480, 1_400_000),
    (720, 2_800_000),
    (1080, 5_000_000),
    (1440, 9_000_000),
    (math.inf, 16_000_000),
)
BUFFER_SECONDS = 2
GROUP_SECONDS = 4
LEAD_SECONDS = 1
# From this short side on, chunks are half as long.
LARGE_SHORT_SIDE_PX = 1441
CRF = 23
AUDIO_BPS = 128_000
AAC_BPS_PER_QUALITY = 75_000
AAC_QUALITIES = (0.1, 4.0)
PACKET_SAMPLES = 1024
PRIMING_SAMPLES = 1024
SETTLING_PACKETS = 8
MIN_TIMESCALE = 10_000
MB_PER_THREAD = 1769
MAX_THREADS = 6
# ProcessMemoryMb of template.yaml, unless a deployment says otherwise.
DEFAULT_MEMORY_MB = 3008


@dataclasses.dataclass(frozen=True)
class Source:
    """A clip, with what the encoder's arguments depend on."""

    path: pathlib.Path
    video_index: int
    audio_index: int | None
    audio_rate_hz: int
    audio_channels: int
    width_px: int
    height_px: int
    rate: Fraction
    video_start_us: int
    lead_frames: int
    frames: int

    @property
    def seconds(self) -> float:
        """How long its outputs play."""
        return float(self.frames / self.rate)

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return self.path.stat().st_size

    @property
    def group_frames(self) -> int:
        """Frames between key frames."""
        return max(rounded(self.rate * GROUP_SECONDS), 1)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A range of frames that one task encodes."""

    first: int
    end: int
    last: bool

    @property
    def frames(self) -> int:
        """How many it has."""
        return self.end - self.first


@dataclasses.dataclass(frozen=True)
class Rung:
    """A rendition of the picture."""

    width_px: int
    height_px: int

    @property
    def peak_bps(self) -> int:
        """Highest bit rate."""
        return next(bps for limit, bps in PEAK_BITRATES_BPS if min(self.width_px, self.height_px) <= limit)


def rounded(value: float | Fraction) -> int:
    """The nearest whole number; halves go up, as they do in the worker (Python's own `round` goes to the even one)."""
    return math.floor(value + Fraction(1, 2))


def micros(text: str | None) -> int | None:
    """Seconds as ffprobe writes them, as microseconds."""
    try:
        return rounded(Fraction(text or "") * 1_000_000)
    except ValueError:
        return None


def within(width: int, height: int, short: int, long: int) -> tuple[int, int]:
    """A picture's size within bounds for its two sides, never enlarged, both sides even."""
    ratio = min(short / min(width, height), long / max(width, height), 1.0)

    def even(side: int) -> int:
        return max(min(rounded(side * ratio / 2), side // 2), 1) * 2

    return even(width), even(height)


def threads(memory_mb: int) -> int:
    """The encoder's threads in a function of this memory."""
    return min(max(math.ceil(memory_mb / MB_PER_THREAD), 1), MAX_THREADS)


# ---------------------------------------------------------------------------------------------------------------------
# Probe and plan


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
        Fraction(0 if text.endswith("/0") else text) for text in (video["r_frame_rate"], video["avg_frame_rate"])
    )
    if not 1 <= nominal <= 120 or abs(average / nominal - 1) >= Fraction(1, 100):
        raise Failure(f"{path} has a variable frame rate; take a file with a constant one")

    width, height = video["width"], video["height"]
    aspect = video.get("sample_aspect_ratio", "1:1").split(":")
    if "0" not in aspect:
        width = rounded(Fraction(width) * int(aspect[0]) / int(aspect[1]))
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
    lead_frames = math.ceil(Fraction(lead, 1_000_000) * nominal)
    frames = lead_frames + rounded(Fraction(max(ends) - start, 1_000_000) * nominal)
    return Source(
        path=path,
        video_index=index,
        audio_index=audio["index"] if audio else None,
        audio_rate_hz=44_100 if audio and audio["sample_rate"] == "44100" else 48_000,
        audio_channels=audio.get("channels", 2) if audio else 0,
        width_px=width,
        height_px=height,
        rate=nominal,
        video_start_us=start,
        lead_frames=lead_frames,
        frames=max(frames, 1),
    )


def rungs(source: Source, sides_px: tuple[int, ...] = LADDER_PX) -> list[Rung]:
    """The rungs of an HLS output; those above the source are the source's own size, once."""
    sizes = [within(source.width_px, source.height_px, side, MAX_LONG_SIDE_PX) for side in sides_px]
    return [Rung(*size) for size in dict.fromkeys(sizes)]


def default_rung(source: Source) -> Rung:
    """The one rendition of a job that asks for nothing."""
    return Rung(*within(source.width_px, source.height_px, MAX_SHORT_SIDE_PX, MAX_LONG_SIDE_PX))


def chunks(source: Source, seconds: float | None) -> list[Chunk]:
    """Cuts a source as the worker plans it; without a length, into one chunk."""
    if seconds is None:
        return [Chunk(0, source.frames, True)]
    group = source.group_frames
    length = max((rounded(source.rate * Fraction(seconds)) + group // 2) // group, 1) * group
    whole, tail = divmod(source.frames, length)
    count = whole + 1 if tail * 4 >= length or whole == 0 else whole
    return [
        Chunk(n * length, source.frames if n + 1 == count else (n + 1) * length, n + 1 == count) for n in range(count)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Encode


def input_args(path: pathlib.Path | str) -> list[str]:
    """What opens a file as the worker does: under its allow-lists and bounds."""
    args = ["-protocol_whitelist", "file,pipe", "-format_whitelist", DEMUXERS]
    return [*args, "-max_streams", str(MAX_STREAMS), "-max_pixels", str(MAX_PIXELS), "-i", f"file:{path}"]


def origin(source: Source) -> str:
    """Where the frame grid begins in the source's time."""
    rate = source.rate
    return f"({source.video_start_us}/1000000-{source.lead_frames}*{rate.denominator}/{rate.numerator})"


def seek_args(source: Source, chunk: Chunk) -> list[str]:
    """Reading begins a little before a chunk; for the first, at the beginning."""
    if chunk.first == 0:
        return []
    frames = chunk.first - source.lead_frames
    us = source.video_start_us + math.floor(frames * 1_000_000 / source.rate) - LEAD_SECONDS * 1_000_000
    return ["-seek_timestamp", "1", "-noaccurate_seek", "-ss", f"{us}us"]


def audio_samples(source: Source, chunk: Chunk) -> tuple[int, int]:
    """The first sample that is encoded for a chunk, and the one after the last: its packets and some to settle."""
    total = math.floor(source.frames * source.audio_rate_hz / source.rate)
    packets = math.ceil((total + PRIMING_SAMPLES) / PACKET_SAMPLES)

    def packet_at(frame: int) -> int:
        samples = math.floor(frame * source.audio_rate_hz / source.rate)
        return min(math.ceil((samples + PRIMING_SAMPLES) / PACKET_SAMPLES), packets) if frame else 0

    end = packets if chunk.last else packet_at(chunk.end)
    first = max(packet_at(chunk.first) - SETTLING_PACKETS, 0)
    return first * PACKET_SAMPLES, min((end + SETTLING_PACKETS) * PACKET_SAMPLES, total)


def filter_graph(source: Source, chunk: Chunk, ladder: list[Rung]) -> str:
    """The filter graph: frames on the grid, then one scaler a rung."""
    num, den = source.rate.numerator, source.rate.denominator
    pads = "".join(f"[s{n}]" for n in range(len(ladder)))
    chains = [
        f"[0:{source.video_index}]setpts=PTS-{origin(source)}/TB,fps={num}/{den}:start_time={chunk.first}*{den}/{num},"
        f"tpad=stop_mode=clone:stop=-1,trim=start_pts={chunk.first}:end_pts={chunk.end},split={len(ladder)}{pads}"
    ]
    for n, rung in enumerate(ladder):
        size = f"{rung.width_px}:{rung.height_px}"
        chains.append(f"[s{n}]scale={size}:flags=bicubic,setsar=1,format=yuv420p[v{n}]")
    if source.audio_index is not None:
        first, end = audio_samples(source, chunk)
        chains.append(f"[0:{source.audio_index}]asetpts=PTS-{origin(source)}/TB,asplit=1[b0]")
        chains.append(
            f"[b0]aresample={source.audio_rate_hz},aresample=async=1:min_hard_comp=0.02:first_pts={first},aformat=channel_layouts=mono|stereo,apad,"
            f"atrim=start_pts={first}:end_pts={end},asetpts=PTS-STARTPTS[a0]"
        )
    return ";".join(chains)


def x264_args(source: Source, rung: Rung, thread_count: int, crf: int, preset: str, peak_bps: int | None) -> list[str]:
    """Settings of a rung's encoder."""
    peak, group = peak_bps or rung.peak_bps, str(source.group_frames)
    args = ["-c:v", "libx264", "-profile:v", "high", "-preset", preset, "-crf", str(crf)]
    args += ["-maxrate", str(peak), "-bufsize", str(peak * BUFFER_SECONDS), "-sc_threshold", "0"]
    return [*args, "-threads", str(thread_count), "-g", group, "-keyint_min", group]


def aac_args(source: Source) -> list[str]:
    """Settings of the sound's encoder."""
    quality = AUDIO_BPS / (AAC_BPS_PER_QUALITY * min(max(source.audio_channels, 1), 2))
    return ["-c:a", "aac", "-q:a", f"{min(max(quality, AAC_QUALITIES[0]), AAC_QUALITIES[1]):.3f}"]


def opening_args(source: Source, chunk: Chunk, ladder: list[Rung], thread_count: int) -> list[str]:
    """All that stands before the first output."""
    args = "-nostdin -hide_banner -v error -y -progress pipe:1 -stats_period 0.5 -copyts".split()
    args += seek_args(source, chunk)
    args += ["-threads", str(thread_count), *input_args(source.path)]
    return [*args, "-filter_complex", filter_graph(source, chunk, ladder)]


def chunk_args(source: Source, chunk: Chunk, ladder: list[Rung], thread_count: int, crf: int = CRF) -> list[str]:
    """The worker's line for a chunk: v0.mp4 and so on for the rungs, a0.mp4 for the sound."""
    args = opening_args(source, chunk, ladder, thread_count)
    timescale = source.rate.numerator * math.ceil(MIN_TIMESCALE / source.rate.numerator)
    plain = "-map_metadata -1 -map_chapters -1 -bitexact -f mp4 -movflags".split()
    for n, rung in enumerate(ladder):
        args += ["-map", f"[v{n}]", *x264_args(source, rung, thread_count, crf, "veryfast", None)]
        args += ["-video_track_timescale", str(timescale)]
        args += [*plain, "+cmaf+frag_keyframe+empty_moov+frag_discont", f"file:v{n}.mp4"]
    if source.audio_index is not None:
        args += ["-map", "[a0]", *aac_args(source)]
        args += [*plain, "+empty_moov+default_base_moof", "-frag_duration", "4000000", "file:a0.mp4"]
    return args


def file_args(source: Source, name: str, thread_count: int) -> list[str]:
    """What a person would run for the one MP4 of a job without options: the same encoders, straight into the file."""
    whole = Chunk(0, source.frames, True)
    ladder = [default_rung(source)]
    args = opening_args(source, whole, ladder, thread_count)
    args += ["-map", "[v0]", *x264_args(source, ladder[0], thread_count, CRF, "veryfast", None)]
    if source.audio_index is not None:
        args += ["-map", "[a0]", *aac_args(source)]
    return [*args, *f"-map_metadata -1 -map_chapters -1 -bitexact -movflags +faststart -f mp4 file:{name}".split()]


def thumbnail_args(source: Source, rendition: str, count: int) -> list[list[str]]:
    """What takes each still: one seek into a rendition."""
    width, height = within(source.width_px, source.height_px, *THUMBNAIL_SIDES_PX)
    count = min(count, source.frames)
    commands = []
    for n in range(count):
        frame = (2 * n + 1) * source.frames // (2 * count)
        args = "-nostdin -hide_banner -v error -y -seek_timestamp 1 -ss".split()
        args += [f"{max((frame - 0.5) / float(source.rate), 0):.6f}", *input_args(rendition)]
        args += "-map 0:v:0 -frames:v 1 -map_metadata -1 -vf".split()
        args.append(f"scale={width}:{height}:flags=bicubic:out_range=full,format=yuvj420p")
        args += f"-c:v mjpeg -q:v 4 -f image2 -update 1 file:thumbnail-{n + 1}.jpg".split()
        commands.append(args)
    return commands
