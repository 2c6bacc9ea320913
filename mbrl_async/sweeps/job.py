"""One job of a sweep: skipped if it was finished before, and unable to stop the others."""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from omegaconf import DictConfig, OmegaConf

from mbrl_async.config import ConfigError
from mbrl_async.job import Job, WorkerFailedError, run_job
from mbrl_async.run_folder import OVERRIDES_FILE
from mbrl_async.sweeps.outcome import JobStatus, Outcome
from mbrl_async.sweeps.record import Sweep, configuration_digest, finished_run
from mbrl_async.tracking.environment import usable_cores
from mbrl_async.tracking.store import TrackingError, open_store
from mbrl_async.types import WINDOW


def run_job_of_sweep(job: Job, *, number: int, sweep_directory: Path, parallel_jobs: int) -> float:
    """Run the job, or find its score if the sweep has finished it before; say in a file how it ended.

    Args:
        job: what to run.
        number: of the job in the sweep.
        sweep_directory: where `Sweep.write` wrote.
        parallel_jobs: jobs that share this machine's cores.

    Returns:
        As `run_job`; NaN if the job failed or was refused.

    Raises:
        KeyboardInterrupt: the job was interrupted, and with it the sweep.
    """
    job = _in_its_own_folder(job)

    def end(status: JobStatus, reason: str = "") -> None:
        Outcome(number, list(job.overrides), status, reason).write(sweep_directory)

    try:
        score, status = _run_or_skip(job, number, Sweep.read(sweep_directory), parallel_jobs)
    except (ConfigError, TrackingError) as error:
        end("refused", str(error))
    except KeyboardInterrupt:
        end("interrupted", "interrupted by a signal")
        raise
    except Exception as error:  # whatever a worker raises must not stop the other jobs
        traceback.print_exception(error.__cause__ or error)
        end("failed", str(error))
        if isinstance(error, WorkerFailedError) and error.interrupted:
            raise KeyboardInterrupt from error
    else:
        end(status)
        return score
    return float("nan")


def divided_threads(configured: Mapping[str, int], parallel_jobs: int, cores: int) -> dict[str, int]:
    """Worker -> torch threads, at most each job's share of the cores, at least 1."""
    share = max(1, cores // parallel_jobs)
    return {worker: min(threads, share) for worker, threads in configured.items()}


def _in_its_own_folder(job: Job) -> Job:
    """Under the name of a sweep that had other jobs, numbers count anew: what another job left in the folder stays."""
    left = job.output / OVERRIDES_FILE
    if not left.exists() or left.read_text().splitlines() == list(job.overrides):
        return job
    digest = hashlib.sha256("\n".join(job.overrides).encode()).hexdigest()
    return replace(job, output=job.output.with_name(f"{job.output.name}-{digest[:8]}"))


def _run_or_skip(job: Job, number: int, sweep: Sweep, parallel_jobs: int) -> tuple[float, JobStatus]:
    if "replay" in job.cfg:
        raise ConfigError("backend=replay goes over one run again: start it without -m.")
    config: Any = OmegaConf.to_container(job.cfg, resolve=True)
    digest = configuration_digest(config)
    client = open_store(job.cfg.tracking.uri)
    earlier = finished_run(client, job.cfg.tracking.experiment, sweep.name, digest)
    if earlier is not None:
        return _score(client, earlier.info.run_id), "skipped"
    threads = divided_threads(job.cfg.torch_threads, parallel_jobs, usable_cores() or os.cpu_count() or 1)
    cfg = OmegaConf.merge(job.cfg, {"torch_threads": threads})
    assert isinstance(cfg, DictConfig)
    return run_job(replace(job, cfg=cfg, tags=sweep.tags(number, digest))), "finished"


def _score(client: MlflowClient, run_id: str) -> float:
    history = client.get_metric_history(run_id, "collect/return")
    returns = [metric.value for metric in sorted(history, key=lambda metric: metric.timestamp)][-WINDOW:]
    return sum(returns) / len(returns) if returns else float("nan")
