"""Whether workers are alive: who works looks at the clock, again and again."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from mbrl_async.types import Clock

NAP_SECONDS = 0.1
"""Who sleeps for longer looks at the clock so often, so that a long sleep is not taken for the end."""


class SilentWorkerError(RuntimeError):
    """A worker's thread died without a word, or does not look at the clock any more."""


class LostWorkerError(SilentWorkerError):
    """A worker's process is gone."""


class Pulse:
    """The run's clock, for one worker, that remembers when it was last looked at.

    Args:
        clock: the run's.
        memory: where it remembers that, float64 (1,); None: of its own.
    """

    def __init__(self, clock: Clock, memory: NDArray[np.float64] | None = None) -> None:
        self._clock = clock
        self._memory = np.zeros(1) if memory is None else memory

    @property
    def beat(self) -> float:
        """When it was last looked at, in seconds on the run's clock."""
        return float(self._memory[0])

    def now(self) -> float:  # noqa: D102
        now = self._clock.now()
        self._memory[0] = now
        return now

    def sleep_until(self, deadline: float) -> None:  # noqa: D102
        while (nap := self.now() + NAP_SECONDS) < deadline:
            self._clock.sleep_until(nap)
        self._clock.sleep_until(deadline)
        self.now()

    def computing(self) -> AbstractContextManager[None]:  # noqa: D102
        return self._clock.computing()

    def check(self) -> None:  # noqa: D102
        self.now()
        self._clock.check()
