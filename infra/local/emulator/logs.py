"""Shows what the functions logged, oldest first.

    logs.py STACK_NAME [FUNCTION] [--follow]
"""

import argparse
import datetime
import os
import sys
import time

import boto3

# Of an invocation's frame only the last line says something: how long it took.
FRAME = ("START ", "END ")


def groups_of(logs, stack: str, function: str | None) -> dict[str, str]:
    """Function name -> log group."""
    prefix = f"/aws/lambda/{stack}-"
    pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
    names = [group["logGroupName"] for page in pages for group in page["logGroups"]]
    groups = {name.removeprefix(prefix): name for name in sorted(names)}
    if function is None:
        return groups
    if function not in groups:
        sys.exit(f"no function {function!r}; there are {', '.join(groups)}")
    return {function: groups[function]}


def show(logs, groups: dict[str, str], seen: set[str], width: int) -> None:
    """Prints the lines that were not there at the last look."""
    lines = []
    for function, group in groups.items():
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group):
            for number, event in enumerate(page["events"]):
                key = event.get("eventId") or f"{group} {event['logStreamName']} {number}"
                if key not in seen:
                    seen.add(key)
                    lines.append((event["timestamp"], function, event["message"].rstrip("\n")))
    for timestamp, function, message in sorted(lines, key=lambda line: line[0]):
        if not message.startswith(FRAME):
            at = datetime.datetime.fromtimestamp(timestamp / 1000, datetime.UTC).strftime("%H:%M:%S.%f")[:-3]
            print(f"{at} {function:<{width}} {message}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stack")
    parser.add_argument("function", nargs="?")
    parser.add_argument("--follow", action="store_true")
    args = parser.parse_args()
    logs = boto3.client("logs")
    groups = groups_of(logs, args.stack, args.function)
    seen: set[str] = set()
    width = max(map(len, groups), default=0)
    show(logs, groups, seen, width)
    while args.follow:
        time.sleep(1)
        show(logs, groups, seen, width)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # The reader has what it wanted; Python would complain once more when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
