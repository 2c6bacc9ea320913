"""One thread that executes a recorded run again: a debugger for asynchrony.

The trace says who published when, and which versions each step used; all else follows from the seed. So steps are
computed in the order in which they were published, and a worker pulls before newer versions come than its step used.
After each step the digest of its result is compared with the recorded one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import PositiveInt

from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.digest import digest
from mbrl_async.runtime.recovery import Keeper
from mbrl_async.runtime.schedule import Schedule, role_of
from mbrl_async.runtime.state import RunState, RunSummary
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal
from mbrl_async.runtime.trace import Observer, StepRecord, name_of, read_trace
from mbrl_async.runtime.worker import Worker, WorkerMaker
from mbrl_async.types import Interrupted, StepReport

Result = TypeVar("Result")


class DeviationError(Exception):
    """A step does something else than the recorded one; the message names it."""


class Replay:
    """Executes the steps of a trace again, each by its worker, all in this thread.

    Args:
        torch_threads: role -> threads that torch may use within one operation of such a worker, as in the recorded run.
        trace: the file that holds the trace.
        until: the last step to execute: its position in the trace, 1 for the first, or `worker:index`. None: all.

    Raises:
        ValueError: the trace cannot be replayed, or has no such step.
    """

    def __init__(self, *, torch_threads: Mapping[str, PositiveInt], trace: str, until: int | str | None) -> None:
        self._torch_threads = torch_threads
        records = read_trace(Path(trace))
        _require_replayable(records, trace)
        self._records = records if until is None else records[: _position(records, until)]

    @property
    def repeats(self) -> bool:
        """Yes: the trace decides."""
        return True

    def run(
        self,
        makers: Mapping[str, WorkerMaker],
        schedule: Schedule,
        rule: StopRule,
        stop: StopSignal,
        observer: Observer,
        keeper: Keeper,
    ) -> RunSummary:
        """See `Backend`. A step that deviates is its worker's failure, with a `DeviationError`."""
        state = RunState(makers, schedule, rule, stop, observer, keeper)
        if keeper.past.entries:
            error = ValueError("A replay cannot be resumed: start it again, for it waits for no real time.")
            state.fail(keeper.past.entries[-1].record.worker, error)
        _Execution(self._records, self._torch_threads, state, stop).run(makers)
        return state.summary(state.records[-1].finish if state.records else 0.0)


def _require_replayable(records: Sequence[StepRecord], trace: str) -> None:
    if not records:
        raise ValueError(f"{trace} holds no step: that run ended before its first one, so there is nothing to replay.")
    steps: Counter[str] = Counter()
    for position, record in enumerate(records, start=1):
        steps[record.worker] += 1
        if record.digest is None:
            raise ValueError(
                f"{trace} has no digest at record {position}: it was recorded by a version that kept none; "
                "record the run anew."
            )
        if record.index != steps[record.worker]:
            raise ValueError(
                f"{trace} is damaged: record {position} is {name_of(record)}, but step {steps[record.worker]} of "
                f"{record.worker} should come; fetch the trace anew."
            )


def _position(records: Sequence[StepRecord], until: int | str) -> int:
    """The number of steps up to the one that `until` names."""
    position = _named_position(records, until) if isinstance(until, str) else until
    if position is None or not 1 <= position <= len(records):
        raise ValueError(
            f"replay.until={until} names no step of this trace, which has {len(records)}: give a position from 1 to "
            f"{len(records)}, or a worker and its step, such as {records[-1].worker}:{records[-1].index}."
        )
    return position


def _named_position(records: Sequence[StepRecord], name: str) -> int | None:
    names = [f"{record.worker}:{record.index}" for record in records]
    return names.index(name) + 1 if name in names else None


class _Execution:
    """One replay."""

    def __init__(
        self, records: Sequence[StepRecord], torch_threads: Mapping[str, int], state: RunState, stop: StopSignal
    ) -> None:
        self._records = records
        self._torch_threads = torch_threads
        self._state = state
        self._stop = stop
        self._clock = VirtualClock(stop)
        self._workers: dict[str, Worker] = {}
        self._ahead = {
            name: deque(record for record in records if record.worker == name)
            for name in sorted({record.worker for record in records})
        }
        # Steps that take time, by their starts: whose workers are busy.
        self._starts = deque(sorted((each for each in records if each.start < each.finish), key=lambda it: it.start))
        self._ready: set[str] = set()
        """Workers that have pulled for their next step."""
        self._versions: Counter[str] = Counter()
        """Channel -> newest version that was published."""

    def run(self, makers: Mapping[str, WorkerMaker]) -> None:
        """To the end of the trace, or to the first deviation."""
        for name, make in makers.items():
            self._attempt(name, self._make, name, make)
        for record, following in zip(self._records, [*self._records[1:], None], strict=True):
            if self._stop.ending is None:
                self._redo(record)
            if self._stop.ending is None and following is not None:
                self._note_who_found_nothing(record.finish, following.finish)
        self._stop.request(Ending.FINISHED)
        for name, worker in self._workers.items():
            self._attempt(name, worker.close)

    def _attempt(self, name: str, action: Callable[..., Result], *arguments: object) -> Result | None:
        """Do it with the worker's number of threads; an exception ends the run, but not the program."""
        try:
            torch.set_num_threads(self._torch_threads[role_of(name)])
            return action(*arguments)
        except Interrupted:
            pass
        except Exception as error:
            self._state.fail(name, error)
        return None

    def _make(self, name: str, make: WorkerMaker) -> None:
        self._workers[name] = make(self._clock)

    def _redo(self, record: StepRecord) -> None:
        while self._starts and self._starts[0].start < record.finish:
            begun = self._starts.popleft()
            self._state.begin(begun.worker, begun.start)
        report = self._attempt(record.worker, self._compute, record)
        if report is not None:
            for waiting in self._who_needs_what_is_newest(self._workers[record.worker].publishes):
                self._attempt(waiting.worker, self._pull, waiting)
            self._attempt(record.worker, self._publish, record, report)

    def _compute(self, record: StepRecord) -> StepReport:
        """Do a step, and compare its result with the recorded one."""
        if record.worker not in self._workers:
            raise DeviationError(f"{name_of(record)} cannot be done again: this algorithm has no such worker.")
        self._pull(record)
        self._clock.set(record.start)
        worker = self._workers[record.worker]
        report = worker.step()
        if digest(worker.result()) != record.digest:
            raise DeviationError(f"{self._position(record)} has another result than the recorded one.")
        return report

    def _pull(self, record: StepRecord) -> None:
        """Take the inputs of a step, once."""
        if record.worker in self._ready:
            return
        self._ready.add(record.worker)
        worker = self._workers[record.worker]
        if not worker.pull():
            raise DeviationError(f"{self._position(record)} found nothing to do.")
        if dict(worker.pulled) != dict(record.pulled):
            raise DeviationError(
                f"{self._position(record)} used {dict(worker.pulled)}, the recorded one {dict(record.pulled)}."
            )

    def _who_needs_what_is_newest(self, channel: str) -> list[StepRecord]:
        """The next steps that used the version of `channel` that is about to be replaced."""
        following = (ahead[0] for ahead in self._ahead.values() if ahead)
        return [record for record in following if record.pulled.get(channel) == self._versions[channel]]

    def _publish(self, record: StepRecord, report: StepReport) -> None:
        worker = self._workers[record.worker]
        self._clock.set(record.finish)
        assert record.digest is not None, "it was compared"
        self._state.finish(record.worker, record.start, record.finish, worker, report, record.digest)
        self._ready.remove(record.worker)
        self._ahead[record.worker].popleft()
        self._versions[worker.publishes] += 1

    def _note_who_found_nothing(self, now: float, until: float) -> None:
        """The trace does not hold who looked for work and found none: those who might have begun and did not."""
        for name, ahead in self._ahead.items():
            works = ahead and ahead[0].start < until
            if not works and self._state.allowed(name):
                self._state.found_nothing(name, now)

    def _position(self, record: StepRecord) -> str:
        """Such as: step 12 of learn_model (record 40 of 300)."""
        return f"{name_of(record)} (record {self._records.index(record) + 1} of the trace)"
