"""The run's time, in the two ways in which it can pass (see `mbrl_async.types.Clock`)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from mbrl_async.runtime.stop import Stop, StopSignal

MEASURED = "measured"
Cost = float | str
"""Seconds that a computation lasts on a virtual clock: a number, or `MEASURED`, the computing time that it takes."""


class WallClock:
    """Real time; every wait ends when the run does."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._origin = time.perf_counter()

    def start(self, now: float = 0.0) -> None:
        """Make this moment second `now`, which is where a resumed run was."""
        self._origin = time.perf_counter() - now

    def now(self) -> float:  # noqa: D102
        return time.perf_counter() - self._origin

    def sleep_until(self, deadline: float) -> None:  # noqa: D102
        remaining = deadline - self.now()
        if remaining > 0:
            self._stop.wait(remaining)
        self._stop.check()

    def computing(self) -> AbstractContextManager[None]:
        """Real time passes by itself."""
        return nullcontext()

    def check(self) -> None:  # noqa: D102
        self._stop.check()


class VirtualClock:
    """Time that passes only when somebody sleeps, computes or sets it: the clock of simulated runs and of tests."""

    def __init__(self, stop: StopSignal, computing_cost: Cost = 0.0) -> None:
        """`computing_cost`: of what workers compute within `computing`, each time."""
        self._stop = stop
        self._computing_cost = computing_cost
        self._now = 0.0

    def set(self, now: float) -> None:
        """Go to `now`, forwards or (to begin another worker's step) backwards."""
        self._now = now

    def now(self) -> float:  # noqa: D102
        return self._now

    def sleep_until(self, deadline: float) -> None:  # noqa: D102
        self._stop.check()
        self._now = max(self._now, deadline)

    @contextmanager
    def computing(self) -> Iterator[None]:  # noqa: D102
        started = time.thread_time()
        yield
        cost = self._computing_cost
        self._now += time.thread_time() - started if isinstance(cost, str) else cost

    def check(self) -> None:  # noqa: D102
        self._stop.check()
