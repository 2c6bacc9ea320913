"""Keeps a run in its folder while it goes on."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mbrl_async.checkpoint.codec import decode, encode
from mbrl_async.checkpoint.journal import Journal, entries
from mbrl_async.checkpoint.snapshots import SavedSnapshot, SnapshotFolder
from mbrl_async.priority import lower_priority
from mbrl_async.runtime.recovery import Entry, Past, Snapshot
from mbrl_async.runtime.trace import Counters
from mbrl_async.types import State

JOURNAL_FILE = "journal"
SNAPSHOTS_FOLDER = "snapshots"

SYNC_SECONDS = 1.0
"""Time between two looks at what there is to write."""

CLOSE_SECONDS = 0.2
"""Longest wait, at the end of a run, for a snapshot that is being written: the next start removes half a one."""

log = logging.getLogger(__name__)


def forget(directory: Path) -> None:
    """Remove what was kept there."""
    (directory / JOURNAL_FILE).unlink(missing_ok=True)
    shutil.rmtree(directory / SNAPSHOTS_FOLDER, ignore_errors=True)


class Saved(Protocol):
    """What the channels of a run have in common."""

    def state_dict(self) -> State:
        """What they hold now."""

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""


class RunKeeper:
    """A `Keeper` that writes each step at once into a journal, and snapshots in the background.

    Args:
        directory: the run's, for the journal and the snapshots; what it holds already is the past.
        channels: of the run; they are given what they held in the past.
        every_trajectories: a snapshot after so many, or
        every_seconds: after so many seconds, whichever comes first; None: not for this reason.
        keep: how many snapshots.
        now: seconds, of a clock that never goes back.

    Raises:
        CheckpointError: the journal was altered.
    """

    def __init__(
        self,
        *,
        directory: Path,
        channels: Saved,
        every_trajectories: int | None,
        every_seconds: float | None,
        keep: int,
        now: Callable[[], float],
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._channels = channels
        self._every_trajectories = every_trajectories
        self._every_seconds = every_seconds
        self._now = now
        self._snapshots = SnapshotFolder(directory / SNAPSHOTS_FOLDER, keep)
        self._journal = Journal(directory / JOURNAL_FILE)
        self.past: Past = self._load(directory / JOURNAL_FILE)
        self._trajectories = self.past.entries[-1].books.counters.trajectories if self.past.entries else 0
        self._time = now()
        self._unsaved: SavedSnapshot | None = None
        self._failing = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint-writer", daemon=True)
        self._thread.start()

    def append(self, entry: Entry) -> None:
        """See `Keeper`. The entry survives the process when this returns."""
        self.past = Past()  # whoever adds to it has taken it up; some 5 kB a step need not stay for hours
        self._journal.append(encode(entry.state_dict()))

    def should_snapshot(self, counters: Counters) -> bool:
        """See `Keeper`."""
        now = self._now()
        by_trajectories = _reached(counters.trajectories - self._trajectories, self._every_trajectories)
        if not by_trajectories and not _reached(now - self._time, self._every_seconds):
            return False
        self._trajectories, self._time = counters.trajectories, now
        return True

    def save(self, snapshot: Snapshot) -> None:
        """See `Keeper`. A snapshot that still waits to be written is replaced."""
        self._unsaved = SavedSnapshot(snapshot, self._channels.state_dict())

    def close(self) -> None:
        """End the background; nothing follows. A snapshot that waits is dropped: the journal has every step."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)
        self._journal.close()

    def _load(self, journal: Path) -> Past:
        kept = [Entry.from_state_dict(decode(entry)) for entry in entries(journal)]
        saved = self._snapshots.newest(len(kept))
        if saved is None:
            return Past(kept)
        self._channels.load_state_dict(saved.channels)
        return Past(kept, saved.snapshot)

    def _run(self) -> None:
        lower_priority()
        while not self._closing.wait(SYNC_SECONDS):
            self._save_what_waits()

    def _save_what_waits(self) -> None:
        """A snapshot, if there is one; before it, the journal, which must never be behind a snapshot."""
        saved, self._unsaved = self._unsaved, None
        self._journal.sync()
        if saved is None:
            return
        try:
            self._snapshots.save(saved)
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.warning("The snapshot of the run cannot be written (%s); the next one is tried again.", error)
            self._failing = True


def _reached(value: float, limit: float | None) -> bool:
    return limit is not None and value >= limit
