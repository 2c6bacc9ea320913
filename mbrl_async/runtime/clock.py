"""The run's time, in the two ways in which it can pass (see `mbrl_async.types.Clock`)."""

from __future__ import annotations

import time

from mbrl_async.runtime.stop import StopSignal


class WallClock:
    """Real time; every wait ends when the run does."""

    def __init__(self, stop: StopSignal) -> None:
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

    def check(self) -> None:  # noqa: D102
        self._stop.check()


class VirtualClock:
    """Time that passes only when somebody sleeps or sets it: the clock of simulated runs and of tests."""

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop
        self._now = 0.0

    def set(self, now: float) -> None:
        """Go to `now`, forwards or (to begin another worker's step) backwards."""
        self._now = now

    def now(self) -> float:  # noqa: D102
        return self._now

    def sleep_until(self, deadline: float) -> None:  # noqa: D102
        self._stop.check()
        self._now = max(self._now, deadline)

    def check(self) -> None:  # noqa: D102
        self._stop.check()
