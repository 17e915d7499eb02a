"""Who writes models into a folder does so alone."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax


@contextmanager
def alone(folder: Path, work: str) -> Iterator[None]:
    """Holds a lock of the operating system, which ends with the process; OSError if another process
    does the same `work` in the folder.

    Of several processes that work together the first holds it.  A disk that knows no locks has
    none.
    """
    if jax.process_index() > 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{work}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"another {work} is going on in {folder}: wait for its end, or choose another --out"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        yield
