"""A thread a worker, in real time: the loop of every backend whose workers run at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, Queue

import torch

from mbrl_async.priority import lower_priority
from mbrl_async.runtime.clock import WallClock
from mbrl_async.runtime.gate import Gate
from mbrl_async.runtime.heartbeat import Pulse, SilentWorkerError
from mbrl_async.runtime.recovery import Keeper, Past
from mbrl_async.runtime.redo import go_on
from mbrl_async.runtime.schedule import COLLECT, Schedule, role_of
from mbrl_async.runtime.state import RunState, RunSummary
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal
from mbrl_async.runtime.trace import Observer
from mbrl_async.runtime.worker import Worker, WorkerMaker
from mbrl_async.types import Interrupted, StepReport

POLL_SECONDS = 0.1
"""How often the main thread looks for a signal or the end of the allowed seconds."""
PAUSE_SECONDS = 5.0
"""If it did not look for so long, the whole process stood still: stopped by a signal or a debugger, on a machine that
slept.
"""
GRACE_SECONDS = 1.4
"""How long workers may take to leave their step when the run is over. They look far more often, but for an update of
TRPO or PPO on very many samples.
"""


class Wakefulness:
    """Since when the process has not stood still: a worker that could not look at its clock does not hang."""

    def __init__(self) -> None:
        self._since = self._last = 0.0

    def since(self, now: float) -> float:
        """To be asked far more often than every `PAUSE_SECONDS`; seconds on the same clock as `now`."""
        if now - self._last > PAUSE_SECONDS:
            self._since = now
        self._last = now
        return self._since


@dataclass(frozen=True)
class _Computed:
    start: float
    report: StepReport


class Concurrent:
    """Runs each worker, or what stands for it, in a thread of its own.

    Args:
        torch_threads: role -> threads that torch may use within one operation in the thread of such a worker.
        learner_niceness: how much lower the operating system ranks the learners' threads than a collector's.
        hang_seconds: a worker that does not look at the clock for so long in a step has failed; None: it may.
        lost: why a worker cannot go on, be it in a step or not; None: it can. Asked again and again.
    """

    def __init__(
        self,
        *,
        torch_threads: Mapping[str, int],
        learner_niceness: int,
        hang_seconds: float | None,
        lost: Callable[[str], Exception | None] = lambda _: None,
    ) -> None:
        self._hang_seconds = hang_seconds
        self._torch_threads = torch_threads
        self._learner_niceness = learner_niceness
        self._lost = lost

    def run(
        self,
        makers: Mapping[str, WorkerMaker],
        schedule: Schedule,
        rule: StopRule,
        stop: StopSignal,
        observer: Observer,
        keeper: Keeper,
    ) -> RunSummary:
        """See `Backend`. The clock starts when every worker is made, and has done again what it has to."""
        clock = WallClock(stop)
        state = RunState(makers, schedule, rule, stop, observer, keeper)
        gate = Gate(state, clock, stop)
        made: Queue[tuple[str, Worker]] = Queue()
        pulses = {name: Pulse(clock) for name in makers}
        threads = [
            threading.Thread(target=self._work, args=(name, make, gate, pulses[name], made), name=name, daemon=True)
            for name, make in makers.items()
        ]
        for thread in threads:
            thread.start()
        workers = _wait_until_made(len(threads), made, stop)
        if stop.ending is None:
            self._resume({name: workers[name] for name in makers}, keeper.past, state, clock, gate)
        gate.open()
        wakefulness = Wakefulness()
        _wait_for_the_end(
            rule, clock, stop, lambda: self._fail_who_cannot_go_on(threads, pulses, clock, gate, wakefulness)
        )
        now = clock.now()
        gate.close()
        return state.summary(now, _join(threads, clock))

    def _resume(self, workers: Mapping[str, Worker], past: Past, state: RunState, clock: WallClock, gate: Gate) -> None:
        """Go to where the past ended; what was in flight there is published at once, a trajectory given up."""

        def step_again(name: str, start: float) -> _Computed:
            torch.set_num_threads(self._torch_threads[role_of(name)])
            return _Computed(start, workers[name].step())

        threads = torch.get_num_threads()
        collectors = [name for name in workers if role_of(name) == COLLECT]
        try:
            begun = go_on(workers, past, state, step_again, gate.fail, dropped=collectors)
        except Interrupted:
            begun = {}
        clock.start(past.entries[-1].record.finish if past.entries else 0.0)
        for name, step in begun.items():
            try:
                gate.finish(name, step.start, workers[name], step.report)
            except Exception as error:
                gate.fail(name, error)
        torch.set_num_threads(threads)

    def _work(self, name: str, make: WorkerMaker, gate: Gate, clock: Pulse, made: Queue[tuple[str, Worker]]) -> None:
        with _told_to(gate, name):
            self._prepare_thread(name)
            with closing(make(clock)) as worker:
                made.put((name, worker))
                with _told_to(gate, name):  # before the worker is closed, which may take long, or fail as well
                    _do_steps(name, worker, gate, clock)

    def _fail_who_cannot_go_on(
        self,
        threads: list[threading.Thread],
        pulses: Mapping[str, Pulse],
        clock: WallClock,
        gate: Gate,
        wakefulness: Wakefulness,
    ) -> None:
        limit = float("inf") if self._hang_seconds is None else self._hang_seconds
        awake_since = wakefulness.since(clock.now())
        for thread in threads:
            begun, lost = gate.begun(thread.name), self._lost(thread.name)
            if lost is not None:
                gate.fail(thread.name, lost)
            elif not thread.is_alive():
                gate.fail(thread.name, SilentWorkerError("its thread ended, and nobody told it to."))
            elif begun is not None and clock.now() - max(begun, pulses[thread.name].beat, awake_since) > limit:
                sentence = f"it has not looked at the clock for {limit:g} s (backend.hang_seconds): it hangs."
                gate.fail(thread.name, SilentWorkerError(sentence))

    def _prepare_thread(self, name: str) -> None:
        # The first question of a thread resets its number to what another thread set last: ask before setting it.
        torch.get_num_threads()
        torch.set_num_threads(self._torch_threads[role_of(name)])
        if role_of(name) != COLLECT:
            lower_priority(self._learner_niceness)


def _do_steps(name: str, worker: Worker, gate: Gate, clock: Pulse) -> None:
    while gate.enter(name, worker):
        start = clock.now()
        if worker.pull():
            gate.has_pulled(name, start, worker)
            gate.finish(name, start, worker, worker.step())
        else:
            gate.found_nothing(name)


@contextmanager
def _told_to(gate: Gate, name: str) -> Iterator[None]:
    """An exception of the worker ends the run."""
    try:
        yield
    except Interrupted:
        pass
    except BaseException as error:  # a SystemExit, too: nobody else would hear of it in this thread
        gate.fail(name, error)


def _wait_until_made(count: int, made: Queue[tuple[str, Worker]], stop: StopSignal) -> dict[str, Worker]:
    """The workers by name, unless the run ends before all of them are made."""
    workers: dict[str, Worker] = {}
    while len(workers) < count and stop.ending is None:
        with suppress(Empty):
            name, worker = made.get(timeout=POLL_SECONDS)
            workers[name] = worker
    return workers


def _wait_for_the_end(rule: StopRule, clock: WallClock, stop: StopSignal, watch: Callable[[], None]) -> None:
    limit = float("inf") if rule.seconds is None else rule.seconds
    while stop.ending is None:
        remaining = limit - clock.now()
        if remaining <= 0:
            stop.request(Ending.FINISHED)
        else:
            stop.wait(min(POLL_SECONDS, remaining))
            watch()
    stop.request(stop.ending)  # wakes workers that sleep, also after a signal


def _join(threads: list[threading.Thread], clock: WallClock) -> tuple[str, ...]:
    """Wait for the threads, within reason; the names of those that did not come."""
    deadline = clock.now() + GRACE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - clock.now()))
    return tuple(thread.name for thread in threads if thread.is_alive())
