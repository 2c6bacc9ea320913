"""Jobs of a sweep, in this process."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from mbrl_async.algorithms.model_based import ImaginedPolicyImprovement
from mbrl_async.job import Job
from mbrl_async.sweeps.job import divided_threads, run_job_of_sweep
from mbrl_async.sweeps.outcome import Outcome, read_outcomes
from mbrl_async.sweeps.record import open_sweep
from mbrl_async.types import WINDOW
from tests.recordings import no_figures
from tests.small import FIXED_COSTS, composed, small

CHOICES = {"env": "linear_quadratic", "algorithm": "me_trpo", "schedule": "async", "backend": "simulated"}

CONFIGURED_THREADS = {"collect": 1, "learn_model": 8, "improve_policy": 2}

RunNext = Callable[..., tuple[float, Outcome]]


@pytest.fixture
def run_next(client: MlflowClient, tmp_path: Path) -> Iterator[RunNext]:
    """Runs a job of one sweep, the next one each time; gives its score and how it ended."""
    sweep = open_sweep(tmp_path.name, client.tracking_uri, "jobs")
    sweep.write(tmp_path)
    jobs = 0

    def run(*overrides: str, folder: str | None = None, parallel_jobs: int = 1) -> tuple[float, Outcome]:
        nonlocal jobs
        store = (f"tracking.uri={client.tracking_uri}", "tracking.experiment=jobs")
        cfg = composed(*small(*FIXED_COSTS, *store), *overrides)
        job = Job(cfg, overrides, CHOICES, tmp_path / (folder or str(jobs)))
        score = run_job_of_sweep(job, number=jobs, sweep_directory=tmp_path, parallel_jobs=parallel_jobs)
        jobs += 1
        return score, read_outcomes(tmp_path)[-1]

    with no_figures():
        yield run


def test_a_finished_job_is_skipped_the_next_time_and_its_score_is_found(run_next: RunNext):
    longer_than_what_counts = ("seed=1", f"stop.trajectories={WINDOW + 3}", "env.horizon=5")
    score, first = run_next(*longer_than_what_counts)
    again, second = run_next(*longer_than_what_counts)
    assert (first.status, second.status) == ("finished", "skipped")
    assert again == pytest.approx(score)
    _, other = run_next("seed=2")
    assert other.status == "finished"


def test_a_job_that_a_resumption_ended_elsewhere_runs_again(run_next: RunNext, client: MlflowClient, tmp_path: Path):
    _, first = run_next("seed=1")
    experiments = [each.experiment_id for each in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"tags.sweep = '{tmp_path.name}' and tags.seed = '1'")
    client.set_tag(run.info.run_id, "changed.stop.trajectories", "2")
    _, second = run_next("seed=1")
    assert (first.status, second.status) == ("finished", "finished")


def test_a_signal_that_comes_while_a_failed_job_is_saved_ends_the_sweep(run_next: RunNext, monkeypatch, tmp_path):
    def fail(*_: object) -> None:
        raise ArithmeticError("no more")

    monkeypatch.setattr(ImaginedPolicyImprovement, "improve", fail)
    monkeypatch.setattr("mbrl_async.job.write_results", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run_next("seed=1")
    assert read_outcomes(tmp_path)[-1].status == "failed"


def test_a_failed_job_raises_nothing_says_why_and_runs_again_the_next_time(run_next: RunNext, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise ArithmeticError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(ImaginedPolicyImprovement, "improve", fail)
        score, outcome = run_next("seed=1")
    assert math.isnan(score)
    assert (outcome.status, outcome.reason) == ("failed", "improve_policy failed: ArithmeticError: no more")
    assert "in fail" in capsys.readouterr().err, "the whole traceback is shown"
    assert run_next("seed=1")[1].status == "finished"


def test_a_refused_job_raises_nothing_and_says_why(run_next: RunNext):
    score, outcome = run_next("seed=-1")
    assert math.isnan(score)
    assert outcome == Outcome(
        0, ["seed=-1"], "refused", "seed=-1 cannot be used: it should be greater than or equal to 0."
    )


def test_an_outcome_is_found_wherever_the_jobs_folder_is(run_next: RunNext):
    _, outcome = run_next("stop.trajectories=0", folder="hopper/async/0")  # hydra.sweep.subdir
    assert outcome.status == "refused"


def test_an_interrupted_job_interrupts_the_sweep(run_next: RunNext, monkeypatch, tmp_path):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mbrl_async.sweeps.job.run_job", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_next()
    assert [outcome.status for outcome in read_outcomes(tmp_path)] == ["interrupted"]


def test_nothing_is_left_from_one_job_to_the_next(run_next: RunNext):
    def process() -> tuple[object, ...]:
        threads = {thread.name for thread in threading.enumerate()}
        return threads, torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.get_rng_state().tolist()

    before = process()
    run_next("torch_threads.collect=2", "matmul_precision=medium")
    assert process() == before


def test_parallel_jobs_divide_the_cores():
    configured = {"collect": 1, "learn_model": 8}
    assert divided_threads(configured, parallel_jobs=1, cores=8) == configured
    assert divided_threads(configured, parallel_jobs=2, cores=8) == {"collect": 1, "learn_model": 4}
    assert divided_threads(configured, parallel_jobs=8, cores=2) == {"collect": 1, "learn_model": 1}


@pytest.mark.parametrize(("usable", "of_the_machine"), [(6, 64), (None, 6)], ids=["usable", "unknown"])
def test_a_job_gets_its_share_of_the_cores(run_next: RunNext, monkeypatch, usable, of_the_machine):
    jobs: list[Job] = []

    def run_job(job: Job) -> float:
        jobs.append(job)
        return -7.0

    monkeypatch.setattr("mbrl_async.sweeps.job.run_job", run_job)
    monkeypatch.setattr("mbrl_async.sweeps.job.usable_cores", lambda: usable)
    monkeypatch.setattr("mbrl_async.sweeps.job.os.cpu_count", lambda: of_the_machine)
    threads = [f"torch_threads.{worker}={number}" for worker, number in CONFIGURED_THREADS.items()]
    score, outcome = run_next(*threads, parallel_jobs=2)
    assert (score, outcome.status) == (-7.0, "finished")
    (job,) = jobs
    assert job.cfg.torch_threads == {**CONFIGURED_THREADS, "learn_model": 3}
    assert job.cfg.backend.torch_threads == job.cfg.torch_threads, "which is what the backend reads"


def test_a_job_leaves_alone_what_another_one_with_its_number_left(run_next: RunNext, tmp_path):
    run_next("seed=1", folder="0")
    before = {path: path.read_bytes() for path in (tmp_path / "0").rglob("*") if path.is_file()}
    assert run_next("seed=2", folder="0")[1].status == "finished"
    assert {path: path.read_bytes() for path in before} == before
    (own,) = tmp_path.glob("0-*")
    assert (own / "policy.safetensors").exists()


def test_a_replay_is_no_job_of_a_sweep(client: MlflowClient, tmp_path):
    open_sweep(tmp_path.name, client.tracking_uri, "jobs").write(tmp_path)
    overrides = ("backend=replay", "replay.run_id=0123", f"tracking.uri={client.tracking_uri}")
    job = Job(composed(*overrides), overrides, CHOICES, tmp_path / "0")
    run_job_of_sweep(job, number=0, sweep_directory=tmp_path, parallel_jobs=1)
    (outcome,) = read_outcomes(tmp_path)
    reason = "backend=replay goes over one run again: start it without -m."
    assert (outcome.status, outcome.reason) == ("refused", reason)
