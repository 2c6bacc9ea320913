"""What a later process needs to go on with a run: a journal of every step, and now and then a snapshot.

The journal is the truth. A snapshot only shortens the way: whoever has the state of all workers at some position of the
journal, and the steps after it, gets to the end by doing these steps again (`mbrl_async.runtime.redo`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from mbrl_async.runtime.trace import Counters, StepRecord
from mbrl_async.types import Metrics, State


@dataclass(frozen=True)
class InFlight:
    """A step that has begun: when, in seconds on the run's clock, and with which versions."""

    start: float
    pulled: Mapping[str, int]


@dataclass(frozen=True)
class Books:
    """Where a run is after a step: all that its trace does not tell."""

    counters: Counters
    progress: State
    shares: State
    in_flight: Mapping[str, InFlight]
    """Worker -> its step, in the order in which they began."""


@dataclass(frozen=True)
class Entry:
    """One finished step in the journal."""

    record: StepRecord
    metrics: Metrics
    books: Books
    worker: State | None
    """The worker's state after a step in the real system, which cannot be done again; its inputs are left out."""

    def state_dict(self) -> State:
        """The entry as nested dictionaries; no copy, because nobody changes an entry."""
        books = self.books
        return {
            "record": asdict(self.record),
            "metrics": self.metrics,
            "books": {
                "counters": asdict(books.counters),
                "progress": books.progress,
                "shares": books.shares,
                "in_flight": {worker: asdict(step) for worker, step in books.in_flight.items()},
            },
            "worker": self.worker,
        }

    @classmethod
    def from_state_dict(cls, state: State) -> Entry:
        """The inverse of `state_dict`."""
        books = state["books"]
        in_flight = {worker: InFlight(**step) for worker, step in books["in_flight"].items()}
        return cls(
            record=StepRecord(**state["record"]),
            metrics=state["metrics"],
            books=Books(Counters(**books["counters"]), books["progress"], books["shares"], in_flight),
            worker=state["worker"],
        )


@dataclass(frozen=True)
class Snapshot:
    """All workers when the journal had `position` entries."""

    position: int
    workers: Mapping[str, State]
    in_flight: Mapping[str, float]
    """Start of the steps of those whose state was taken between pull and step; the others were between two steps."""


@dataclass(frozen=True)
class Past:
    """What there was of a run before this process."""

    entries: Sequence[Entry] = ()
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(0, {}, {}))
    """The channels of parameters hold already what they held then; a stream knows how much of it was delivered."""


class Keeper(Protocol):
    """Keeps a run for a later process. Called under the lock of a backend: must return at once and never raise."""

    @property
    def past(self) -> Past:
        """What was kept before this run began; empty for a new one, and when the first step is appended."""

    def append(self, entry: Entry) -> None:
        """Add a step to the journal."""

    def should_snapshot(self, counters: Counters) -> bool:
        """Whether it is time for the next snapshot."""

    def save(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, together with what the channels hold now."""


class Forgetful:
    """Keeps nothing."""

    past = Past()

    def append(self, entry: Entry) -> None:
        """Forget it."""

    def should_snapshot(self, counters: Counters) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def save(self, snapshot: Snapshot) -> None:
        """Forget it."""
