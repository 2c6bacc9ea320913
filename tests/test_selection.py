"""Which runs are compared, of more than MLflow gives at once."""

from __future__ import annotations

from functools import partialmethod

import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mbrl_async.config import ConfigError
from mbrl_async.selection import select
from mbrl_async.tracking.run import KIND_TAG, SWEEP_KIND
from mbrl_async.tracking.store import experiment_id
from tests.analysis.synthetic import TAGS


def test_the_runs_of_all_pages_are_compared(client: MlflowClient, monkeypatch: pytest.MonkeyPatch):
    """MLflow has a thousand runs on a page; here two, and a run that failed is alone on the third."""
    identifier = experiment_id(client, "paged")
    for seed in range(5):
        run = client.create_run(
            identifier, start_time=1 + seed, tags={**TAGS, "seed": str(seed)}, run_name=f"seed {seed}"
        )
        for metric in ("collect/return", "run/trajectories"):
            client.log_metric(run.info.run_id, metric, 1.0)
        client.set_terminated(run.info.run_id, "FAILED" if seed == 4 else "FINISHED")
    monkeypatch.setattr(MlflowClient, "search_runs", partialmethod(MlflowClient.search_runs, max_results=2))
    selection = select(client.tracking_uri, "paged", None, [], [])
    assert [run.seed for run in selection.runs] == [0, 1, 2, 3]
    assert selection.notes == ["1 run that is not finished is left out: seed 4 (FAILED)."]


def test_a_sweep_is_found_on_whatever_page_its_experiment_is(client: MlflowClient, monkeypatch: pytest.MonkeyPatch):
    """The newest experiments come first."""
    sweep = client.create_run(experiment_id(client, "oldest"), tags={KIND_TAG: SWEEP_KIND, "sweep": "nightly"})
    run = client.create_run(
        experiment_id(client, "oldest"), tags={**TAGS, "seed": "0", MLFLOW_PARENT_RUN_ID: sweep.info.run_id}
    )
    for metric in ("collect/return", "run/trajectories"):
        client.log_metric(run.info.run_id, metric, 1.0)
    client.set_terminated(run.info.run_id)
    for number in range(4):
        experiment_id(client, f"newer {number}")
    monkeypatch.setattr(
        MlflowClient, "search_experiments", partialmethod(MlflowClient.search_experiments, max_results=2)
    )
    assert [run.seed for run in select(client.tracking_uri, None, None, [], []).runs] == [0]
    assert select(client.tracking_uri, None, "nightly", [], []).parent == sweep.info.run_id
    with pytest.raises(ConfigError, match=r"there are newer 3, .*, oldest, "):
        select(client.tracking_uri, "none", None, [], [])
