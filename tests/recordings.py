"""Recorded runs to reproduce and to replay, and copies of them in which something was changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mbrl_async.job import Job, run_job
from tests.small import composed, small


@contextmanager
def no_figures() -> Iterator[None]:
    """Drawing takes most of a small job's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mbrl_async.job.write_figures", lambda *_: [])
        yield


THREADS = ("backend=threads", "pace.factor=0.05")


def record(client: MlflowClient, output: Path, *overrides: str) -> str:
    """Run a small job, and return the id of its run."""
    overrides = (*small(*overrides), f"tracking.uri={client.tracking_uri}", f"tracking.experiment={output.name}")
    cfg = composed(*overrides)
    choices = {"env": "linear_quadratic", "algorithm": "me_trpo", "schedule": "async", "backend": "threads"}
    run_job(Job(cfg, overrides, choices, output))
    experiment = client.get_experiment_by_name(output.name)
    assert experiment is not None
    return str(client.search_runs([experiment.experiment_id])[0].info.run_id)


def altered(client: MlflowClient, run_id: str, directory: Path, name: str, alter: Callable[[Path], None]) -> str:
    """The id of a copy of a run in which the artifact `name` was altered."""
    run = client.get_run(run_id)
    copy = client.create_run(run.info.experiment_id).info.run_id
    files = Path(client.download_artifacts(run_id, "", str(directory)))
    alter(files / name)
    client.log_artifacts(copy, str(files))
    client.set_terminated(copy, run.info.status)
    return str(copy)


def altered_json(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change one JSON object in a file."""

    def alter(path: Path) -> None:
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return alter


def altered_line(number: int, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change the JSON object in one line of a file, counted from 1."""

    def alter(path: Path) -> None:
        lines = path.read_text().splitlines()
        values = json.loads(lines[number - 1])
        change(values)
        lines[number - 1] = json.dumps(values)
        path.write_text("\n".join(lines) + "\n")

    return alter
