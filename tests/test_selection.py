"""Which runs are compared, of more than MLflow gives at once."""

from __future__ import annotations

from functools import partialmethod

import pytest
from mlflow import MlflowClient

from mbrl_async.selection import select
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
