import numpy as np
import pytest

from mbrl_async.analysis.curves import Curve, RunHistory
from mbrl_async.runtime.trace import StepRecord


def curve(seconds: np.ndarray, values: np.ndarray) -> Curve:
    return Curve(env_steps=np.floor(seconds / 10) * 200, seconds=seconds, values=values)


@pytest.fixture
def history() -> RunHistory:
    """Twenty trajectories of ten seconds, epochs of one second, updates of a quarter."""
    durations = {"collect": 10.0, "learn_model": 1.0, "improve_policy": 0.25}
    trace = [
        StepRecord(worker, index + 1, index * seconds, (index + 1) * seconds, {})
        for worker, seconds in durations.items()
        for index in range(round(200 / seconds))
    ]
    trajectories = np.arange(10.0, 201.0, 10.0)
    epochs = np.arange(11.0, 201.0)
    return RunHistory(
        name="hopper async seed 0",
        curves={
            "collect/return": curve(trajectories, np.arange(20.0)),
            "learn_model/train_loss": curve(epochs, 1 / epochs),
            "learn_model/validation_loss": curve(epochs, 2 / epochs),
            "staleness/policy_versions": curve(trajectories, np.full(20, 40.0)),
            "staleness/policy_seconds": curve(trajectories, np.full(20, 10.0)),
        },
        trace=trace,
    )
