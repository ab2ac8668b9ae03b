"""What measured chunks would take on AWS: wall time and dollars, from inputs that are stated one by one.

Nothing here was run on AWS. Whatever is not measured by chunks.py is an input with its source, and the ones that decide
(how slow a virtual CPU is, above all) have a range.
"""

import dataclasses
import heapq
import math

GIB = 1 << 30
MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Input:
    """A figure that the model takes from outside."""

    value: float
    unit: str
    source: str
    low: float | None = None
    high: float | None = None


ASSUMED = "assumption"
PRICES = "us-east-1, 2026-11"
INPUTS = {
    "slowdown": Input(
        2.2,
        "x",
        f"{ASSUMED}: how much slower an x86_64 vCPU of Lambda is than a core here; run one chunk there to know",
        1.5,
        3.0,
    ),
    "mb_per_vcpu": Input(1769, "MB", "AWS Lambda Developer Guide, Configure Lambda function memory"),
    "efficiency_at_two": Input(0.95, "", f"{ASSUMED}: how well x264 uses two vCPUs; measured when the machine is idle"),
    "efficiency_at_six": Input(0.85, "", f"{ASSUMED}: the same for 5.8 vCPUs; between the points, a line", 0.7, 0.9),
    "first_pollers": Input(
        5, "tasks", "AWS Lambda Developer Guide, Configuring scaling behavior for SQS event source mappings"
    ),
    "pollers_per_minute": Input(300, "tasks", "same page; taken as a straight line"),
    "cold_start_seconds": Input(
        1.0,
        "s",
        f"{ASSUMED}: a Rust function starts in some 10 ms (github.com/maxday/lambda-perf); the rest is loading ffmpeg",
        0.3,
        3.0,
    ),
    "s3_latency_seconds": Input(
        0.05,
        "s",
        "AWS whitepaper Optimizing Amazon S3 Performance: small requests take tens of milliseconds",
        0.02,
        0.2,
    ),
    "s3_mb_per_second": Input(85, "MB/s", "same whitepaper: 85 to 90 MB/s for each request in flight"),
    "network_mb_per_second": Input(
        75, "MB/s", f"{ASSUMED}: AWS states none; others measured 400 to 700 Mbit/s for a function", 40, 85
    ),
    "dynamodb_latency_seconds": Input(0.01, "s", "Amazon DynamoDB Developer Guide: single-digit milliseconds"),
    "source_gets_per_chunk": Input(20, "requests", f"{ASSUMED}: index, lead and blocks read ahead"),
    "gb_second_usd": Input(0.0000166667, "$", f"aws.amazon.com/lambda/pricing, x86_64, {PRICES}; 20 % less on arm64"),
    "scratch_gb_second_usd": Input(0.0000000309, "$", f"aws.amazon.com/lambda/pricing, ephemeral storage, {PRICES}"),
    "invocation_usd": Input(0.20e-6, "$", f"aws.amazon.com/lambda/pricing, {PRICES}"),
    "s3_put_usd": Input(0.005e-3, "$", f"aws.amazon.com/s3/pricing, S3 Standard, {PRICES}"),
    "s3_get_usd": Input(0.0004e-3, "$", f"aws.amazon.com/s3/pricing, S3 Standard, {PRICES}"),
    "sqs_request_usd": Input(0.40e-6, "$", f"aws.amazon.com/sqs/pricing, {PRICES}"),
    "dynamodb_write_usd": Input(0.625e-6, "$", f"aws.amazon.com/dynamodb/pricing/on-demand, {PRICES}"),
    "dynamodb_read_usd": Input(0.125e-6, "$", f"aws.amazon.com/dynamodb/pricing/on-demand, {PRICES}"),
}
# How the worker works: constants of functions/process/src and functions/core/src/adapters.
TABLES_IN_FLIGHT = 8
WRITES_IN_FLIGHT = 16
PIECES_IN_FLIGHT = 4
MIN_PART_BYTES = 5 * MIB
TASKS_A_TICK = 50
HEARTBEAT_SECONDS = 15
# Units of one write of a job's progress: the item and its two indexes.
PROGRESS_WRITE_UNITS = 3
SCRATCH_GB = (10_240 - 512) / 1024
INVOCATION_LIMIT_SECONDS = 900


@dataclasses.dataclass(frozen=True)
class Work:
    """A source and what its chunks take on the machine of the measurement."""

    name: str
    seconds: float
    chunk_seconds: float
    tracks: int
    fixed_cpu_seconds: float
    cpu_per_second: float
    output_bytes_per_second: float
    # CPU against wall times threads, at two threads.
    efficiency_at_two: float
    probe_cpu_seconds: float

    def chunk_lengths(self) -> list[float]:
        """As the worker plans them: a tail below a quarter of a chunk joins its neighbour."""
        whole, tail = divmod(self.seconds, self.chunk_seconds)
        lengths = [self.chunk_seconds] * int(whole)
        if tail * 4 >= self.chunk_seconds or not lengths:
            lengths.append(tail)
        else:
            lengths[-1] += tail
        return lengths


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a job would take."""

    tasks: int
    wall_seconds: float
    plan_seconds: float
    chunk_seconds: float
    assemble_seconds: float
    usd: float


class Model:
    """The inputs, with some of them changed."""

    def __init__(self, **changed: float):
        """Takes what differs from `INPUTS`."""
        self.values = {name: entry.value for name, entry in INPUTS.items()} | changed

    def __getattr__(self, name: str) -> float:
        """An input's value."""
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def cpu_rate(self, memory_mb: int, efficiency_at_two: float) -> float:
        """CPU seconds of the measuring machine that a function gets done in a second."""
        cpus = memory_mb / self.mb_per_vcpu
        most = 10_240 / self.mb_per_vcpu
        at_most = min(self.efficiency_at_six, efficiency_at_two)
        points = [(0.0, 1.0), (1.0, 1.0), (2.0, efficiency_at_two), (most, at_most)]
        useful = points[-1][1]
        for (left, low), (right, high) in zip(points, points[1:], strict=False):
            if left <= cpus <= right:
                useful = low + (high - low) * (cpus - left) / (right - left)
        return cpus * useful / self.slowdown

    def chunk_task(self, work: Work, length: float, rate: float) -> float:
        """A warm encode task: claim, encode, then track after track and table after table to S3."""
        claim = 5 * self.dynamodb_latency_seconds + 2 * self.s3_latency_seconds
        encode = (work.fixed_cpu_seconds + work.cpu_per_second * length) / rate
        stored = 2 * work.tracks * self.s3_latency_seconds
        moved = work.output_bytes_per_second * length / 1e6 / self.network_mb_per_second
        return claim + encode + stored + moved + 4 * self.dynamodb_latency_seconds

    def run(self, work: Work, memory_mb: int, workers: int) -> Outcome:
        """A job from its message to its end."""
        rate = self.cpu_rate(memory_mb, work.efficiency_at_two)
        lengths = work.chunk_lengths()
        count = len(lengths)
        # Reads of a probe follow one another; then items and messages are written, some at a time.
        plan = self.cold_start_seconds + work.probe_cpu_seconds / rate + 20 * self.s3_latency_seconds
        plan += 2 * math.ceil(count / WRITES_IN_FLIGHT) * self.dynamodb_latency_seconds
        # Track by track: a header, then the tables; at the end playlists and the proof.
        rounds = work.tracks * (1 + math.ceil(count / TABLES_IN_FLIGHT)) + work.tracks + 2
        assemble = rounds * self.s3_latency_seconds + 10 * self.dynamodb_latency_seconds

        slots = []
        for n in range(min(workers, count)):
            late = max(n + 1 - self.first_pollers, 0) / (self.pollers_per_minute / 60)
            # The first worker is the one that planned.
            heapq.heappush(slots, (late + (self.cold_start_seconds if n else 0.0)))
        billed = plan + assemble + self.cold_start_seconds * (len(slots) - 1)
        end = 0.0
        for length in lengths:
            took = self.chunk_task(work, length, rate)
            billed += took
            at = heapq.heappop(slots) + took
            end = max(end, at)
            heapq.heappush(slots, at)
        longest = self.chunk_task(work, lengths[0], rate)
        usd = billed * (memory_mb / 1024 * self.gb_second_usd + SCRATCH_GB * self.scratch_gb_second_usd)
        usd += self.requests_usd(work, count, billed)
        return Outcome(count + 2, plan + end + assemble, plan, longest, assemble, usd)

    def requests_usd(self, work: Work, count: int, task_seconds: float) -> float:
        """What is paid by the request."""
        puts = count * 2 * work.tracks + work.tracks + 2
        gets = count * (self.source_gets_per_chunk + work.tracks)
        beats = task_seconds / HEARTBEAT_SECONDS
        queue = 3 * (count + 2) + beats
        progress = task_seconds / math.ceil(count / TASKS_A_TICK)
        writes = 12 * count + 2 * beats + PROGRESS_WRITE_UNITS * progress
        reads = 6 * count + task_seconds
        total = (count + 2) * self.invocation_usd + puts * self.s3_put_usd + gets * self.s3_get_usd
        return total + queue * self.sqs_request_usd + writes * self.dynamodb_write_usd + reads * self.dynamodb_read_usd

    def compose_seconds(self, size_bytes: float, parts: int, hash_mb_per_second: float) -> dict[str, float]:
        """Joining by copies of parts: each chunk gives a part that is copied and, as sound stands before it, one of
        the smallest size that goes through the worker; then all of it is read for its hash."""
        each = size_bytes / parts
        sent = min(MIN_PART_BYTES, each)
        copied = each - sent
        copy = parts * (self.s3_latency_seconds + copied / 1e6 / self.s3_mb_per_second) / PIECES_IN_FLIGHT
        through = 2 * parts * sent / 1e6
        send = max(through / self.network_mb_per_second, parts * 2 * self.s3_latency_seconds / PIECES_IN_FLIGHT)
        speeds = (
            self.network_mb_per_second,
            PIECES_IN_FLIGHT * self.s3_mb_per_second,
            hash_mb_per_second / self.slowdown,
        )
        return {"copy": copy, "send": send, "hash": size_bytes / 1e6 / min(speeds)}
