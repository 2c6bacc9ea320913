"""A consistent snapshot of workers that nobody stops."""

from __future__ import annotations

from collections.abc import Collection

from mbrl_async.runtime.recovery import Snapshot
from mbrl_async.types import State


class Cut:
    """Collects one state of each worker until all of them hold at the same moment.

    A state that was taken between pull and step holds until the step is finished: whoever loads it does that step. One
    that was taken between two steps holds until the next begins. So each worker takes its own state, in its own time
    and only while a snapshot is wanted; the snapshot is complete at the latest when the longest step of that time is
    over. Not thread-safe: guarded by the lock that guards the books.
    """

    def __init__(self, workers: Collection[str]) -> None:
        self._workers = frozenset(workers)
        self._states: dict[str, State] = {}
        self._in_flight: dict[str, float] = {}
        self._wanted = False

    def want(self) -> None:
        """Begin to collect."""
        self._wanted = True

    def lacks(self, worker: str) -> bool:
        """Whether the state of `worker` is wanted."""
        return self._wanted and worker not in self._states

    def put(self, worker: str, state: State, start: float | None) -> None:
        """Take a state; `start` is that of the step that `worker` is in, None between two steps."""
        self._states[worker] = state
        if start is not None:
            self._in_flight[worker] = start

    def drop(self, worker: str) -> None:
        """`worker` goes on: its state does not hold any more."""
        self._states.pop(worker, None)
        self._in_flight.pop(worker, None)

    def completed(self, position: int) -> Snapshot | None:
        """The snapshot, once, when the journal has `position` entries; None while a state is missing."""
        if not self._wanted or self._workers - self._states.keys():
            return None
        snapshot = Snapshot(position, self._states, self._in_flight)
        self._states, self._in_flight, self._wanted = {}, {}, False
        return snapshot
