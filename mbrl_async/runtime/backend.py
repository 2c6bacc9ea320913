"""Where workers run is a value: every backend has this one method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mbrl_async.runtime.recovery import Keeper
from mbrl_async.runtime.schedule import Schedule
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.stop import StopRule, StopSignal
from mbrl_async.runtime.trace import Observer
from mbrl_async.runtime.worker import WorkerMaker


class Backend(Protocol):
    """Runs workers by a schedule until the stop rule is reached, somebody requests the end, or a worker fails."""

    @property
    def repeats(self) -> bool:
        """Whether the same workers on the same schedule give the same run every time, whatever the schedule."""

    def run(
        self,
        makers: Mapping[str, WorkerMaker],
        schedule: Schedule,
        rule: StopRule,
        stop: StopSignal,
        observer: Observer,
        keeper: Keeper,
    ) -> RunSummary:
        """Run to the end, from the end of the keeper's past on.

        A worker's exception is no exception of this method: it is in the summary.
        """
