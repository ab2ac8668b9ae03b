"""Workers of one core each.

Lambda gives a function with 1,769 MB the time of one virtual CPU. The emulator gives its functions the whole machine,
and an encoder of "one thread" still decodes, scales and encodes rungs side by side. So each worker, and what it starts,
is bound to a core of its own; with more workers than cores, they share.
"""

import contextlib
import os
import pathlib
import threading

EVERY_SECONDS = 0.05
TOOLS = ("ffmpeg", "ffprobe")


def process_table() -> dict[int, tuple[str, int]]:
    """Name and parent of every process."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            stat = pathlib.Path("/proc", entry, "stat").read_text(encoding="latin-1")
            # The name may hold spaces and parentheses: fields are counted from the last one.
            name, _, rest = stat.partition("(")[2].rpartition(")")
            found[int(entry)] = (name, int(rest.split()[1]))
    return found


def bind(pid: int, core: int) -> None:
    """Binds all threads of a process; new ones inherit it."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread), {core})


class Pinning(contextlib.AbstractContextManager):
    """Binds workers below this process while it is open."""

    def __init__(self):
        """Knows the cores, and no worker yet."""
        self.cores = sorted(os.sched_getaffinity(0))
        self.workers: dict[int, int] = {}
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)

    def __enter__(self):
        """Begins to look."""
        self.thread.start()
        return self

    def __exit__(self, *_):
        """Ends; the workers end with their stack."""
        self.done.set()
        self.thread.join()

    def is_ours(self, pid: int, table: dict[int, tuple[str, int]]) -> bool:
        """Whether a process descends from this one."""
        own = os.getpid()
        while pid in table and pid not in (0, own):
            pid = table[pid][1]
        return pid == own

    def follow(self) -> None:
        """A worker is whoever runs one of the tools."""
        while not self.done.wait(EVERY_SECONDS):
            table = process_table()
            for gone in set(self.workers) - set(table):
                del self.workers[gone]
            for pid, (name, parent) in table.items():
                if name not in TOOLS or not self.is_ours(pid, table):
                    continue
                if parent not in self.workers:
                    # The least used core; workers of other functions never come here.
                    used = list(self.workers.values())
                    self.workers[parent] = min(self.cores, key=used.count)
                    bind(parent, self.workers[parent])
                bind(pid, self.workers[parent])
