"""The command that compares, on a store with runs of which everything is known."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from mbrl_async.analysis.comparison import NothingToCompareError
from mbrl_async.compare import compare_and_print, main, read_settings
from mbrl_async.config import ConfigError
from mbrl_async.runtime.trace import Counters, StepRecord
from mbrl_async.sweeps.record import Sweep, close_sweep, open_sweep
from mbrl_async.tracking.run import MlflowRun, Status
from mbrl_async.tracking.store import experiment_id
from tests.analysis.synthetic import PARAMETERS, TAGS

EXPERIMENT = "compared"
TRAJECTORIES = 25


def record(client: MlflowClient, sweep: Sweep, job: int, schedule: str, seed: int, status: Status = "FINISHED") -> str:
    """A run in which trajectory n earns n, in async twice as much."""
    tags = {**TAGS, "schedule": schedule, "seed": str(seed), **sweep.tags(job, f"digest {job}")}
    identifier = experiment_id(client, EXPERIMENT)
    run = MlflowRun(client=client, experiment_id=identifier, name=f"{schedule} {seed}", tags=tags)
    run.log_parameters({**PARAMETERS, "seed": seed})
    for number in range(1, TRAJECTORIES + 1):
        metrics = {
            "collect/return": float(number * (2 if schedule == "async" else 1)),
            "run/trajectories": float(number),
            "improve_policy/updates": 3.0 * number,
            "share/busy_collect": 1.0,
            "staleness/policy_versions": float(number),
        }
        run.on_step(StepRecord("collect", number, 0.0, 10.0 * number, {}), metrics, Counters(env_steps=200 * number))
    run.finish(status)
    return run.run_id


@pytest.fixture(scope="module")
def sweep(client: MlflowClient) -> Sweep:
    """Two schedules and two seeds; a third seed failed."""
    made = open_sweep("two by two", client.tracking_uri, EXPERIMENT)
    for job, (schedule, seed) in enumerate([("async", 0), ("async", 1), ("sync", 0), ("sync", 1)]):
        record(client, made, job, schedule, seed)
    record(client, made, 4, "sync", 2, "FAILED")
    close_sweep(made, "FAILED")
    return made


def compared(client: MlflowClient, output: Path, *arguments: str) -> tuple[str, str]:
    """What is printed, and the Markdown."""
    screen = io.StringIO()
    settings = read_settings([f"tracking.uri={client.tracking_uri}", f"output={output}", *arguments])
    compare_and_print(settings, Console(file=screen, width=200))
    return screen.getvalue(), (output / "comparison.md").read_text()


def test_a_sweep_is_compared_and_its_run_gets_the_report(client: MlflowClient, sweep: Sweep, tmp_path: Path):
    screen, text = compared(client, tmp_path / "new", f"sweep={sweep.run_id}")
    assert "| hopper | me_trpo async | 2 | 41.0" in text, "the mean of 32, 34, ..., 50"
    assert "| hopper | me_trpo sync | 2 | 20.5" in text, "without the run that failed"
    assert "| hopper | me_trpo async | 3.00 | 1.00 | 13.00 |" in text, "updates a trajectory, busy, median staleness"
    assert "Final return" in screen
    assert "! Intervals over 2 seeds" in screen
    artifacts = {artifact.path for artifact in client.list_artifacts(sweep.run_id, "comparison")}
    assert artifacts == {f"comparison/{path.name}" for path in (tmp_path / "new").iterdir()}


@pytest.mark.usefixtures("sweep")
def test_an_experiment_a_sweep_by_name_and_the_newest_sweep_are_the_same_here(client: MlflowClient, tmp_path: Path):
    _, by_experiment = compared(client, tmp_path / "a", f"experiment={EXPERIMENT}")
    _, by_name = compared(client, tmp_path / "b", "sweep='two by two'")
    _, newest = compared(client, tmp_path / "c")
    assert by_experiment.splitlines()[1:] == by_name.splitlines()[1:]
    assert by_name == newest


def test_a_sweep_without_a_finished_run_says_so(client: MlflowClient, tmp_path: Path):
    empty = open_sweep("empty", client.tracking_uri, "empty")
    record(client, empty, 0, "sync", 0, "KILLED")
    with pytest.raises(NothingToCompareError, match="No finished run"):
        compared(client, tmp_path, "sweep=empty")
    client.delete_run(empty.run_id)  # it would be the newest sweep


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["experiment=nowhere"], "experiment=nowhere is not in sqlite.*there are "),
        (["sweep=nothing"], "sweep=nothing is neither the name of a sweep nor the id"),
        (["sweep=a", "experiment=b"], "name two things: give one of them"),
        (["experimnt=a"], "did you mean experiment?"),
        (["thresholds=[2]"], r"thresholds.0=2 .* less than or equal to 1"),
        (["thresholds=[]"], "thresholds"),
        (["confidence=95"], r"confidence=95 .* less than 1"),
        (["resamples=1"], "resamples=1 .* greater than or equal to 100"),
        (["nonsense"], "Write KEY=VALUE"),
        (["tracking.uri=mlruns"], "MLflow 3 keeps no runs in plain directories"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(client, monkeypatch, capsys, arguments, sentence):

    monkeypatch.setattr("sys.argv", ["compare", f"tracking.uri={client.tracking_uri}", *arguments])
    assert main() == 2
    assert re.search(sentence.replace("?", r"\?"), capsys.readouterr().err)


def test_a_run_of_no_sweep_is_refused(client: MlflowClient, tmp_path: Path):
    run = client.create_run(experiment_id(client, EXPERIMENT))
    with pytest.raises(ConfigError, match="is a run, but that of no sweep"):
        compared(client, tmp_path, f"sweep={run.info.run_id}")
    client.delete_run(run.info.run_id)
