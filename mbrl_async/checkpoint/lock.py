"""One process a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mbrl_async.checkpoint.codec import CheckpointError

LOCK_FILE = "lock"
"""Held by the process that runs; the operating system lets go of it if that process dies."""


@contextmanager
def only_process(directory: Path) -> Iterator[None]:
    """Hold the folder in which a run is kept.

    Raises:
        CheckpointError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CheckpointError(
            f"{directory} is in use by another process: wait for its end, or end it; or, for a new run beside it, "
            "choose another folder with hydra.run.dir=..."
        ) from error
    try:
        yield
    finally:
        lock.release()
