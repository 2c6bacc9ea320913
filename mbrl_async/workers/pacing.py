"""Control steps in real time."""

from __future__ import annotations

from mbrl_async.types import Clock


class Pacer:
    """Waits for deadlines that are one control period apart.

    Each deadline counts from the previous one, so lateness does not add up. Who is late by more than a period has
    missed a deadline: that is counted, and the deadlines start again from there.
    """

    def __init__(self, clock: Clock, period: float) -> None:
        """`period` in seconds; 0: every deadline is now, and nothing can be late."""
        self._clock = clock
        self._period = period
        self._deadline = clock.now()
        self.lateness: list[float] = []
        """Seconds by which each wait ended after its deadline."""
        self.misses = 0

    def wait(self) -> None:
        """Wait for the next deadline."""
        if self._period == 0:
            self._deadline = self._clock.now()
        self._deadline += self._period
        self._clock.sleep_until(self._deadline)
        late = self._clock.now() - self._deadline if self._period > 0 else 0.0
        self.lateness.append(late)
        if late > self._period:
            self.misses += 1
            self._deadline += late
