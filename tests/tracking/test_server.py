"""A whole job and its comparison against an MLflow server over HTTP."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from mbrl_async.compare import compare_and_print, read_settings
from mbrl_async.job import Job, run_job
from mbrl_async.sweeps.record import close_sweep, open_sweep
from mbrl_async.tracking.store import open_store
from tests.small import FIXED_COSTS, composed, small
from tests.tracking.server import mlflow_server

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server with a store of its own."""
    store = ("--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", f"{tmp_path}/kept")
    with mlflow_server("server", *store, log=tmp_path / "server.log") as address:
        yield address


def test_a_job_and_its_comparison_over_http(server: str, tmp_path: Path):
    choices = {"env": "linear_quadratic", "algorithm": "me_trpo", "schedule": "async", "backend": "simulated"}
    sweep = open_sweep("remote", server, "remote")
    cfg = composed(*small(*FIXED_COSTS, f"tracking.uri={server}", "tracking.experiment=remote"))
    run_job(Job(cfg, [], choices, tmp_path / "output", sweep.tags(0, "digest")))
    close_sweep(sweep, "FINISHED")

    client = open_store(server)
    experiment = client.get_experiment_by_name("remote")
    runs = client.search_runs([experiment.experiment_id], "tags.job = '0'")
    assert [run.info.status for run in runs] == ["FINISHED"]
    settings = read_settings(["sweep=remote", f"tracking.uri={server}", f"output={tmp_path / 'report'}"])
    compare_and_print(settings, Console(file=io.StringIO()))
    assert "comparison/comparison.html" in {each.path for each in client.list_artifacts(sweep.run_id, "comparison")}
