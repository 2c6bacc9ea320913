"""Faults in whole jobs: what the user is told, what is kept, and that the run can go on."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mbrl_async.algorithms.model_based import ImaginedPolicyImprovement
from mbrl_async.checkpoint.codec import decode
from mbrl_async.checkpoint.journal import entries
from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.job import ARTIFACT_SECONDS, Job, WorkerFailedError, run_job
from mbrl_async.results import read_trajectories, write_results
from mbrl_async.resume import resumed
from mbrl_async.run_folder import CHECKPOINT
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL
from mbrl_async.runtime.stop import Ending
from mbrl_async.tracking.run import PATIENCE
from mbrl_async.tracking.writer import MetricWriter
from mbrl_async.types import FloatArray
from mbrl_async.workers.collector import Collector
from mbrl_async.workers.model_learner import ModelLearner
from mbrl_async.workers.policy_learner import PolicyLearner
from tests.recordings import THREADS, no_figures
from tests.small import SMALL, composed

CHOICES = {"env": "linear_quadratic", "algorithm": "me_trpo", "schedule": "async", "backend": "threads"}
SIMULATED = ("backend=simulated", "simulated.costs.learn_model=0.6", "simulated.costs.improve_policy=0.4")
ALL = 5
"""Trajectories of a run of which nothing is lost."""
ENOUGH = 30.0
"""Seconds after which a test gives up; what it waits for takes milliseconds."""

backends = pytest.mark.parametrize("backend", [THREADS, SIMULATED], ids=["threads", "simulated"])


@pytest.fixture(autouse=True, scope="module")
def _without_figures() -> Iterator[None]:
    with no_figures():
        yield


@pytest.fixture
def start(client: MlflowClient, tmp_path: Path) -> Callable[..., float]:
    def run(*overrides: str, store: MlflowClient = client) -> float:
        overrides = (*SMALL, f"tracking.uri={store.tracking_uri}", f"tracking.experiment={tmp_path.name}", *overrides)
        return run_job(Job(composed(*overrides), overrides, CHOICES, tmp_path / "run"))

    return run


@pytest.fixture
def go_on(client: MlflowClient, tmp_path: Path) -> Callable[..., float]:
    def run(*overrides: str) -> float:
        overrides = (f"resume={tmp_path / 'run'}", f"tracking.uri={client.tracking_uri}", *overrides)
        return run_job(resumed(Job(composed(*overrides), overrides, {}, Path("unused"))))

    return run


@pytest.fixture
def the_run(client: MlflowClient, tmp_path: Path) -> Callable[..., tuple[str, int]]:
    """Status of the only run, and of how many trajectories MLflow has the return."""

    def look(store: MlflowClient = client) -> tuple[str, int]:
        (run,) = store.search_runs([store.get_experiment_by_name(tmp_path.name).experiment_id])
        return run.info.status, len(store.get_metric_history(run.info.run_id, "collect/return"))

    return look


def journaled(output: Path) -> int:
    """Trajectories in the journal of a run."""
    kept = entries(output / CHECKPOINT / "journal")
    return sum(decode(entry)["record"]["worker"] == COLLECT for entry in kept)


@pytest.mark.parametrize(
    ("name", "worker"), [(COLLECT, Collector), (LEARN_MODEL, ModelLearner), (IMPROVE_POLICY, PolicyLearner)]
)
def test_any_worker_may_raise_at_a_random_step(start, go_on, the_run, tmp_path, monkeypatch, name, worker):
    step, steps, last = worker.step, [], random.Random(name).randint(1, 4)

    def step_or_raise(self):
        steps.append(1)
        if len(steps) == last:
            raise ArithmeticError("injected")
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "step", step_or_raise)
        with pytest.raises(WorkerFailedError, match=f"^{name} failed: ArithmeticError: injected$"):
            start(*THREADS, "stop.trajectories=1000000")
    status, logged = the_run()
    kept = journaled(tmp_path / "run")
    assert (status, logged) == ("FAILED", kept)
    if kept:
        assert len(read_trajectories(tmp_path / "run" / "trajectories.safetensors")) == kept
    go_on(f"stop.trajectories={kept + 2}")
    assert the_run() == ("FINISHED", kept + 2)


class FaultyTask(LinearQuadratic):
    """Breaks at a control step of its third episode or later."""

    def __init__(self, *, horizon: int, control_period: float, fault: str) -> None:
        super().__init__(horizon=horizon, control_period=control_period)
        self._fault = fault
        self._remaining = 2 * horizon + random.Random(fault).randint(1, horizon)

    def advance(self, action: FloatArray) -> FloatArray:
        observation = super().advance(action)
        self._remaining -= 1
        if self._remaining != 0:
            return observation
        if self._fault == "raise":
            raise ConnectionError("the robot does not answer")
        return np.full(4, np.nan, np.float32) if self._fault == "not finite" else np.append(observation, np.float32(0))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("raise", "ConnectionError: the robot does not answer"),
        ("not finite", r"NonFiniteError: FaultyTask diverged at step \d+: the observation is not finite"),
        ("shape", r"ValueError: .*shape \(5,\): its spec says \(4,\)"),
    ],
)
def test_what_is_wrong_with_the_environment_is_told_and_its_trajectories_are_kept(
    start, the_run, tmp_path, fault, sentence
):
    task = "env._target_=tests.test_faults.FaultyTask"
    with pytest.raises(WorkerFailedError, match=f"^collect failed: {sentence}"):
        start(*SIMULATED, task, f"+env.fault='{fault}'")
    assert the_run() == ("FAILED", 2)
    assert len(read_trajectories(tmp_path / "run" / "trajectories.safetensors")) == 2


def after_first_trajectory(patch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do it once, when the first trajectory is there."""
    learn, done = ModelLearner.step, []

    def first_do_it(self: ModelLearner) -> object:
        if not done:
            done.append(1)
            action()
        return learn(self)

    patch.setattr(ModelLearner, "step", first_do_it)


@pytest.fixture
def trying(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set while metrics are given to MLflow and not yet taken; the writer tries again and again."""
    trying = threading.Event()
    log_batch = MlflowClient.log_batch

    def call(*arguments: object, **more: object) -> object:
        trying.set()
        taken = log_batch(*arguments, **more)
        trying.clear()
        return taken

    monkeypatch.setattr(MlflowClient, "log_batch", call)
    monkeypatch.setattr("mbrl_async.tracking.run.MetricWriter", partial(MetricWriter, interval=0.02))
    return trying


def before_results(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do it when the workers have ended, and nothing is written yet."""

    def act_and_write(*arguments: object) -> None:
        action()
        write_results(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("mbrl_async.job.write_results", act_and_write)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, trying: threading.Event) -> threading.Event:
    """While it is set, no server answers; it is set when the first trajectory is there."""
    away = threading.Event()

    def answer_unless_away(name: str) -> None:
        method = getattr(MlflowClient, name)

        def call(*arguments: object, **more: object) -> object:
            if away.is_set():
                trying.set()
                raise MlflowException("no server answers")
            return method(*arguments, **more)

        monkeypatch.setattr(MlflowClient, name, call)

    for name in ("log_batch", "log_artifact", "set_terminated"):
        answer_unless_away(name)

    after_first_trajectory(monkeypatch, away.set)
    return away


@contextmanager
def impatience() -> Iterator[None]:
    """For a store that will not answer; one that does may take longer on a busy machine."""
    with patch.dict(PATIENCE, FINISHED=0.1), patch.dict(ARTIFACT_SECONDS, {Ending.FINISHED: 0.1}):
        yield


@backends
def test_a_server_that_is_away_for_a_while_gets_everything_later(start, the_run, monkeypatch, away, trying, backend):
    def come_back() -> None:
        assert trying.wait(ENOUGH)
        away.clear()

    before_results(monkeypatch, come_back)
    start(*backend)
    assert the_run() == ("FINISHED", ALL)


def test_a_server_that_stays_away_stops_nothing_and_gets_everything_from_a_resumption(
    start, go_on, the_run, tmp_path, away, caplog
):
    with impatience():
        start(*SIMULATED)
    assert len(read_trajectories(tmp_path / "run" / "trajectories.safetensors")) == ALL
    for sentence in ("but not in MLflow (no server answers)", "metrics are lost (no server", "shows it as RUNNING"):
        assert sentence in caplog.text
    away.clear()
    status, logged = the_run()
    assert status == "RUNNING"
    assert logged < ALL
    go_on()
    assert the_run() == ("FINISHED", ALL)


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
"""


class Lock:
    """A database, which another process can be told to hold and to let go."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._process: subprocess.Popen[str] | None = None

    def hold(self) -> None:
        command = [sys.executable, "-c", LOCK, str(self._database)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "locked\n"
        with (
            closing(sqlite3.connect(self._database, timeout=0, isolation_level=None)) as connection,
            pytest.raises(sqlite3.OperationalError, match="database is locked"),
        ):
            connection.execute("BEGIN IMMEDIATE")

    def let_go(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.communicate("\n")


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lock]:
    """Another process holds the database from the first trajectory on."""
    lock = Lock(tmp_path / "mlflow.db")
    after_first_trajectory(monkeypatch, lock.hold)
    yield lock
    lock.let_go()
    for thread in threading.enumerate():
        if thread.name.startswith("mlflow-"):
            thread.join(ENOUGH)


@backends
def test_metrics_wait_while_another_process_holds_the_database(
    start, the_run, monkeypatch, own_store, lock, trying, backend
):
    def let_go() -> None:  # all trajectories are there by now: nobody has waited for the database
        assert trying.wait(ENOUGH)
        lock.let_go()

    before_results(monkeypatch, let_go)
    start(*backend, store=own_store)
    assert the_run(own_store) == ("FINISHED", ALL)


@pytest.mark.usefixtures("lock")
def test_a_database_that_is_held_for_good_costs_the_metrics_and_nothing_else(start, tmp_path, own_store, caplog):
    with impatience():
        start(*SIMULATED, store=own_store)
    assert len(read_trajectories(tmp_path / "run" / "trajectories.safetensors")) == ALL
    for sentence in ("but not in MLflow (no answer in", "metrics are lost (", "shows it as RUNNING (no answer in"):
        assert sentence in caplog.text


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in a program of its own: the processes of parallel tests are made to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@backends
def test_a_second_interruption_ends_at_once_and_what_was_kept_can_go_on(
    start, go_on, the_run, tmp_path, monkeypatch, backend
):
    improve = ImaginedPolicyImprovement.improve
    usual, over = signal.getsignal(signal.SIGINT), threading.Event()

    def interrupt_twice(self, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        while signal.getsignal(signal.SIGINT) is not usual:  # until the first has been heard
            threading.Event().wait(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(ENOUGH)  # a step that nobody wants to wait for
        return improve(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ImaginedPolicyImprovement, "improve", interrupt_twice)
        # What is asserted below has to reach the store, however busy the machine is.
        patch.setattr("mbrl_async.tracking.run.PATIENCE", dict.fromkeys(("FINISHED", "FAILED", "KILLED"), ENOUGH / 2))
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            start(*backend, "stop.trajectories=1000000")
        assert time.monotonic() - began < ENOUGH
        over.set()
    assert not (tmp_path / "run" / "trajectories.safetensors").exists(), "it did not take the time to write results"
    kept = journaled(tmp_path / "run")
    assert kept >= 1
    assert the_run() == ("KILLED", kept)
    go_on(f"stop.trajectories={kept + 2}")
    assert the_run() == ("FINISHED", kept + 2)
