from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mbrl_async.analysis.curves import TRACE_FILE, moving_mean, read_run
from mbrl_async.analysis.figures import write_figures
from mbrl_async.runtime.trace import Counters, StepRecord, write_trace
from mbrl_async.tracking.run import MlflowRun
from mbrl_async.tracking.store import experiment_id

TRACE = [StepRecord("collect", index, 10.0 * index, 10.0 * (index + 1), {"policy": index}) for index in (1, 2, 3)]


@pytest.fixture
def run_id(client: MlflowClient, tmp_path: Path) -> str:
    """A run of three trajectories that were logged out of order, as threads may do."""
    run = MlflowRun(client=client, experiment_id=experiment_id(client, "tests"), name="hopper", tags={})
    for record in (TRACE[1], TRACE[0], TRACE[2]):
        run.on_step(record, {"collect/return": -record.finish}, Counters(env_steps=200 * record.index))
    (tmp_path / "artifacts").mkdir()
    write_trace(tmp_path / "artifacts" / TRACE_FILE, TRACE)
    run.log_artifacts(tmp_path / "artifacts", [TRACE_FILE])
    run.finish("FINISHED")
    return run.run_id


def test_what_was_logged_is_read_in_the_order_of_the_clock(client: MlflowClient, run_id: str):
    history = read_run(client, run_id)
    returns = history.curves["collect/return"]
    assert history.name == "hopper"
    assert returns.env_steps.tolist() == [200, 400, 600]
    assert returns.values.tolist() == [-20, -30, -40]
    # MLflow rounds both the start and the timestamp to milliseconds.
    np.testing.assert_allclose(returns.seconds, [20, 30, 40], atol=1e-3)
    assert history.trace == TRACE


def test_figures_are_written_from_the_store(client: MlflowClient, run_id: str, tmp_path: Path):
    paths = write_figures(client, run_id, tmp_path / "new" / "figures")
    assert [path.name for path in paths] == [
        "return_against_env_steps.png",
        "return_against_run_time.png",
        "timeline.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_a_run_that_logged_nothing_has_no_figures(client: MlflowClient, tmp_path: Path):
    run = MlflowRun(client=client, experiment_id=experiment_id(client, "tests"), name="empty", tags={})
    run.finish("FAILED")
    assert write_figures(client, run.run_id, tmp_path) == []


def test_an_unknown_run_is_refused(client: MlflowClient):
    with pytest.raises(MlflowException, match="no-such-run"):
        read_run(client, "no-such-run")


def test_the_moving_mean_takes_fewer_values_at_the_beginning():
    assert moving_mean(np.array([2.0, 4.0, 6.0, 8.0]), window=3).tolist() == [2, 3, 4, 6]
    assert moving_mean(np.array([]), window=3).tolist() == []
