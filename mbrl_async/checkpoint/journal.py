"""A file that only grows: every entry with its length and its hash, so that a cut-off or altered one shows."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from mbrl_async.checkpoint.codec import CheckpointError

TITLE = b"mbrl-async journal 1\n"
LENGTH_BYTES = 8
HASH_BYTES = hashlib.sha256().digest_size

log = logging.getLogger(__name__)


class Journal:
    """Appends entries, so that they survive the death of the process at once, and that of the machine after `sync`.

    A disk that takes nothing loses nothing: entries wait in memory, and each `append` and each `sync` tries again.

    Args:
        path: the file; it is made, or shortened to its whole entries and gone on with.

    Raises:
        CheckpointError: the file is none of ours, or an entry was altered.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._unwritten = bytearray()
        self._failing = False
        whole = whole_length(path) if path.exists() else 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.ftruncate(self._file, whole)
        os.lseek(self._file, whole, os.SEEK_SET)
        sync_directory(path.parent)  # the file's name; what is in it follows with `sync`
        if whole == 0:
            self._write(TITLE)

    def append(self, entry: bytes) -> None:
        """Add an entry; never raises."""
        self._write(len(entry).to_bytes(LENGTH_BYTES, "little") + hashlib.sha256(entry).digest() + entry)

    def sync(self) -> None:
        """Bring everything onto the disk, as far as it takes it; never raises."""
        self._write(b"")
        try:
            os.fsync(self._file)
        except OSError as error:
            self._note(error, "is not brought onto the disk")
        else:
            self._failing = bool(self._unwritten)

    def close(self) -> None:
        """Bring everything onto the disk; nothing follows. Says what the disk did not take."""
        self.sync()
        with self._lock:
            os.close(self._file)
            if self._unwritten:
                log.error(
                    "%s lacks the last %d bytes, which the disk did not take: a resumed run does not know those steps.",
                    self._path,
                    len(self._unwritten),
                )

    def _write(self, data: bytes) -> None:
        with self._lock:
            self._unwritten += data
            try:
                while self._unwritten:
                    del self._unwritten[: os.write(self._file, self._unwritten)]
            except OSError as error:
                self._note(error, "takes nothing")

    def _note(self, error: OSError, what: str) -> None:
        """Say it once, until a `sync` succeeds."""
        if not self._failing:
            log.warning("The journal of the run %s at the moment (%s): it is kept and tried again.", what, error)
        self._failing = True


def entries(path: Path) -> Iterator[bytes]:
    """All whole entries, in order; one that a crash cut off at the end, or left as zeros, is left out.

    Raises:
        CheckpointError: the file is none of ours, or an entry was altered.
    """
    for entry, _ in _read(path):
        yield entry


def whole_length(path: Path) -> int:
    """Bytes of the title and all whole entries; 0 if not even the title is whole.

    Raises:
        CheckpointError: the file is none of ours, or an entry was altered.
    """
    end = len(TITLE) if path.stat().st_size >= len(TITLE) else 0
    return max([end for _, end in _read(path)], default=end)


def _read(path: Path) -> Iterator[tuple[bytes, int]]:
    """Entries, each with the position of its end."""
    with path.open("rb") as file:
        title = file.read(len(TITLE))
        if not TITLE.startswith(title):
            raise CheckpointError(f"{path} is no journal of a run: give the folder of a run.")
        number = 0
        while len(head := file.read(LENGTH_BYTES + HASH_BYTES)) == LENGTH_BYTES + HASH_BYTES:
            number += 1
            length = int.from_bytes(head[:LENGTH_BYTES], "little")
            entry = file.read(min(length, path.stat().st_size))
            if len(entry) < length:
                return
            if hashlib.sha256(entry).digest() != head[LENGTH_BYTES:]:
                if _are_lost(head + entry, file.read()):
                    return
                raise CheckpointError(
                    f"{path} was altered: entry {number} is not what was written; bring back a copy of the file, or "
                    "start a new run."
                )
            yield entry, file.tell()


def _are_lost(last: bytes, behind: bytes) -> bool:
    """Whether a power failure took the end: a file system may know how long a file is before what is in it."""
    return not behind.strip(b"\0") and (last + behind).endswith(b"\0")


def sync_directory(path: Path) -> None:
    """Bring the names in a folder onto the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
