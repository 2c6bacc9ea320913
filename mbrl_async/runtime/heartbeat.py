"""Whether workers are alive: who works looks at the clock, again and again."""

from __future__ import annotations

from contextlib import AbstractContextManager

from mbrl_async.types import Clock


class SilentWorkerError(RuntimeError):
    """A worker's thread died without a word, or does not look at the clock any more."""


class Pulse:
    """The run's clock, for one worker, that remembers when it was last looked at."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.beat = 0.0
        """In seconds on the run's clock."""

    def now(self) -> float:  # noqa: D102
        self.beat = self._clock.now()
        return self.beat

    def sleep_until(self, deadline: float) -> None:  # noqa: D102
        self._clock.sleep_until(deadline)
        self.beat = self._clock.now()

    def computing(self) -> AbstractContextManager[None]:  # noqa: D102
        return self._clock.computing()

    def check(self) -> None:  # noqa: D102
        self.beat = self._clock.now()
        self._clock.check()
