"""A process a worker, in real time: for learners that leave Python's lock to nobody else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from multiprocessing import resource_tracker
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from mbrl_async.runtime.concurrent import Concurrent
from mbrl_async.runtime.recovery import Keeper
from mbrl_async.runtime.schedule import COLLECT, Schedule, role_of
from mbrl_async.runtime.stand_in import StandIn
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal
from mbrl_async.runtime.trace import Observer
from mbrl_async.runtime.worker import WorkerMaker

LEAVE_SECONDS = 0.2
"""How long processes may take to end by themselves after their workers are closed: whoever is killed loses nothing."""

DEATH_SECONDS: Mapping[Ending, float] = {Ending.FINISHED: 3.0, Ending.FAILED: 3.0, Ending.KILLED: 0.6}
"""How long all that are killed may take to die; an interrupted run has to end within five seconds in all."""


class Processes:
    """Runs each worker in a process of its own, for which a thread stands in this one.

    So books, checkpoints and trace are those of `Threads`. Makers must be such as can be pickled.

    Args:
        torch_threads: role -> threads that torch may use within one operation of such a worker.
        hang_seconds: a worker that does not look at the clock for so long in a step has failed, and its process is
            killed; None: it may.
        learner_niceness: how much lower the operating system ranks the learners' processes than collectors', which
            have deadlines (0: equal; Linux only).
    """

    def __init__(
        self,
        *,
        torch_threads: Mapping[str, PositiveInt],
        learner_niceness: Annotated[int, Field(ge=0, le=19)],
        hang_seconds: PositiveFloat | None,
    ) -> None:
        self._torch_threads = torch_threads
        self._learner_niceness = learner_niceness
        self._hang_seconds = hang_seconds

    @property
    def repeats(self) -> bool:
        """No: which process comes first is the operating system's choice."""
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
        """See `Backend`. No process is left when it returns."""
        resource_tracker.ensure_running()  # else the first thread that starts a process does, and unblocks its signals
        stand_ins = {name: self._stand_in(name, make, stop) for name, make in makers.items()}
        concurrent = Concurrent(
            torch_threads=dict.fromkeys(map(role_of, makers), 1),  # these threads wait, and copy what they are brought
            learner_niceness=0,
            hang_seconds=self._hang_seconds,
            lost=lambda name: stand_ins[name].lost(),
        )
        stands = {name: stand_in.make for name, stand_in in stand_ins.items()}
        try:
            return concurrent.run(stands, schedule, rule, stop, observer, keeper)
        finally:
            deadline = time.monotonic() + LEAVE_SECONDS
            for stand_in in stand_ins.values():
                stand_in.end(max(0.0, deadline - time.monotonic()))
            deadline = time.monotonic() + DEATH_SECONDS[stop.ending or Ending.FAILED]  # they die at the same time
            for stand_in in stand_ins.values():
                stand_in.bury(max(0.0, deadline - time.monotonic()))

    def _stand_in(self, name: str, make: WorkerMaker, stop: StopSignal) -> StandIn:
        role = role_of(name)
        niceness = 0 if role == COLLECT else self._learner_niceness
        return StandIn(name, make, self._torch_threads[role], niceness, stop)
