"""Runs the emulator on loopback and ends everything it started, however the run ends.

    serve.py STATE_DIR [--port N]

Two processes of one session watch each other: the keeper (this process) and the emulator (its child).

* SIGTERM or SIGINT to the keeper ends the session, and so does the end of its standard input: whoever started it is
  gone. A line on standard input lets it go on without that.
* When the emulator dies, the keeper ends the session. When the keeper dies, the emulator does.

"Ends the session" means SIGKILL to every process of it: the functions, and what they spawned into process groups of
their own. Nothing is saved, so there is nothing to do more gently.

STATE_DIR/emulator.json appears once the port is bound: {"pid", "started", "port"}.
"""

import argparse
import ctypes
import json
import os
import pathlib
import select
import signal
import socket
import sys
import threading
import time

# Marks every process of a stack that has not had its environment cleared, should one leave the session.
MARK = "REELAY_LOCAL_STACK"


def process_table():
    """Yields (pid, state, parent, session) of every process."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="latin-1") as file:
                # The name may hold spaces and parentheses: fields are counted from the last one.
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        yield int(entry), fields[0], int(fields[1]), int(fields[3])


def carries_mark(pid: int, mark: bytes) -> bool:
    """Whether a process was started with our mark in its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False


def reap() -> set[int]:
    """Takes the exit of every child that has ended."""
    ended = set()
    try:
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            ended.add(pid)
    except ChildProcessError:
        pass
    return ended


def end_session(session: int, mark: bytes) -> None:
    """Kills every other process of the session, repeatedly, as one may fork while we look. At most five seconds."""
    own = os.getpid()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        left = [
            (pid, state)
            for pid, state, parent, its_session in process_table()
            if pid != own
            and (its_session == session or carries_mark(pid, mark))
            # One that has ended is left only if it waits for us.
            and (state not in "ZX" or parent == own)
        ]
        if not left:
            return
        for pid, state in left:
            if state not in "ZX":
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        time.sleep(0.02)
        reap()


def adopt_orphans() -> None:
    """Makes this process the parent of those in its session that lose theirs, so that none stays as a zombie."""
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_time(pid: int) -> int:
    """Clock ticks from boot to the start of a process: with the pid, it names a process for good."""
    with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def configure(state: pathlib.Path, port: int) -> None:
    """Sets the emulator's own environment, which its functions inherit as a whole."""
    os.environ.update(
        {
            MARK: str(state),
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "MINISTACK_HOST": "localhost",
            "MINISTACK_REGION": "us-east-1",
            # S3 signatures and bucket CORS are checked, and IAM policies hold, only with this.
            "AUTH": "true",
            # What the server has here is what it hands its functions; without it they would call real AWS.
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            # No settings or credentials of the developer's own account may reach a function.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            # Every run starts empty.
            "PERSIST_STATE": "0",
            "STATE_DIR": str(state / "emulator"),
            "S3_DATA_DIR": str(state / "emulator" / "s3"),
            # Listeners of services that we do not use; the first ignores BIND_HOST.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
        }
    )


def emulate(listener: socket.socket, state: pathlib.Path, lifeline: int, mark: bytes) -> None:
    """The child: the emulator behind its guard."""

    def follow_keeper():
        # Nothing is ever written: the read returns when the keeper is gone.
        os.read(lifeline, 1)
        end_session(os.getsid(0), mark)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow_keeper, daemon=True).start()

    # Imported late: the emulator reads its environment when it is imported.
    import asyncio

    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    import repairs
    from guard import Guard

    repairs.apply()

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.keep_alive_timeout = 75
    config.accesslog = None
    asyncio.run(serve(Guard(app, state / "allowed-origins"), config))


def main() -> int:
    """The keeper."""
    parser = argparse.ArgumentParser()
    parser.add_argument("state", type=pathlib.Path)
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    state = args.state.resolve()
    state.mkdir(parents=True, exist_ok=True)

    os.setsid()
    adopt_orphans()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", args.port))
    listener.listen(512)
    port = listener.getsockname()[1]
    configure(state, port)
    mark = f"{MARK}={state}".encode()

    # Signals become bytes in a pipe, so that one poll waits for all that can happen.
    wakeup, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_write)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)

    lifeline, lifeline_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(lifeline_write)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        try:
            emulate(listener, state, lifeline, mark)
        finally:
            sys.stderr.flush()
            os._exit(1)
    os.close(lifeline)
    listener.close()

    written = state / "emulator.json.part"
    written.write_text(json.dumps({"pid": os.getpid(), "started": start_time(os.getpid()), "port": port}))
    written.rename(state / "emulator.json")

    poll = select.poll()
    poll.register(wakeup, select.POLLIN)
    starter = sys.stdin.fileno()
    poll.register(starter, select.POLLIN)
    emulator_ended = False
    while True:
        events = dict(poll.poll())
        if starter in events:
            if not os.read(starter, 64):
                break
            poll.unregister(starter)
        received = os.read(wakeup, 64) if wakeup in events else b""
        if set(received) - {signal.SIGCHLD}:
            break
        if signal.SIGCHLD in received and child in reap():
            emulator_ended = True
            break
    end_session(os.getsid(0), mark)
    (state / "emulator.json").unlink(missing_ok=True)
    return 1 if emulator_ended else 0


if __name__ == "__main__":
    sys.exit(main())
