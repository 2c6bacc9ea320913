"""Workers in processes of their own: that they are what they would be in threads, and that none is left behind.

What processes share with all backends is in `tests/contracts`; most of it is slow for them.
"""

from __future__ import annotations

import logging
import logging.handlers
import math
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mbrl_async.runtime.heartbeat import LostWorkerError, SilentWorkerError
from mbrl_async.runtime.processes import Processes
from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL, WORKERS, Schedule
from mbrl_async.runtime.simulated import Simulated
from mbrl_async.runtime.stand_in import WorkerProcessError
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal
from mbrl_async.runtime.trace import StepRecord
from mbrl_async.runtime.worker import WorkerMaker
from mbrl_async.types import StepReport
from tests.runtime.fakes import FakeCollector, FakeModelLearner, FakePolicyLearner, Making, Recorder, Wires, fake_makers

ROOT = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")
SYNC = Schedule(warm_up=[], cycle=[{COLLECT: 3}, {LEARN_MODEL: 200}, {IMPROVE_POLICY: 4}])
ALONE = Schedule(warm_up=[], cycle=[{COLLECT: math.inf}])
THREADS = {COLLECT: 1, LEARN_MODEL: 3, IMPROVE_POLICY: 2}
NICENESS = 5
PERIOD = 0.002
HANG_SECONDS = 0.3
TOLD_WITHIN = 5.0


def run(
    makers: dict[str, WorkerMaker],
    schedule: Schedule = ALONE,
    *,
    trajectories: int = 10_000,
    hang_seconds: float | None = None,
    stop: StopSignal | None = None,
    then: Callable[[StepRecord], None] = lambda record: None,
) -> tuple[RunSummary, Recorder]:
    backend = Processes(torch_threads=THREADS, learner_niceness=NICENESS, hang_seconds=hang_seconds)
    recorder, rule = Recorder(then), StopRule(trajectories, None, None)
    return backend.run(makers, schedule, rule, stop or StopSignal(), recorder, Forgetful()), recorder


def in_shared_memory() -> set[str]:
    return {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.exists() else set()


def seen() -> dict[str, float]:
    """What a step says of where it is."""
    logging.getLogger("tests.elsewhere").warning("from process %d", os.getpid())
    precision = float(torch.get_float32_matmul_precision() == "high")
    return {
        "process": os.getpid(),
        "torch_threads": torch.get_num_threads(),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "high_precision": precision,
    }


class SeeingCollector(FakeCollector):
    def step(self) -> StepReport:
        report = super().step()
        return StepReport(report.metrics | seen(), 1, report.env_steps, report.collection_seconds)


class SeeingModelLearner(FakeModelLearner):
    def step(self) -> StepReport:
        return StepReport(super().step().metrics | seen())


class SeeingPolicyLearner(FakePolicyLearner):
    def step(self) -> StepReport:
        return StepReport(super().step().metrics | seen())


@pytest.fixture(scope="module")
def sync() -> tuple[RunSummary, Recorder, Wires, set[str], list[str]]:
    """One run for many questions: summary, observer, wires, what was new in shared memory afterwards, and the log."""
    wires, before, logged = Wires(), in_shared_memory(), logging.handlers.BufferingHandler(10_000)
    makers = {
        COLLECT: Making(SeeingCollector, wires, (PERIOD,)),
        LEARN_MODEL: Making(SeeingModelLearner, wires, (3,)),
        IMPROVE_POLICY: Making(SeeingPolicyLearner, wires),
    }
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    logging.getLogger("tests.elsewhere").addHandler(logged)
    try:
        summary, recorder = run(makers, SYNC, trajectories=9)
    finally:
        torch.set_float32_matmul_precision(precision)
        logging.getLogger("tests.elsewhere").removeHandler(logged)
    return summary, recorder, wires, in_shared_memory() - before, [each.getMessage() for each in logged.buffer]


def test_sync_is_the_run_that_simulated_makes(sync):
    summary, _, wires, _, _ = sync
    other = Wires()
    simulated = Simulated(torch_threads=dict.fromkeys(WORKERS, 1), costs={LEARN_MODEL: 0.5, IMPROVE_POLICY: 0.25})
    rule = StopRule(9, None, None)
    reference = simulated.run(fake_makers(other), SYNC, rule, StopSignal(), Recorder(), Forgetful())

    def trace(of: RunSummary) -> list[tuple[str, int, dict[str, int], str | None]]:
        return [(record.worker, record.index, dict(record.pulled), record.digest) for record in of.records]

    assert summary.ending is Ending.FINISHED
    assert trace(summary) == trace(reference)
    assert wires.trajectories.history == other.trajectories.history == list(range(1, 10))
    assert wires.received.history == other.received.history
    for mine, theirs in ((wires.models, other.models), (wires.policies, other.policies)):
        mine_newest, theirs_newest = mine.get(), theirs.get()
        assert mine_newest is not None
        assert theirs_newest is not None
        assert mine_newest.version == theirs_newest.version
        for name, tensor in mine_newest.parameters.items():
            assert torch.equal(tensor, theirs_newest.parameters[name])


def test_each_worker_is_in_a_process_of_its_own_with_its_own_settings(sync):
    of = {record.worker: metrics for record, metrics, _ in sync[1].steps}
    processes = {of[worker][f"{worker}/process"] for worker in WORKERS}
    assert len(processes | {os.getpid()}) == 4
    own = os.getpriority(os.PRIO_PROCESS, 0)
    for worker in WORKERS:
        assert of[worker][f"{worker}/torch_threads"] == THREADS[worker]
        assert of[worker][f"{worker}/high_precision"] == 1.0
        assert of[worker][f"{worker}/niceness"] == min(19, own + (0 if worker == COLLECT else NICENESS))


def test_every_worker_is_closed_once_and_nothing_is_left_behind(sync):
    summary, recorder, wires, left, _ = sync
    assert sorted(wires.closed.history) == sorted(WORKERS)
    assert summary.unresponsive == ()
    assert left == set()
    processes = {int(m[f"{r.worker}/process"]) for r, m, _ in recorder.steps}
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_what_workers_log_is_logged_in_the_process_of_the_run(sync):
    _, recorder, _, _, logged = sync
    assert sorted(logged) == sorted(f"from process {m[f'{r.worker}/process']}" for r, m, _ in recorder.steps)


class Private(Exception):  # noqa: N818
    """Cannot be pickled."""

    def __reduce__(self) -> str:
        raise TypeError("not for others")


class FailingCollector(FakeCollector):
    def step(self) -> StepReport:
        raise Private("the robot fell")


class UnansweredCollector(FakeCollector):
    def step(self) -> StepReport:
        raise ConnectionResetError("the robot does not answer")


class SecretiveCollector(FakeCollector):
    def step(self) -> StepReport:
        return StepReport({"return": lambda: 1.0})  # type: ignore[dict-item]


def failure_of(collector: type[FakeCollector]) -> BaseException:
    summary, _ = run({COLLECT: Making(collector, Wires(), (PERIOD,))})
    assert summary.ending is Ending.FAILED
    assert summary.failure is not None
    assert summary.failure.worker == COLLECT
    return summary.failure.error


def test_an_exception_that_cannot_travel_is_told_in_words_with_its_stack():
    error = failure_of(FailingCollector)
    assert isinstance(error, WorkerProcessError)
    assert str(error) == "Private: the robot fell"
    (stack,) = error.__notes__
    assert stack.startswith("In the process of collect:\nTraceback")
    assert 'raise Private("the robot fell")' in stack


@pytest.mark.slow
def test_a_lost_robot_is_not_taken_for_a_lost_process():
    error = failure_of(UnansweredCollector)
    assert isinstance(error, ConnectionResetError)
    assert str(error) == "the robot does not answer"


@pytest.mark.slow
def test_a_report_that_cannot_travel_is_an_error_of_its_worker():
    assert "pickle" in str(failure_of(SecretiveCollector))


class DyingCollector(FakeCollector):
    def step(self) -> StepReport:
        if self.count == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step()


def test_a_process_that_is_killed_in_a_step_ends_the_run_in_a_sentence():
    died = []
    summary, _ = run(
        {COLLECT: Making(DyingCollector, Wires(), (PERIOD,))}, then=lambda record: died.append(time.monotonic())
    )
    assert time.monotonic() - died[0] < TOLD_WITHIN
    assert summary.counters.trajectories == 1
    assert summary.failure is not None
    assert summary.failure.worker == COLLECT
    assert isinstance(summary.failure.error, LostWorkerError)
    assert "its process was killed by SIGKILL; a system does so when memory is short" in str(summary.failure.error)


def process_of(worker: str) -> multiprocessing.process.BaseProcess:
    (process,) = (each for each in multiprocessing.active_children() if each.name == f"mbrl-async {worker}")
    return process


def test_a_process_that_is_killed_while_its_worker_waits_ends_the_run_in_a_sentence():
    wires, killed = Wires(), []

    def kill(record: StepRecord) -> None:
        if record.index == 2:
            process_of(LEARN_MODEL).kill()
            killed.append(time.monotonic())

    makers = fake_makers(wires, period=0.05)
    del makers[IMPROVE_POLICY]
    schedule = Schedule(warm_up=[], cycle=[{COLLECT: 1000}, {LEARN_MODEL: 1}])
    summary, _ = run(makers, schedule, then=kill)
    assert time.monotonic() - killed[0] < TOLD_WITHIN
    assert summary.failure is not None
    assert summary.failure.worker == LEARN_MODEL
    assert "killed by SIGKILL" in str(summary.failure.error)
    assert wires.closed.history == [COLLECT]


class HangingCollector(FakeCollector):
    """Its first step is long, but looks at the clock; the second hangs."""

    def step(self) -> StepReport:
        if self.count == 1:
            time.sleep(600)
        until = time.monotonic() + 3 * HANG_SECONDS
        while time.monotonic() < until:
            self.clock.check()
        return super().step()


def test_a_process_that_hangs_is_noticed_and_killed():
    pids = []
    summary, recorder = run(
        {COLLECT: Making(HangingCollector, Wires(), (PERIOD,))},
        hang_seconds=HANG_SECONDS,
        then=lambda record: pids.append(process_of(COLLECT).pid),
    )
    assert len(recorder.steps) == 1
    assert summary.failure is not None
    assert isinstance(summary.failure.error, SilentWorkerError)
    assert "has not looked at the clock for 0.3 s (backend.hang_seconds)" in str(summary.failure.error)
    assert summary.unresponsive == (COLLECT,)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


class SlowingCollector(FakeCollector):
    """From its second step on it sleeps for minutes."""

    def step(self) -> StepReport:
        if self.count == 1:
            self.period = 600.0
        return super().step()


class TalkingCollector(FakeCollector):
    """In its second step it says for minutes what it does, far more often than anybody asks."""

    def step(self) -> StepReport:
        until = self.clock.now() + (600.0 if self.count == 1 else 0.0)
        while self.clock.now() < until:
            logging.getLogger("tests.elsewhere").warning("it moves")
            self.clock.sleep_until(self.clock.now() + PERIOD)
        return super().step()


@pytest.mark.parametrize("collector", [SlowingCollector, TalkingCollector])
def test_the_end_wakes_a_process_that_sleeps_or_talks(collector):
    wires, stop, stopped = Wires(), StopSignal(), []

    def interrupt(_: StepRecord) -> None:
        stopped.append(time.monotonic())
        stop.interrupt()

    wires.policies.put({"value": torch.ones(1)})
    summary, _ = run({COLLECT: Making(collector, wires, (PERIOD,))}, stop=stop, then=interrupt)
    assert time.monotonic() - stopped[0] < TOLD_WITHIN
    assert summary.ending is Ending.KILLED
    assert summary.unresponsive == ()
    assert wires.closed.history == [COLLECT]


def test_a_run_that_ends_before_its_processes_have_begun_does_not_wait_for_them():
    stop = StopSignal()
    stop.interrupt()
    began = time.monotonic()
    summary, _ = run(fake_makers(Wires()), SYNC, stop=stop)
    assert time.monotonic() - began < TOLD_WITHIN
    assert summary.ending is Ending.KILLED
    assert not [each for each in multiprocessing.active_children() if each.name.startswith("mbrl-async")]


def test_a_maker_that_cannot_travel_fails_the_run_and_names_its_worker():
    summary, _ = run({COLLECT: lambda clock: FakeCollector(Wires(), clock, PERIOD)})
    assert summary.failure is not None
    assert summary.failure.worker == COLLECT
    assert "its maker cannot go to another process" in str(summary.failure.error)


class AnnouncingCollector(FakeCollector):
    def step(self) -> StepReport:
        print(os.getpid(), flush=True)  # noqa: T201
        time.sleep(600)
        return super().step()


RUN_UNTIL_KILLED = """
from tests.runtime.fakes import Making, Wires
from tests.runtime.test_processes import COLLECT, AnnouncingCollector, run
if __name__ == "__main__":
    run({COLLECT: Making(AnnouncingCollector, Wires(), (0.002,))})
"""


@pytest.mark.slow
def test_processes_die_with_the_process_of_the_run_also_in_a_step_that_hangs():
    before = in_shared_memory()
    with subprocess.Popen(
        [sys.executable, "-c", RUN_UNTIL_KILLED], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = os.pidfd_open(int(process.stdout.readline()))  # it becomes readable when the process ends
        process.kill()
    ended, _, _ = select.select([child], [], [], TOLD_WITHIN)
    os.close(child)
    assert ended, "the child lives on"
    assert in_shared_memory() <= before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_at_once_ends_the_run_in_order(tmp_path, number):
    """As the terminal sends Ctrl-C."""
    announcing = "env._target_=benchmarks.announcing_task.AnnouncingHalfCheetah"
    overrides = [announcing, "env=half_cheetah", "backend=processes", f"hydra.run.dir={tmp_path / 'run'}"]
    with subprocess.Popen(
        [sys.executable, "main.py", *overrides, f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        while "the first control step begins" not in process.stdout.readline():
            pass
        began = time.monotonic()
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < TOLD_WITHIN
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert (tmp_path / "run" / "trace.jsonl").exists()
