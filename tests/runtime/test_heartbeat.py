"""A worker that says nothing any more ends the run, in a stated time and with a sentence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.concurrent import GRACE_SECONDS, Concurrent, Wakefulness
from mbrl_async.runtime.gate import Gate
from mbrl_async.runtime.heartbeat import Pulse, SilentWorkerError
from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL, WORKERS, Schedule
from mbrl_async.runtime.state import RunState, RunSummary
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal
from mbrl_async.runtime.threads import Threads
from mbrl_async.runtime.worker import Worker, WorkerMaker
from mbrl_async.types import Clock, StepReport
from tests.runtime.fakes import FakeCollector, Recorder, Wires, fake_makers

SCHEDULE = Schedule(warm_up=[], cycle=[{COLLECT: 1}, {LEARN_MODEL: 1}, {IMPROVE_POLICY: 1}])
RULE = StopRule(3, None, None)
HANG_SECONDS = 0.3


def run(hang_seconds: float | None = HANG_SECONDS, **waits: Callable[[Clock], object]) -> RunSummary:
    """A run in which the named workers wait in each step."""
    wires = Wires()
    backend = Threads(torch_threads=dict.fromkeys(WORKERS, 1), learner_niceness=0, hang_seconds=hang_seconds)
    makers = fake_makers(wires, period=0.002)
    makers |= {name: waiting(makers[name], wait) for name, wait in waits.items()}
    return backend.run(makers, SCHEDULE, RULE, StopSignal(), Recorder(), Forgetful())


def waiting(make: WorkerMaker, wait: Callable[[Clock], object]) -> WorkerMaker:
    def made(clock: Clock) -> Worker:
        worker = make(clock)
        step = worker.step

        def wait_and_step() -> StepReport:
            wait(clock)
            return step()

        worker.step = wait_and_step  # type: ignore[method-assign]
        return worker

    return made


@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_that_hangs_fails_the_run_in_time(worker):
    over = threading.Event()
    began = time.monotonic()
    summary = run(**{worker: lambda _: over.wait(60)})
    over.set()
    assert summary.ending is Ending.FAILED
    assert summary.failure is not None
    assert summary.failure.worker == worker
    assert isinstance(summary.failure.error, SilentWorkerError)
    assert "has not looked at the clock for 0.3 s (backend.hang_seconds)" in str(summary.failure.error)
    assert summary.unresponsive == (worker,)
    # 20 s for a machine that is busy with other things.
    assert time.monotonic() - began < HANG_SECONDS + GRACE_SECONDS + 20


def compute(clock: Clock) -> None:
    """As learners do, which ask the clock for nothing but whether the run is over."""
    until = time.monotonic() + 2 * HANG_SECONDS
    while time.monotonic() < until:
        clock.check()


def keep_periods(clock: Clock) -> None:
    """As collectors do, which sleep from deadline to deadline."""
    began = clock.now()
    for period in range(1, 21):
        clock.sleep_until(began + period * HANG_SECONDS / 10)


def reset(clock: Clock) -> None:
    """As a collector does whose robot takes long to go back to its start."""
    clock.sleep_until(clock.now() + 3 * HANG_SECONDS)


@pytest.mark.parametrize(("worker", "wait"), [(LEARN_MODEL, compute), (COLLECT, keep_periods), (COLLECT, reset)])
def test_a_step_may_take_long_if_it_looks_at_the_clock(worker, wait):
    assert run(**{worker: wait}).ending is Ending.FINISHED


@pytest.mark.parametrize("close", [lambda: threading.Event().wait(3 * HANG_SECONDS), lambda: {}["closing fails, too"]])
def test_a_worker_whose_closing_takes_long_or_fails_ends_the_run_with_its_first_exception(close):
    def make(clock: Clock) -> Worker:
        worker = FakeCollector(Wires(), clock, 0.002)
        worker.step = lambda: {}["the cause"]  # type: ignore[method-assign]
        worker.close = close  # type: ignore[method-assign]
        return worker

    backend = Threads(torch_threads=dict.fromkeys(WORKERS, 1), learner_niceness=0, hang_seconds=HANG_SECONDS)
    makers = fake_makers(Wires(), period=0.002) | {COLLECT: make}
    summary = backend.run(makers, SCHEDULE, RULE, StopSignal(), Recorder(), Forgetful())
    assert summary.failure is not None
    assert repr(summary.failure.error) == "KeyError('the cause')"


def test_without_a_limit_nobody_hangs():
    over = threading.Event()
    assert run(None, learn_model=lambda _: over.wait(0.2)).ending is Ending.FINISHED


def test_a_thread_that_dies_without_a_word_fails_the_run(monkeypatch):
    work = Concurrent._work

    def die(self, name, make, gate, clock, made):
        if name == LEARN_MODEL:
            made.put((name, make(clock)))
        else:
            work(self, name, make, gate, clock, made)

    monkeypatch.setattr(Concurrent, "_work", die)
    summary = run()
    assert summary.failure is not None
    assert summary.failure.worker == LEARN_MODEL
    assert "its thread ended" in str(summary.failure.error)


def test_a_process_that_stood_still_begins_to_watch_anew():
    wakefulness = Wakefulness()
    looks = [0.1, 0.2, 4.9, 70.0, 70.1, 75.0, 81.0]
    assert [wakefulness.since(now) for now in looks] == [0.0, 0.0, 0.0, 70.0, 70.0, 70.0, 81.0]


def test_a_worker_whose_process_stood_still_does_not_hang():
    """Only seconds after the process goes on, if the worker still says nothing, is that the worker's fault."""
    stop, over = StopSignal(), threading.Event()
    clock = VirtualClock(stop)
    state = RunState([COLLECT], Schedule(warm_up=[], cycle=[{COLLECT: 1}]), RULE, stop, Recorder(), Forgetful())
    gate, pulse, wakefulness = Gate(state, clock, stop), Pulse(clock), Wakefulness()
    concurrent = Concurrent(torch_threads={COLLECT: 1}, learner_niceness=0, hang_seconds=HANG_SECONDS)
    thread = threading.Thread(target=over.wait, name=COLLECT, daemon=True)
    thread.start()
    gate.open()
    assert gate.enter(COLLECT, FakeCollector(Wires(), clock, 1.0))
    endings = []
    for now in (0.1, 0.2, 70.0, 70.2, 70.4):
        clock.set(now)
        concurrent._fail_who_cannot_go_on([thread], {COLLECT: pulse}, clock, gate, wakefulness)
        endings.append(stop.ending)
    over.set()
    assert endings == [None, None, None, None, Ending.FAILED]
