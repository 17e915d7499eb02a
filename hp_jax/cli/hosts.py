"""A command that is one of many processes works in a process of its own, and this one tells of its
end.

XLA aborts a process in which it notices that another is dead or cannot be reached; nothing in that
process can prevent it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable

WORKER = "HP_JAX_WORKER"
"""The environment variable that tells a process that it does the work of another."""
_FATAL = re.compile(r"F\d{4} [\d:.]+ |E\d{4} .* coordination_service")
_STATUS = re.compile(r"absl::Status: (.+?)(?:\.\s|\n[A-Z\n]|$)", re.DOTALL)


def is_worker() -> bool:
    """Whether this process does the work of another; it then ends when that one does."""
    if not os.environ.pop(WORKER, ""):
        return False
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return True


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def supervise() -> int:
    """Does this command in a new process, and returns its exit status: 1, after one sentence, if it
    was aborted.

    Signals are passed on to it.  HP_JAX_DEBUG=1 shows what XLA says when it aborts.
    """
    worker = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env={"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ | {WORKER: "1"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    with worker:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: worker.send_signal(number))
        assert worker.stderr
        said, fatal = _relay(worker.stderr)
        status = worker.wait()
    if status >= 0:
        return status
    if -status in (signal.SIGINT, signal.SIGTERM):
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    if not said:
        print(f"hp-jax: error: {_why(fatal, signal.Signals(-status).name)}", file=sys.stderr)
    return 1


def _relay(lines: Iterable[str]) -> tuple[bool, str]:
    """Writes the lines to stderr, except for XLA's last words and the stack trace behind them;
    whether an error was among them, and those words."""
    said, fatal = False, ""
    for line in lines:
        own = line.startswith("hp-jax: ")
        said |= own
        if not own and (fatal or _FATAL.match(line)):
            fatal += line
        if own or not fatal or os.environ.get("HP_JAX_DEBUG"):
            sys.stderr.write(line)
            sys.stderr.flush()
    return said, fatal


def _why(fatal: str, name: str) -> str:
    """What has happened to a process with these last words that a signal of this name ended."""
    from hp_jax.sharding import PATIENCE, SILENCE

    if not fatal:
        return f"the process that does the work was ended by {name}; started again it goes on"
    status = _STATUS.search(fatal)
    reason = f" ({' '.join(status[1].split())})" if status else ""
    if "RegisterTask" in fatal:
        return (
            f"could not join the other processes{reason}: within {PATIENCE} seconds all must have "
            "been started, with the same JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES, each with "
            "a JAX_PROCESS_ID of its own (Slurm and others give all three), and reach the first "
            "over the network"
        )
    return (
        f"another process has ended, or nothing was heard of it for {SILENCE} seconds{reason}; see "
        "there why; all started again go on from here"
    )
