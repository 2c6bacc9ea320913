"""Sweeps as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run

from mbrl_async.sweeps.outcome import read_outcomes
from tests.small import FIXED_COSTS, small

MAIN = str(Path(__file__).parents[2] / "main.py")
OURS = "mbrl_async.envs.linear_quadratic.LinearQuadratic"
PARALLEL = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
FAILING_TASK = """
from mbrl_async.envs.linear_quadratic import LinearQuadratic

class Failing(LinearQuadratic):
    def advance(self, action):
        raise OSError("the cable is out")
"""


def start(directory: Path, *arguments: str, name: str = "two/by_two") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(directory), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, MAIN, "-m", *small(), *arguments, f"sweep.name={name}"],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sweep(directory: Path, *arguments: str, **name: str) -> tuple[int, str, str]:
    with start(directory, *arguments, **name) as process:
        output, errors = process.communicate(timeout=300)
        return process.returncode, output, errors


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read what the process prints until a line has the text in it."""
    assert process.stdout is not None
    assert any(text in line for line in process.stdout), f"it ended without printing {text}"


def recorded(directory: Path) -> tuple[Run, list[Run]]:
    """The parent run, and the children in the order of their jobs, and of their starts."""
    client = MlflowClient(f"sqlite:///{directory}/mlflow.db")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "sweep"]
    children = [run for run in runs if run is not parent]
    return parent, sorted(children, key=lambda run: (int(run.data.tags["job"]), run.info.start_time))


def running_in(directory: Path) -> list[str]:
    """Commands of the processes that work in a directory; Linux tells."""
    processes = [path for path in Path("/proc").glob("[0-9]*/cwd") if path.exists()]
    return [(path.parent / "cmdline").read_text() for path in processes if path.resolve() == directory]


@pytest.mark.parametrize("launcher", [(), pytest.param(PARALLEL, marks=pytest.mark.slow)], ids=["basic", "parallel"])
def test_a_two_by_two_sweep_with_jobs_that_fail(tmp_path, launcher):
    (tmp_path / "failing_task.py").write_text(FAILING_TASK)
    status, output, errors = sweep(
        tmp_path,
        *FIXED_COSTS,
        "schedule=async,sync",
        f"env._target_={OURS},failing_task.Failing",
        *launcher,
    )
    assert status == 1
    assert "OSError: the cable is out" in errors
    assert "sweep: 2 finished, 2 failed." in output
    reasons = [outcome.reason for outcome in read_outcomes(tmp_path / "multirun/two/by_two")]
    assert reasons == ["", "collect failed: OSError: the cable is out"] * 2

    parent, children = recorded(tmp_path)
    assert parent.info.status == "FAILED"
    assert [run.info.status for run in children] == ["FINISHED", "FAILED", "FINISHED", "FAILED"]
    tags = [run.data.tags for run in children]
    assert [each["job"] for each in tags] == ["0", "1", "2", "3"]
    assert [each["schedule"] for each in tags] == ["async", "async", "sync", "sync"]
    assert all(each["mlflow.parentRunId"] == parent.info.run_id for each in tags)
    assert all(each["sweep"] == "two/by_two" and each["seed"] == "0" and each["git_commit"] for each in tags)
    assert (tmp_path / "multirun/two/by_two/0/policy.safetensors").exists()
    assert running_in(tmp_path) == []


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path):
    jobs = ("seed=0,1", "pace.factor=0.5", "stop.trajectories=15")
    with start(tmp_path, *jobs) as process:
        wait_for(process, "#1 : ")
        wait_for(process, "/15 trajectories")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "sweep: 1 finished, 1 interrupted." in output
    assert "sweep.name=two/by_two" in output
    parent, children = recorded(tmp_path)
    assert [run.info.status for run in (parent, *children)] == ["KILLED", "FINISHED", "KILLED"]

    status, output, _ = sweep(tmp_path, *jobs)
    assert status == 0
    assert "sweep: 1 skipped, 1 finished." in output
    parent, children = recorded(tmp_path)
    assert [run.info.status for run in (parent, *children)] == ["FINISHED", "FINISHED", "KILLED", "FINISHED"]


@pytest.mark.slow
def test_sigterm_ends_a_parallel_sweep_with_all_its_jobs(tmp_path):
    with start(tmp_path, *PARALLEL, "seed=0,1", "stop.trajectories=1000") as process:
        wait_for(process, "/1000 trajectories")
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "sweep.name=two/by_two" in output
    parent, children = recorded(tmp_path)
    assert [run.info.status for run in (parent, *children)] == ["KILLED", "KILLED", "KILLED"]
    assert running_in(tmp_path) == []


@pytest.mark.slow
def test_a_sweep_that_goes_on_elsewhere_or_has_no_usable_name_is_refused(tmp_path):
    lock = tmp_path / "multirun/two/by_two/.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        status, _, errors = sweep(tmp_path)
    assert (status, errors) == (
        2,
        "sweep.name=two/by_two goes on in another process: wait for it, or choose another name.\n",
    )
    status, _, errors = sweep(tmp_path, name="../elsewhere")
    assert status == 2
    assert errors.startswith("sweep.name=../elsewhere cannot be used: ")
    assert not (tmp_path / "mlflow.db").exists()
