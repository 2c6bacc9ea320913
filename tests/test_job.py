"""Whole jobs on a small task: what they leave in MLflow and in files, however they end."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from safetensors.torch import load_file

from mbrl_async.algorithms.model_based import ImaginedPolicyImprovement
from mbrl_async.config import ConfigError
from mbrl_async.job import Job, WorkerFailedError, run_job
from mbrl_async.results import read_trajectories
from mbrl_async.runtime.trace import read_trace
from tests.small import FEW_STEPS, FIXED_COSTS, composed, options, small

CHOICES = {"env": "linear_quadratic", "algorithm": "me_trpo", "schedule": "async", "backend": "simulated"}
PUBLISHES = {"learn_model": "model", "improve_policy": "policy"}
METRICS_DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"


@pytest.fixture
def job(own_store: MlflowClient, tmp_path: Path) -> Callable[..., Job]:
    def make(*overrides: str) -> Job:
        uri = f"tracking.uri={own_store.tracking_uri}"
        return Job(composed(uri, *small(*overrides)), overrides, CHOICES, tmp_path / "output")

    return make


def only_run(tmp_path: Path) -> tuple[MlflowClient, Run]:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    return client, run


def test_a_finished_job_leaves_everything(job, tmp_path, capsys):
    score = run_job(job(*FIXED_COSTS))
    client, run = only_run(tmp_path)
    output = tmp_path / "output"

    assert run.info.status == "FINISHED"
    assert run.info.run_name == "async seed 0 linear_quadratic me_trpo"
    assert run.data.params["dynamics.ensemble.members"] == "2"
    assert "sweep.name" not in run.data.params
    assert run.data.tags["schedule"] == "async"
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    files = {"config.yaml", "overrides.txt", "environment.json", "trace.jsonl", "figures"}
    learned = {"policy.safetensors", "model.safetensors", "trajectories.safetensors"}
    assert artifacts == files | learned
    assert {path.name for path in output.iterdir()} == artifacts | {"checkpoint"}
    assert all(path.stat().st_size > 10_000 for path in (output / "figures").iterdir())

    trajectories = read_trajectories(output / "trajectories.safetensors")
    returns = [metric.value for metric in client.get_metric_history(run.info.run_id, "collect/return")]
    assert returns == [trajectory.undiscounted_return for trajectory in trajectories]
    assert score == pytest.approx(sum(returns) / len(returns))
    trace = read_trace(output / "trace.jsonl")
    assert [record.pulled["policy"] for record in trace if record.worker == "collect"] == [
        trajectory.policy_version for trajectory in trajectories
    ]
    assert "torch" in json.loads((output / "environment.json").read_text())["packages"]

    screen = re.sub(r"\s+", "", capsys.readouterr().out)
    assert "therunreacheditsstoprule" in screen
    assert "mlflowui--backend-store-uri" in screen
    assert f"/#/experiments/{run.info.experiment_id}/runs?" in screen


@pytest.mark.usefixtures("without_figures")
def test_what_else_is_in_the_folder_is_left_alone_but_for_another_runs_results(job, tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    for name in ("private.txt", "policy.safetensors"):
        (output / name).touch()
    run_job(job(*FIXED_COSTS, "algorithm=mb_mpc"))  # leaves no policy
    client, run = only_run(tmp_path)
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert "model.safetensors" in artifacts
    assert not artifacts & {"private.txt", "policy.safetensors", "checkpoint"}
    assert (output / "private.txt").exists()


@pytest.mark.usefixtures("without_figures")
def test_metrics_have_true_env_steps_and_the_runs_clock(job, tmp_path):
    run_job(job(*FIXED_COSTS))
    client, run = only_run(tmp_path)
    history = client.get_metric_history(run.info.run_id, "run/seconds")
    assert [metric.step for metric in history] == [20, 40, 60, 80, 100]
    for metric in history:
        seconds = (metric.timestamp - run.info.start_time) / 1000
        assert seconds == pytest.approx(metric.value, abs=0.002), "timestamps are in whole milliseconds"


def documented(algorithm: str) -> set[str]:
    """The metrics that docs/metrics.md promises for an algorithm: those of its workers, and of what they publish."""
    names, of = set(), {algorithm}
    for line in METRICS_DOCUMENT.read_text().splitlines():
        if line.startswith("## "):
            of = {algorithm}
        elif line.startswith("Of ") and line.endswith(" alone:"):
            of = set(re.findall(r"`algorithm=(\w+)`", line))
        elif (name := re.match(r"\| `([^`]+)`", line)) and algorithm in of:
            names.add(name[1])
    absent = set(PUBLISHES) - set(composed(f"algorithm={algorithm}").algorithm.workers)
    others = [f"{worker}/|share/.*_{worker}$|staleness/{PUBLISHES[worker]}_" for worker in absent]
    return {name for name in names if not any(re.match(other, name) for other in others)}


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("algorithm", options("algorithm"))
def test_every_metric_is_documented_and_every_documented_metric_is_logged(job, tmp_path, algorithm):
    run_job(job(*FIXED_COSTS, "schedule=sync", *FEW_STEPS, f"algorithm={algorithm}"))
    _, run = only_run(tmp_path)
    assert set(run.data.metrics) == documented(algorithm)


@pytest.mark.usefixtures("without_figures")
def test_several_collectors_have_the_documented_metrics_together_and_each(job, tmp_path):
    """Also the number of trajectories is exactly that of the stop rule, though it is none of whole turns."""
    run_job(job(*FIXED_COSTS, "collectors=2"))
    client, run = only_run(tmp_path)
    together = documented("me_trpo")
    of_each = {
        name
        for collector in ("collect_0", "collect_1")
        for each in together
        for name in (
            each.replace("collect/", f"{collector}/") if each.startswith("collect/") else "",
            f"{each}{collector.removeprefix('collect')}" if re.match(r"share/\w+_collect$", each) else "",
            f"{each}_{collector}" if each.startswith("staleness/policy_") else "",
        )
        if name
    }
    assert set(run.data.metrics) == together | of_each

    def history(name: str) -> list[float]:
        return [metric.value for metric in client.get_metric_history(run.info.run_id, name)]

    returns = [each.undiscounted_return for each in read_trajectories(tmp_path / "output/trajectories.safetensors")]
    assert history("collect/return") == returns
    assert len(returns) == 5
    whose = [each.worker for each in read_trace(tmp_path / "output/trace.jsonl") if "collect" in each.worker]
    for collector in ("collect_0", "collect_1"):
        own = [value for value, worker in zip(returns, whose, strict=True) if worker == collector]
        assert own
        assert history(f"{collector}/return") == own
    assert history("run/env_steps")[-1] == 100


@pytest.mark.usefixtures("without_figures")
def test_a_failing_worker_is_named_and_the_run_is_failed_with_all_it_had(job, tmp_path, monkeypatch):
    improve = ImaginedPolicyImprovement.improve

    def fail_later(self, policy, *arguments):
        if float(policy.log_std.detach().sum()) != 0.0:  # after the first update
            raise ArithmeticError("no more")
        return improve(self, policy, *arguments)

    monkeypatch.setattr(ImaginedPolicyImprovement, "improve", fail_later)
    with pytest.raises(WorkerFailedError, match="improve_policy failed: ArithmeticError: no more") as failure:
        run_job(job(*FIXED_COSTS))
    assert isinstance(failure.value.__cause__, ArithmeticError)
    client, run = only_run(tmp_path)
    assert run.info.status == "FAILED"
    assert "trajectories.safetensors" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("number", "backend"),
    [(signal.SIGINT, ("backend=simulated",)), (signal.SIGTERM, ("backend=threads", "pace.factor=0.05"))],
)
def test_an_interrupted_job_is_killed_and_keeps_its_trajectories(job, tmp_path, monkeypatch, number, backend):
    improve = ImaginedPolicyImprovement.improve

    def interrupt(self, *arguments):
        os.kill(os.getpid(), number)
        return improve(self, *arguments)

    monkeypatch.setattr(ImaginedPolicyImprovement, "improve", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_job(job(*backend, "stop.trajectories=100000"))
    client, run = only_run(tmp_path)
    assert run.info.status == "KILLED"
    assert len(read_trajectories(tmp_path / "output" / "trajectories.safetensors")) >= 1
    assert "trajectories.safetensors" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


@pytest.mark.usefixtures("without_figures")
def test_an_interruption_after_the_end_stops_the_sweep_but_not_the_run(job, tmp_path, monkeypatch):
    monkeypatch.setattr("mbrl_async.job.write_results", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run_job(job(*FIXED_COSTS))
    _, run = only_run(tmp_path)
    assert run.info.status == "FINISHED"


@pytest.mark.usefixtures("without_figures")
def test_a_run_that_ends_before_its_first_trajectory_has_no_score(job, tmp_path):
    score = run_job(job(*FIXED_COSTS, "stop.trajectories=null", "stop.seconds=0.5"))
    assert math.isnan(score)
    _, run = only_run(tmp_path)
    assert run.info.status == "FINISHED"


def test_figures_that_cannot_be_drawn_do_not_fail_the_run(job, tmp_path, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise OSError("no font")

    monkeypatch.setattr("mbrl_async.job.write_figures", fail)
    run_job(job(*FIXED_COSTS))
    _, run = only_run(tmp_path)
    assert run.info.status == "FINISHED"
    assert "The figures could not be drawn (OSError: no font)." in caplog.text


@pytest.mark.usefixtures("without_figures")
def test_results_that_cannot_be_saved_make_the_run_a_failed_one(job, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("mbrl_async.job.write_results", fail)
    with pytest.raises(OSError, match="disk full"):
        run_job(job(*FIXED_COSTS))
    _, run = only_run(tmp_path)
    assert run.info.status == "FAILED"


def test_a_refused_configuration_leaves_no_run(job, tmp_path):
    with pytest.raises(ConfigError):
        run_job(job("dynamics.ensemble.members=0", f"tracking.uri=sqlite:///{tmp_path}/new.db"))
    assert not (tmp_path / "new.db").exists()


def learned_by(job: Job) -> tuple[list[tuple[str, int, dict[str, int]]], dict[str, torch.Tensor]]:
    """Who stepped when with which versions, and every parameter at the end."""
    run_job(job)
    trace = [(record.worker, record.index, dict(record.pulled)) for record in read_trace(job.output / "trace.jsonl")]
    policy, model = (load_file(job.output / f"{name}.safetensors") for name in ("policy", "model"))
    return trace, {**policy, **model}


def assert_identical(first: Job, second: Job) -> None:
    trace, parameters = learned_by(first)
    # In the same folder, a journal that the first one left could be all that the second one repeats.
    other_trace, other_parameters = learned_by(replace(second, output=second.output.with_name("second")))
    assert trace == other_trace
    assert parameters.keys() == other_parameters.keys()
    for name, tensor in parameters.items():
        assert torch.equal(tensor, other_parameters[name]), f"{name} differs"


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_sync_learns_the_same_to_the_last_bit_in_real_time_and_on_simulated(job, backend):
    sync = ("schedule=sync", *FEW_STEPS)
    assert_identical(job(*sync, f"backend={backend}", "pace.factor=0"), job(*sync, *FIXED_COSTS))


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    "schedule",
    [
        ("schedule=async",),
        ("schedule=sync", *FEW_STEPS),
        pytest.param(("schedule=async", "algorithm=me_ppo"), marks=pytest.mark.slow),
        pytest.param(
            ("schedule=interleaved_model_policy", "iteration.rollouts=2", "iteration.turns=2"), marks=pytest.mark.slow
        ),
        pytest.param(
            ("schedule=interleaved_data_policy", "iteration.turns=2", "iteration.updates=2"), marks=pytest.mark.slow
        ),
    ],
    ids=lambda schedule: schedule[-1],
)
def test_simulated_runs_with_fixed_costs_repeat_to_the_last_bit(job, schedule):
    assert_identical(job(*schedule, *FIXED_COSTS), job(*schedule, *FIXED_COSTS))


@pytest.mark.usefixtures("without_figures")
def test_another_seed_is_another_run(job):
    _, parameters = learned_by(job(*FIXED_COSTS))
    _, others = learned_by(job(*FIXED_COSTS, "seed=1"))
    assert not torch.equal(parameters["log_std"], others["log_std"])
