"""The command that compares, on a store with runs of which everything is known."""

from __future__ import annotations

import csv
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


def record_arm(client: MlflowClient, experiment: str, schedule: str, seed: int) -> None:
    """An arm whose distance after trajectory n of 25 is 26 - n, in async half of it, and for each seed 1 cm more."""
    tags = {**TAGS, "env": "arm_reach", "schedule": schedule, "seed": str(seed)}
    name = f"{schedule} {seed}"
    run = MlflowRun(client=client, experiment_id=experiment_id(client, experiment), name=name, tags=tags)
    run.log_parameters({**PARAMETERS, "seed": seed})
    for number in range(1, TRAJECTORIES + 1):
        distance = (TRAJECTORIES + 1 - number) / (2 if schedule == "async" else 1) + seed
        metrics = {
            "collect/return": -distance,
            "collect/final_distance_cm": distance,
            "collect/success": float(number > 20),
            "run/trajectories": float(number),
        }
        run.on_step(StepRecord("collect", number, 0.0, 11.0 * number, {}), metrics, Counters(env_steps=30 * number))
    run.finish("FINISHED")


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
    assert "What explains it" not in screen, "it is too wide"
    assert "! Intervals over 2 seeds" in screen
    artifacts = {artifact.path for artifact in client.list_artifacts(sweep.run_id, "comparison")}
    assert artifacts == {f"comparison/{path.name}" for path in (tmp_path / "new").iterdir()}


def test_what_is_missing_in_a_comparison_is_told(client: MlflowClient, sweep: Sweep, tmp_path: Path):
    """Those that fail are often those that learned nothing."""
    screen, text = compared(client, tmp_path, f"sweep={sweep.run_id}")
    sentence = "1 run that is not finished is left out: sync 2 (FAILED)."
    assert f"- {sentence}" in text
    assert f"! {sentence}" in screen


def test_what_was_run_again_is_not_missing(own_store: MlflowClient, tmp_path: Path):
    again = open_sweep("again", own_store.tracking_uri, "again")
    for job, status in enumerate(("FAILED", "FINISHED")):
        record(own_store, again, job, "sync", 0, status)
    _, text = compared(own_store, tmp_path, "sweep=again")
    assert "| hopper | me_trpo sync | 1 |" in text
    assert "left out" not in text


def test_the_report_alone_becomes_artifacts_of_the_sweep(client: MlflowClient, sweep: Sweep, tmp_path: Path):
    (tmp_path / "private.txt").write_text("not for everybody")
    compared(client, tmp_path, f"sweep={sweep.run_id}")
    names = {artifact.path for artifact in client.list_artifacts(sweep.run_id, "comparison")}
    assert "comparison/comparison.html" in names
    assert "comparison/private.txt" not in names


def test_the_screen_says_one_seed_as_the_files_do(client: MlflowClient, tmp_path: Path):
    record_arm(client, "alone", "async", 0)
    screen, _ = compared(client, tmp_path, "experiment=alone")
    assert "[one seed]" in screen


@pytest.fixture(scope="module")
def arms(client: MlflowClient) -> str:
    """An experiment with two schedules and two seeds."""
    for schedule in ("async", "sync"):
        for seed in (0, 1):
            record_arm(client, "arms", schedule, seed)
    return "arms"


def numbers(folder: Path, series: str, quantity: str, statistic: str = "mean") -> dict[str, tuple[str, ...]]:
    """x -> value and ends of its interval, of the CSV."""
    with (folder / "comparison.csv").open() as file:
        rows = [each for each in csv.DictReader(file) if (each["series"], each["quantity"]) == (series, quantity)]
    return {each["x"]: (each["value"], each["low"], each["high"]) for each in rows if each["statistic"] == statistic}


def test_arms_are_also_compared_by_their_final_distance_of_which_less_is_better(
    client: MlflowClient, arms: str, tmp_path: Path
):
    """The mean over ten trajectories and both seeds is 31 - n in sync, and 15.75 - n / 2 in async."""
    given = (f"experiment={arms}", "outcomes.final_distance_cm=[10,5]")
    screen, text = compared(client, tmp_path, *given)
    assert "| arm_reach | me_trpo sync | 2 | 6.00 [5.50, 6.50] | 6.00 [5.50, 6.50] | 750 | 275 |" in text
    assert "| arm_reach | me_trpo async | 2 | 3.25 [2.75, 3.75] |" in text
    for unit, each in (("trajectories", 1.0), ("run time (s)", 11.0)):
        needs = numbers(tmp_path, "me_trpo async", f"needs ({unit})")
        value, low, high = (float(end) / each for end in needs["10.0"])
        assert (value, low, high) == (12, 11, 13)  # the trajectories that end behind 11.5, 10.5 and 12.5
        assert float(needs["5.0"][0]) / each == 22
        base = numbers(tmp_path, "me_trpo async", f"baseline needs ({unit})")
        assert float(base["10.0"][0]) / each == 21
        assert base["5.0"][0] == "inf"
        ratio = numbers(tmp_path, "me_trpo async", f"speed-up ({unit})")
        assert float(ratio["10.0"][0]) == 21 / 12
        assert ratio["5.0"][0] == "inf"
    for statistic in ("mean", "interquartile mean"):
        curve = numbers(tmp_path, "me_trpo sync", "final distance (cm)", statistic)
        assert [float(end) for end in curve["25.0"]] == pytest.approx([6.0, 5.5, 6.5])
    assert "Time and trajectories to a final distance (cm)" in screen
    assert "not reached" in text
    assert "∞" in text
    page = (tmp_path / "comparison.html").read_text()
    for axis in ("trajectories", "run time (min)"):
        assert f"arm_reach: final distance (cm) against {axis}" in page
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        "arm_reach_env_steps.svg",
        "arm_reach_seconds.svg",
        "arm_reach_final_distance_cm_trajectories.svg",
        "arm_reach_final_distance_cm_seconds.svg",
    }


def test_successes_are_compared_if_one_asks_for_them(client: MlflowClient, arms: str, tmp_path: Path):
    """They begin with trajectory 21, so that half of the last ten succeeded after trajectory 25."""
    compared(client, tmp_path, f"experiment={arms}", "outcomes.success=[0.5]")
    assert numbers(tmp_path, "me_trpo sync", "needs (trajectories)")["0.5"][0] == "25.0"


@pytest.mark.usefixtures("sweep")
def test_an_experiment_a_sweep_by_name_and_the_newest_sweep_are_the_same_here(client: MlflowClient, tmp_path: Path):
    _, by_experiment = compared(client, tmp_path / "a", f"experiment={EXPERIMENT}")
    _, by_name = compared(client, tmp_path / "b", "sweep='two by two'")
    _, newest = compared(client, tmp_path / "c")
    assert by_experiment.splitlines()[1:] == by_name.splitlines()[1:]
    assert by_name == newest


def test_kept_runs_make_the_same_comparison_without_a_store(client: MlflowClient, arms: str, tmp_path: Path):
    _, text = compared(client, tmp_path / "arms", f"experiment={arms}")
    settings = read_settings(
        ["tracking.uri=nonsense://", f"output={tmp_path / 'again'}", f"files=[{tmp_path}/arms/runs.json]"]
    )
    compare_and_print(settings, Console(file=io.StringIO()))
    assert (tmp_path / "again" / "comparison.md").read_text() == text
    for name in ("trajectories.csv", "runs.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "arms" / name).read_bytes()


def test_kept_runs_take_part_beside_others_and_count_once(
    client: MlflowClient, arms: str, sweep: Sweep, tmp_path: Path
):
    compared(client, tmp_path / "arms", f"experiment={arms}")
    files = f"files=[{tmp_path}/arms/runs.json]"
    _, both = compared(client, tmp_path / "both", f"sweep={sweep.run_id}", files)
    assert "| hopper | me_trpo async | 2 |" in both
    assert "| arm_reach | me_trpo async | 2 |" in both
    _, same = compared(client, tmp_path / "same", f"experiment={arms}", files)
    assert same == (tmp_path / "arms" / "comparison.md").read_text()


def test_a_sweep_without_a_finished_run_says_so(client: MlflowClient, tmp_path: Path):
    empty = open_sweep("empty", client.tracking_uri, "empty")
    record(client, empty, 0, "sync", 0, "KILLED")
    with pytest.raises(NothingToCompareError, match="No finished run"):
        compared(client, tmp_path, "sweep=empty")
    client.delete_run(empty.run_id)  # it would be the newest sweep


def test_kept_runs_are_not_overwritten_by_a_comparison_with_others(
    client: MlflowClient, arms: str, sweep: Sweep, tmp_path: Path
):
    compared(client, tmp_path / "arms", f"experiment={arms}")
    compared(client, tmp_path / "two", f"sweep={sweep.run_id}")
    before = (tmp_path / "arms" / "runs.json").read_bytes()
    files = f"files=[{tmp_path}/arms/runs.json,{tmp_path}/two/runs.json]"
    with pytest.raises(ConfigError, match=r"arms/runs.json would be overwritten .* choose another folder with output="):
        compared(client, tmp_path / "arms", files)
    assert (tmp_path / "arms" / "runs.json").read_bytes() == before
    compared(client, tmp_path / "arms", f"files=[{tmp_path}/arms/runs.json]")
    assert (tmp_path / "arms" / "runs.json").read_bytes() == before, "by the same runs"


@pytest.mark.usefixtures("sweep")
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
        (
            ["outcomes.final_distance=[3]"],
            r"outcomes.final_distance=\[3.0\] is no outcome .* did you mean final_distance_cm?",
        ),
        (["outcomes.height=[3]"], "there are final_distance_cm, success"),
        (["outcomes.success=[]"], "outcomes.success"),
        (["outcomes.success=[.inf]"], "outcomes.success"),
        (["resamples=1"], "resamples=1 .* greater than or equal to 100"),
        (["nonsense"], "Write KEY=VALUE"),
        (["files=[nowhere.json]"], "nowhere.json cannot be read"),
        (["files=nowhere.json"], "files=nowhere.json cannot be used"),
        (["tracking.uri=mlruns"], "MLflow 3 keeps no runs in plain directories"),
        (["thresholds=0.5,0.75"], r"thresholds=0.5,0.75 names several values: .* 'thresholds=\[0.5,0.75\]'"),
        ([f"experiment={EXPERIMENT}", "baselines=[snyc]"], "snyc is no schedule: did you mean sync?"),
        ([f"experiment={EXPERIMENT}", f"output={__file__}"], "cannot be a folder for the files .*: choose another"),
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


def test_a_job_of_a_sweep_is_no_sweep(client: MlflowClient, sweep: Sweep, tmp_path: Path):
    (job, *_) = client.search_runs([experiment_id(client, EXPERIMENT)], f"tags.sweep = '{sweep.name}'", max_results=1)
    with pytest.raises(ConfigError, match="is a run, but that of no sweep"):
        compared(client, tmp_path, f"sweep={job.info.run_id}")
