"""The parent run of a sweep in MLflow, and what its jobs find there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mbrl_async.analysis.figures import COLOURS
from mbrl_async.tracking.run import KIND_TAG, SWEEP_KIND, Status, current_parameters
from mbrl_async.tracking.store import experiment_id, open_store

SWEEP_FILE = "sweep.json"
"""In the sweep's folder; tells jobs in other processes whose children they are."""

COLOUR_TAG = "mlflow.runColor"
"""In which colour MLflow's pages draw a run; else they draw lots from 20, and often the same for two runs."""

NOT_CONFIGURED = ("sweep", "tracking", "checkpoint", "resume")
"""Top-level settings that do not alter what a job computes."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that goes on."""

    name: str
    run_id: str
    """Of the parent run."""
    uri: str
    experiment: str

    def write(self, directory: Path) -> None:
        """For the jobs."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / SWEEP_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Sweep:
        """The inverse of `write`."""
        return cls(**json.loads((directory / SWEEP_FILE).read_text()))

    def tags(self, job: int, digest: str) -> dict[str, str]:
        """Of a child run; `digest` comes from `configuration_digest`."""
        return {
            MLFLOW_PARENT_RUN_ID: self.run_id,
            "sweep": self.name,
            "job": str(job),
            "configuration": digest,
            COLOUR_TAG: COLOURS[job % len(COLOURS)],
        }


def open_sweep(name: str, uri: str, experiment: str) -> Sweep:
    """Create the sweep's parent run, or reopen that of an earlier start under the same name.

    Runs of an earlier start that was killed become KILLED.

    Raises:
        TrackingError: MLflow cannot be used as configured.
    """
    client = open_store(uri)
    identifier = experiment_id(client, experiment)
    earlier = client.search_runs([identifier], f"tags.sweep = '{name}' and tags.{KIND_TAG} = '{SWEEP_KIND}'")
    if not earlier:
        tags = {"sweep": name, KIND_TAG: SWEEP_KIND}
        run = client.create_run(identifier, round(time.time() * 1000), tags, f"sweep {name}")
        return Sweep(name, run.info.run_id, client.tracking_uri, experiment)
    sweep = Sweep(name, earlier[0].info.run_id, client.tracking_uri, experiment)
    client.update_run(sweep.run_id, status="RUNNING")
    _end_abandoned_runs(client, sweep)
    return sweep


def close_sweep(sweep: Sweep, status: Status) -> None:
    """End the parent run; runs of jobs that were killed without a chance to end theirs become KILLED."""
    client = MlflowClient(sweep.uri)
    _end_abandoned_runs(client, sweep)
    client.set_terminated(sweep.run_id, status)


def finished_run(client: MlflowClient, experiment: str, sweep: str, digest: str) -> Run | None:
    """The run of the sweep of that name in which the configuration with this digest was finished."""
    condition = f"tags.configuration = '{digest}' and attributes.status = 'FINISHED'"
    runs = _children(client, experiment_id(client, experiment), sweep, condition)
    unchanged = [run for run in runs if current_parameters(run) == run.data.params]  # a resumption may end elsewhere
    return unchanged[0] if unchanged else None


def configuration_digest(config: Mapping[str, object]) -> str:
    """The same for two resolved configurations if their jobs compute the same, else another."""
    configured = {key: value for key, value in config.items() if key not in NOT_CONFIGURED}
    return hashlib.sha256(json.dumps(configured, sort_keys=True).encode()).hexdigest()


def _end_abandoned_runs(client: MlflowClient, sweep: Sweep) -> None:
    identifier = experiment_id(client, sweep.experiment)
    for child in _children(client, identifier, sweep.name, "attributes.status = 'RUNNING'"):
        client.set_terminated(child.info.run_id, "KILLED")


def _children(client: MlflowClient, identifier: str, name: str, condition: str) -> list[Run]:
    found = client.search_runs([identifier], f"tags.sweep = '{name}' and {condition}")
    return [run for run in found if run.data.tags.get(KIND_TAG) != SWEEP_KIND]
