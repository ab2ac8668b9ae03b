"""What was measured, as Markdown."""

import measure
from model import GIB, INPUTS, INVOCATION_LIMIT_SECONDS, Model, Work

WORKERS = (10, 50, 120, 300)
MEMORIES_MB = (3008, 10_240)
HOUR = 3600
LARGEST_BYTES = 5 * GIB
# With more than this of the machine taken by others, how well threads were used says nothing.
QUIET = 0.05
# Fixed CPU of a chunk at 1080p, against the same at 2160p: page faults and the lead grow with the picture.
LARGE_PICTURE = 4


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def percent(share: float, digits: int = 1) -> str:
    """A share with its sign."""
    return f"{100 * share:+.{digits}f} %"


def overhead(found: dict) -> str:
    """(a) and (d)."""
    clip = found["clip"]
    rows = []
    for number, pair in enumerate(found["pairs"], 1):
        bare, stack = pair["bare"], pair["stack"]
        rows.append(
            [
                f"{number} ({pair['first']} first)",
                f"{bare['cpu_seconds']:.1f}",
                f"{stack['cpu_seconds']:.1f}",
                f"**{pair['cpu_ratio']:.3f}**",
                f"{bare['wall_seconds']:.1f}",
                f"{stack['processing_seconds']:.1f}",
                f"{stack['assemble_seconds']:.1f}",
                str(stack["chunks"]),
                "yes" if pair["same_work"] else "NO",
                f"{pair['load']:.1f}",
            ]
        )
    head = "pair|bare, CPU s|job, CPU s|ratio|bare, wall s|job, wall s|joining s|chunks|same work|load".split("|")
    text = f"## CPU of a job against bare ffmpeg\n\n{clip['seconds']:.0f} s of {clip['height_px']}p, "
    text += f"{found['rungs']} rungs of HLS, chunks of {found['chunk_seconds']} s, {found['threads']} threads an "
    text += f"encoder, {found['workers']} worker(s) at a time.\n\n{table(head, rows)}\n\n"
    text += f"Median CPU ratio: **{found['cpu_ratio_median']:.3f}**.\n\n## Bytes\n\n"
    bytes_rows = [
        ["read of the source", f"{found['read_per_source_byte']:.2f}"],
        ["written, published (the ladder itself)", f"{found['published_per_source_byte']:.2f}"],
        ["written, for later tasks only", f"{found['work_per_source_byte']:.4f}"],
    ]
    text += table(["bytes", "for a byte of the source"], bytes_rows)
    return text + f"\n\n{found['requests_written']} objects in all; the source has {clip['megabytes']:.1f} MB."


def workers(found: dict) -> str:
    """(b)."""
    rows = [
        [
            str(row["workers"]),
            str(row["cores_bound"]),
            f"{row['encode_seconds']:.1f}",
            f"**{row['speedup']:.2f}**",
            f"{row['processing_seconds']:.1f}",
            f"{row['speedup_of_job']:.2f}",
            f"{row['cpu_seconds']:.1f}",
            f"{row['load']:.1f}",
        ]
        for row in found["rows"]
    ]
    head = "workers|cores|encoding, wall s|speed-up|whole job, wall s|speed-up|CPU s|load".split("|")
    text = f"## More workers\n\n{found['clip_seconds']:.0f} s of {found['height_px']}p in chunks of "
    text += f"{found['chunk_seconds']} s; a worker has one thread and one core, and shares it when there are fewer.\n\n"
    return text + table(head, rows)


def lengths(found: dict) -> str:
    """(c)."""
    rows = []
    for row in found["rows"]:
        rows.append(
            [
                "whole" if row["seconds"] is None else f"{row['seconds']} s",
                str(row["chunks"]),
                f"{row['cpu_seconds']:.1f}",
                f"{row['cpu_ratio']:.3f}",
                percent(row["bytes_ratio"] - 1, 2),
                " ".join(f"{value:+.4f}" for value in row["ssim_difference"]),
                " ".join(f"{value:+.2f}" for value in row["psnr_db_difference"]),
                f"**{percent(row['bitrate_at_equal_ssim'], 2)}**",
                " ".join(percent(value) for value in row["bitrate_at_equal_ssim_by_rung"]),
                f"{100 * row['others']:.0f} %",
                f"{row['load']:.1f}",
            ]
        )
    head = ["chunk", "chunks", "CPU s", "CPU ratio", "bytes", "SSIM by rung", "PSNR dB by rung"]
    head += ["bit rate at equal SSIM", "by rung", "others", "load"]
    ssim = ", ".join(f"{value:.4f}" for value in found["rows"][0]["ssim"])
    sides = ", ".join(f"{side}p" for side in found["sides_px"])
    text = f"## What the length of a chunk costs\n\n{found['clip_seconds']:.0f} s of {found['height_px']}p; rungs "
    text += f"{sides}, SSIM of the whole {ssim}. Differences are to the whole, every third frame is compared. The bit "
    text += "rate at equal SSIM sets the bytes against what one encode of the whole needs for the same SSIM, from crf "
    text += f"{measure.recipe.CRF} and {measure.recipe.CRF + 1}.\n\n{table(head, rows)}\n\n"
    text += f"Fit: {found['fixed_cpu_seconds']:.2f} CPU s a chunk and {found['cpu_per_second']:.3f} a second; "
    text += f"{100 * found['efficiency']:.0f} % of two threads used (median). `others` is what other processes, or the "
    return text + "host, took of the machine meanwhile."


def joining(found: dict, slowdown: float) -> str:
    """(f)."""
    rows = [
        [
            row["way"],
            f"{row['bytes'] / 1e9:.2f}",
            str(row["parts"]),
            f"{row['seconds']:.1f}",
            f"{row['seconds_per_gb']:.1f}",
            f"{row['seconds_per_gb'] * LARGEST_BYTES / 1e9:.0f}",
            f"{row['load']:.1f}",
        ]
        for row in found["rows"]
    ]
    head = "joined by|GB|parts|s|s a GB|at that rate, 5 GiB take s|load".split("|")
    text = "## Joining a large MP4\n\nAgainst the emulator, which is neither S3's speed nor its parallelism.\n\n"
    text += f"{table(head, rows)}\n\nWith S3's stated rates (inputs below), 5 GiB of chunks of 24 s:\n\n"
    rates = found["hash_mb_per_second"]
    rows = []
    cases = (
        ("as stated", Model(slowdown=slowdown)),
        (
            "all at their worst",
            Model(slowdown=3.0, network_mb_per_second=40, s3_latency_seconds=0.2),
        ),
    )
    for name, model in cases:
        for hours in (1, 2):
            parts = hours * HOUR // measure.CHUNK_SECONDS
            took = model.compose_seconds(LARGEST_BYTES, parts, rates)
            total = sum(took.values())
            rows.append(
                [
                    f"{name}, {hours} h",
                    str(parts),
                    *[f"{took[part]:.0f}" for part in ("copy", "send", "hash")],
                    f"**{total:.0f}**",
                    "yes" if total < INVOCATION_LIMIT_SECONDS else "NO",
                ]
            )
    head = f"case|parts|copies s|sent parts s|hash s|in all s|within {INVOCATION_LIMIT_SECONDS} s".split("|")
    return text + table(head, rows) + f"\n\nSHA-256 here: {rates:.0f} MB/s on one core."


def works(lengths_found: dict, large_found: dict | None, probe_cpu: float) -> list[Work]:
    """The jobs of the model."""
    is_quiet = lengths_found["others"] <= QUIET
    efficiency = min(lengths_found["efficiency"], 1.0) if is_quiet else INPUTS["efficiency_at_two"].value
    common = {"efficiency_at_two": efficiency, "probe_cpu_seconds": probe_cpu}
    fixed = lengths_found["fixed_cpu_seconds"]
    tracks = len(lengths_found["sides_px"]) + 1
    name = f"{lengths_found['height_px']}p, {tracks - 1} rungs"
    made = [
        Work(
            name=f"{title} of {name}",
            seconds=seconds,
            chunk_seconds=measure.CHUNK_SECONDS,
            tracks=tracks,
            fixed_cpu_seconds=fixed,
            cpu_per_second=lengths_found["cpu_per_second"],
            output_bytes_per_second=lengths_found["output_bytes_per_second"],
            **common,
        )
        for title, seconds in (("10 min", 600), ("1 h", HOUR), ("2 h", 2 * HOUR))
    ]
    if large_found:
        fixed *= LARGE_PICTURE
        made.append(
            Work(
                name=f"1 h of 2160p, {large_found['rungs']} rungs",
                seconds=HOUR,
                chunk_seconds=measure.CHUNK_SECONDS / 2,
                tracks=large_found["rungs"] + 1,
                fixed_cpu_seconds=fixed,
                cpu_per_second=max(large_found["cpu_seconds"] - fixed, 0) / large_found["chunk_seconds"],
                output_bytes_per_second=large_found["output_bytes_per_second"],
                **common,
            )
        )
    return made


def modelled(jobs: list[Work], slowdown: float) -> tuple[str, list[dict]]:
    """(e): the table, and its figures."""
    entry = INPUTS["slowdown"]
    slowdowns = (min(entry.low, slowdown), slowdown, max(entry.high, slowdown))
    rows, figures = [], []
    for memory_mb in MEMORIES_MB:
        for job in jobs:
            cells, task = [], ""
            for workers_count in WORKERS:
                runs = [Model(slowdown=value).run(job, memory_mb, workers_count) for value in slowdowns]
                least, middle, most = (run.wall_seconds for run in runs)
                cells.append(f"**{middle:.0f}** ({least:.0f} to {most:.0f})")
                task = f"{runs[1].chunk_seconds:.0f}"
                for value, run in zip(slowdowns, runs, strict=True):
                    figures.append(
                        {
                            "job": job.name,
                            "memory_mb": memory_mb,
                            "workers": workers_count,
                            "slowdown": value,
                            **run.__dict__,
                        }
                    )
            usd = f"**{runs[1].usd:.2f}** ({runs[0].usd:.2f} to {runs[2].usd:.2f})"
            rows.append([job.name, f"{memory_mb}", str(runs[1].tasks), task, *cells, usd])
    head = ["job", "MB", "tasks", "a task, s", *[f"wall s, {count} workers" for count in WORKERS], "$"]
    text = "## What it would take on AWS: a model, not a measurement\n\n"
    text += f"Chunks as measured above; a virtual CPU of Lambda {slowdown:g} times slower than a core here (in "
    text += f"parentheses: {slowdowns[0]:g} and {slowdowns[2]:g} times). Standard event source mapping, x86_64, "
    text += "encoding with veryfast. Dollars are for the most workers; fewer cost no more. "
    text += "Storage and transfer to viewers are "
    text += "not in them.\n\n"
    text += table(head, rows) + "\n\n### Inputs\n\n"
    rows = []
    for name, given in INPUTS.items():
        value = {"slowdown": slowdown, "efficiency_at_two": jobs[0].efficiency_at_two}.get(name, given.value)
        spread = f"{given.low:g} to {given.high:g}" if given.low is not None else ""
        rows.append([f"`{name}`", f"{value:.10g}", given.unit, spread, given.source])
    return text + table(["input", "value", "unit", "range", "source"], rows), figures
