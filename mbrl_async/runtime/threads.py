"""The default backend: a thread a worker, in real time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from mbrl_async.runtime.concurrent import Concurrent
from mbrl_async.runtime.recovery import Keeper
from mbrl_async.runtime.schedule import Schedule
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.stop import StopRule, StopSignal
from mbrl_async.runtime.trace import Observer
from mbrl_async.runtime.worker import WorkerMaker


class Threads:
    """Runs each worker in a thread of its own.

    Args:
        torch_threads: role -> threads that torch may use within one operation of such a worker.
        hang_seconds: a worker that does not look at the clock for so long in a step has failed; None: it may. All look
            far more often than once a second, except while a task or a robot answers, and in an update without a model.
        learner_niceness: how much lower the operating system ranks learners than collectors, which have deadlines (0:
            equal; Linux only).
    """

    def __init__(
        self,
        *,
        torch_threads: Mapping[str, PositiveInt],
        learner_niceness: Annotated[int, Field(ge=0, le=19)],
        hang_seconds: PositiveFloat | None,
    ) -> None:
        self._concurrent = Concurrent(
            torch_threads=torch_threads, learner_niceness=learner_niceness, hang_seconds=hang_seconds
        )

    @property
    def repeats(self) -> bool:
        """No: which thread comes first is the operating system's choice."""
        return False

    def run(
        self,
        makers: Mapping[str, WorkerMaker],
        schedule: Schedule,
        rule: StopRule,
        stop: StopSignal,
        observer: Observer,
        keeper: Keeper,
    ) -> RunSummary:
        """See `Backend`."""
        return self._concurrent.run(makers, schedule, rule, stop, observer, keeper)
