"""Which runs are compared, of more than MLflow gives at once."""

from __future__ import annotations

from functools import partialmethod

import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mbrl_async.analysis.series import make_series
from mbrl_async.config import ConfigError
from mbrl_async.selection import select
from mbrl_async.tracking.run import KIND_TAG, REPLAYS_TAG, SWEEP_KIND
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


def test_what_is_left_out_is_told(client: MlflowClient):
    """A replay is a run that takes part already; a run whose seconds were over at once has nothing to compare."""
    identifier = experiment_id(client, "partly empty")
    for seed, tags, metrics in ((0, {}, True), (0, {REPLAYS_TAG: "0123"}, True), (1, {}, False), (2, {}, False)):
        run = client.create_run(identifier, tags={**TAGS, "seed": str(seed), **tags}, run_name=f"seed {seed}")
        if metrics:
            for metric in ("collect/return", "run/trajectories"):
                client.log_metric(run.info.run_id, metric, 1.0)
        client.set_terminated(run.info.run_id)
    selection = select(client.tracking_uri, "partly empty", None, [], [])
    assert [run.seed for run in selection.runs] == [0]
    assert selection.notes == [
        "2 finished runs have no trajectory and are left out: seed 1, seed 2.",
        "Left out, because they only repeat others: 1 replay.",
    ]


def test_a_run_that_was_extended_is_compared_as_one_that_was_as_long_from_the_start(client: MlflowClient):
    identifier = experiment_id(client, "extended")
    for seed, parameter, tags in ((0, "60", {"changed.stop.trajectories": "120"}), (1, "120", {})):
        run = client.create_run(identifier, tags={**TAGS, "seed": str(seed), **tags})
        client.log_param(run.info.run_id, "stop.trajectories", parameter)
        for metric in ("collect/return", "run/trajectories"):
            client.log_metric(run.info.run_id, metric, 1.0)
        client.set_terminated(run.info.run_id)
    ((series,), _) = make_series(select(client.tracking_uri, "extended", None, [], []).runs)
    assert [run.parameters["stop.trajectories"] for run in series.runs] == ["120", "120"]
