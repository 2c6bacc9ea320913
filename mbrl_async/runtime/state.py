"""The state of a run, the same for every backend: progress in the schedule, counters, trace, staleness and shares."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from mbrl_async.runtime.cut import Cut
from mbrl_async.runtime.recovery import Books, Entry, InFlight, Keeper, Past
from mbrl_async.runtime.schedule import COLLECT, Progress, Schedule, role_of
from mbrl_async.runtime.shares import Shares
from mbrl_async.runtime.staleness import Staleness
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal
from mbrl_async.runtime.trace import Counters, Observer, StepRecord
from mbrl_async.runtime.worker import Worker
from mbrl_async.types import INPUTS, Metrics, State, StepReport


@dataclass(frozen=True)
class WorkerFailure:
    """The exception that ended a run, and whose it was."""

    worker: str
    error: BaseException


@dataclass(frozen=True)
class RunSummary:
    """How a run ended and what happened in it."""

    ending: Ending
    counters: Counters
    records: list[StepRecord]
    """Every step that counted, in the order in which they finished."""
    failure: WorkerFailure | None = None
    unresponsive: tuple[str, ...] = ()
    """Workers that were still in a step when the run was given up."""
    caught_up: bool = True
    """Whether channels hold all that the records tell of; not if a resumed run ended before its past was done again."""


class RunState:
    """Keeps the books of one run of `workers`. Not thread-safe: a concurrent backend guards it with a lock."""

    def __init__(
        self,
        workers: Collection[str],
        schedule: Schedule,
        rule: StopRule,
        stop: StopSignal,
        observer: Observer,
        keeper: Keeper,
    ) -> None:
        self._schedule = schedule
        self._progress = schedule.start()
        self._rule = rule
        self._stop = stop
        self._observer = observer
        self._keeper = keeper
        self._cut = Cut(workers)
        self._begun: dict[str, float] = {}
        self._in_flight: dict[str, InFlight] = {}
        self._shares = Shares(workers)
        self._staleness = Staleness()
        self._steps = dict.fromkeys(workers, 0)
        self._collectors = [role_of(worker) for worker in workers].count(COLLECT)
        self._failure: WorkerFailure | None = None
        self._caught_up = not keeper.past.entries
        self.counters = Counters()
        self.records: list[StepRecord] = []

    def allowed(self, worker: str) -> bool:
        """Whether the schedule lets `worker` begin a step now."""
        return worker in self._schedule.allowed(self._progress)

    def resume(self, past: Past, channels: Mapping[str, str]) -> None:
        """Take over the books of a past that is not empty; `channels` says where each worker publishes."""
        for entry in past.entries:
            record = entry.record
            self.records.append(record)
            self._steps[record.worker] = record.index
            self._staleness.publish(channels[record.worker], record.finish)
        books = past.entries[-1].books
        self.counters = books.counters
        self._progress = Progress.from_state_dict(books.progress)
        self._shares.load_state_dict(books.shares)
        for worker in books.in_flight:
            self._wait(worker)

    def has_caught_up(self) -> None:
        """The past is done again."""
        self._caught_up = True

    def begin(self, worker: str, now: float) -> None:
        """`worker` begins to pull."""
        self._shares.advance(now)
        self._shares.set(worker, "busy")
        self._cut.drop(worker)
        self._begun[worker] = now

    def begun(self, worker: str) -> float | None:
        """When `worker` began the step that it is in; None between two steps."""
        return self._begun.get(worker)

    def has_pulled(self, worker: str, start: float, pulled: Mapping[str, int]) -> None:
        """The step that `worker` began at `start` works with these versions."""
        self._in_flight[worker] = InFlight(start, dict(pulled))

    def state_is_wanted(self, worker: str) -> bool:
        """Whether a snapshot of the run waits for the state of `worker`."""
        return self._cut.lacks(worker)

    def keep_state(self, worker: str, state: State) -> None:
        """Take the state of `worker`, which is between pull and step, or in no step."""
        step = self._in_flight.get(worker)
        self._cut.put(worker, state, None if step is None else step.start)
        snapshot = self._cut.completed(len(self.records))
        if snapshot is not None:
            self._keeper.save(snapshot)

    def found_nothing(self, worker: str, now: float) -> None:
        """`worker` pulled and had nothing to do."""
        self._shares.advance(now)
        self._begun.pop(worker, None)
        self._progress = self._schedule.after(self._progress, worker, idle=True)
        self._wait(worker)

    def finish(self, worker: str, start: float, now: float, step: Worker, report: StepReport, digest: str) -> None:
        """Publish and record a step of `worker`, unless the run ended while it ran.

        `digest` is that of the step's result: it takes milliseconds, so it is computed before a lock is taken.
        """
        self._shares.advance(now)
        self._cut.drop(worker)
        self._begun.pop(worker, None)
        self._in_flight.pop(worker, None)
        if self._stop.ending is not None:
            self._wait(worker)
            return
        step.push()
        self._steps[worker] += 1
        record = StepRecord(worker, self._steps[worker], start, now, dict(step.pulled), digest)
        self.records.append(record)
        self._staleness.publish(step.publishes, now)
        self._count(record, report)
        self._progress = self._schedule.after(self._progress, worker, idle=False)
        self._wait(worker)
        metrics = self._metrics(record, report)
        self._keep(record, metrics, step if report.trajectories else None)
        self._observer.on_step(record, metrics, self.counters)
        self.end_if_reached()

    def fail(self, worker: str, error: BaseException) -> None:
        """`worker` raised: that ends the run, unless it is over anyway."""
        if self._stop.ending is None:
            self._failure = WorkerFailure(worker, error)
            self._stop.request(Ending.FAILED)

    def summary(self, now: float, unresponsive: tuple[str, ...] = ()) -> RunSummary:
        """What remains of the run when it has ended, `now`.

        Raises:
            RuntimeError: nobody ended it.
        """
        if self._stop.ending is None:
            raise RuntimeError("A run that goes on has no summary: request its end first.")
        counters = replace(self.counters, seconds=now)
        return RunSummary(self._stop.ending, counters, list(self.records), self._failure, unresponsive, self._caught_up)

    def _keep(self, record: StepRecord, metrics: Metrics, acted: Worker | None) -> None:
        """Add the step to the journal, with the state of a worker that `acted` in the real system."""
        state = None if acted is None else {key: value for key, value in acted.state_dict().items() if key != INPUTS}
        shares, progress = self._shares.state_dict(), self._progress.state_dict()
        books = Books(self.counters, progress, shares, dict(self._in_flight))
        self._keeper.append(Entry(record, metrics, books, state))
        if self._keeper.should_snapshot(self.counters):
            self._cut.want()

    def end_if_reached(self) -> None:
        """End the run if its stop rule says so."""
        if self._rule.reached(self.counters):
            self._stop.request(Ending.FINISHED)

    def _count(self, record: StepRecord, report: StepReport) -> None:
        self.counters = Counters(
            trajectories=self.counters.trajectories + report.trajectories,
            env_steps=self.counters.env_steps + report.env_steps,
            seconds=record.finish,
            collection_seconds=self.counters.collection_seconds + report.collection_seconds / max(1, self._collectors),
        )

    def _wait(self, worker: str) -> None:
        """`worker` is in no step now; for the others who wait, the reason may have changed, too."""
        self._shares.set(worker, "blocked")
        for each in self._steps:
            if not self._shares.busy(each):
                self._shares.set(each, "idle" if each in self._progress.idle else "blocked")

    def _metrics(self, record: StepRecord, report: StepReport) -> Metrics:
        role, worker = role_of(record.worker), record.worker
        metrics = {f"{role}/{name}": value for name, value in report.metrics.items()}
        metrics |= self._staleness.metrics(record.pulled, record.finish)
        if worker != role:  # one of several: beside what is of all, what is of this one
            metrics |= {f"{worker}/{name}": value for name, value in report.metrics.items()}
            metrics |= self._staleness.metrics(record.pulled, record.finish, suffix=f"_{worker}")
        if report.trajectories:
            metrics |= self._run_metrics() | self._shares.metrics()
        return metrics

    def _run_metrics(self) -> Metrics:
        counters = self.counters
        metrics = {
            "run/trajectories": float(counters.trajectories),
            "run/env_steps": float(counters.env_steps),
            "run/seconds": counters.seconds,
            "run/collection_seconds": counters.collection_seconds,
        }
        if counters.collection_seconds > 0:
            metrics["run/time_ratio"] = counters.seconds / counters.collection_seconds
        return metrics
