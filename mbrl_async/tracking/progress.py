"""How far a run is, in the numbers that a person wants to see."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mbrl_async.runtime.trace import Counters, StepRecord
from mbrl_async.types import WINDOW, Metrics


@dataclass(frozen=True)
class Limits:
    """Where the run ends: at the first that is reached. None: no limit."""

    trajectories: int | None
    env_steps: int | None
    seconds: float | None

    def share_done(self, counters: Counters) -> float:
        """How much of the run is done, from 0 to 1."""
        shares = [
            done / limit
            for done, limit in (
                (counters.trajectories, self.trajectories),
                (counters.env_steps, self.env_steps),
                (counters.seconds, self.seconds),
            )
            if limit is not None
        ]
        return min(1.0, max(shares, default=0.0))


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment."""

    counters: Counters
    steps: Mapping[str, int]
    """Worker -> steps so far, in the order in which the workers began."""
    inputs: Mapping[str, tuple[str, ...]]
    """Worker -> the channels that its last step used."""
    metrics: Mapping[str, float]
    """The newest value of each metric."""
    returns: tuple[float, ...]
    """Of the last `WINDOW` trajectories, the newest last."""

    @property
    def mean_return(self) -> float | None:
        """Of the last `WINDOW` trajectories; None before the first."""
        return sum(self.returns) / len(self.returns) if self.returns else None

    @property
    def time_ratio(self) -> float | None:
        """Run time / collection time when the newest trajectory ended; None before the first."""
        return self.metrics.get("run/time_ratio")

    def per_trajectory(self, metric: str) -> float | None:
        """A cumulative metric divided by the trajectories; None if either is missing."""
        if metric not in self.metrics or not self.counters.trajectories:
            return None
        return self.metrics[metric] / self.counters.trajectories


class Progress:
    """An `Observer` that remembers the newest numbers for whoever draws them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for microseconds: neither side computes or prints in it
        self._counters = Counters()
        self._steps: Counter[str] = Counter()
        self._inputs: dict[str, tuple[str, ...]] = {}
        self._metrics: Metrics = {}
        self._returns: deque[float] = deque(maxlen=WINDOW)

    def on_step(self, record: StepRecord, metrics: Metrics, counters: Counters) -> None:
        """Remember a step."""
        with self._lock:
            self._counters = counters
            self._steps[record.worker] += 1
            self._inputs[record.worker] = tuple(record.pulled)
            self._metrics.update(metrics)
            if "collect/return" in metrics:
                self._returns.append(metrics["collect/return"])

    def snapshot(self) -> Snapshot:
        """The newest numbers."""
        with self._lock:
            return Snapshot(
                self._counters, dict(self._steps), dict(self._inputs), dict(self._metrics), tuple(self._returns)
            )


class RemainingTime:
    """Estimates when a run will be done, from the share that was done since this was made.

    Args:
        now: gives seconds.
        share: of the run that was done by then, before it was resumed.
    """

    def __init__(self, now: Callable[[], float], share: float = 0.0) -> None:
        self._now = now
        self._start = self._changed = now()
        self._first = self._share = share

    def update(self, share: float) -> None:
        """`share` of the run, from 0 to 1, is done."""
        if share != self._share:
            self._share = share
            self._changed = self._now()

    def seconds(self) -> float | None:
        """Seconds until the end if the run goes on as fast as since this was made; None while nothing was done."""
        if self._share == self._first:
            return None
        at_last_change = (self._changed - self._start) * (1 - self._share) / (self._share - self._first)
        return max(0.0, at_last_change - (self._now() - self._changed))
