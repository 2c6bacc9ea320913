import pytest
import torch

from benchmarks.backends import BACKENDS, OTHERS, beside, command, learner_speeds
from benchmarks.measurement import Measurement
from benchmarks.never_stopping import NeverStopping
from mbrl_async.config import build, validate
from mbrl_async.runtime.trace import StepRecord
from tests.small import composed

TRACE = [
    StepRecord("collect", 1, 0.0, 10.0, {"policy": 0}),
    StepRecord("learn_model", 1, 10.0, 11.0, {"trajectories": 1}),
    StepRecord("improve_policy", 1, 11.0, 12.0, {"model": 1}),
    StepRecord("learn_model", 2, 11.5, 12.5, {"trajectories": 1}),
    *(StepRecord("learn_model", 3 + n, 12.5 + n, 13.5 + n, {"trajectories": 1}) for n in range(4)),
    StepRecord("improve_policy", 2, 12.0, 17.0, {"model": 1}),
    StepRecord("collect", 2, 12.0, 22.0, {"policy": 1}),
]


def test_speeds_are_those_of_the_time_with_a_learnt_policy():
    speeds = {row.name: (row.value, row.unit) for row in learner_speeds(TRACE)}
    assert speeds == {"model epochs": (4 / 10, "1/s"), "policy updates": (1 / 10, "1/s")}


def test_each_figure_is_shown_beside_the_other_backends_and_as_a_ratio():
    threads = [Measurement("epochs", 3.0, "1/s", 1), Measurement("misses", 2, "", 1), Measurement(OTHERS, 9, "%", 1)]
    processes = [Measurement("epochs", 2.0, "1/s", 1), Measurement("misses", 0, "", 1), Measurement(OTHERS, 3, "%", 1)]
    assert [(row.name, row.value) for row in beside("hopper", threads, processes)] == [
        ("hopper, 125 Hz: epochs, threads", 3.0),
        ("hopper, 125 Hz: epochs, processes", 2.0),
        ("hopper, 125 Hz: epochs, threads : processes", 1.5),
        ("hopper, 125 Hz: misses, threads", 2),
        ("hopper, 125 Hz: misses, processes", 0),
        (f"hopper, 125 Hz: {OTHERS}, threads", 9),
        (f"hopper, 125 Hz: {OTHERS}, processes", 3),
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_learners_of_the_runs_are_always_busy(tmp_path, backend):
    overrides = [each for each in command(tmp_path, backend, "hopper", 15.0)[2:] if not each.startswith("hydra.")]
    cfg = composed(*overrides)
    assert validate(cfg).env["_target_"].endswith("Hopper")
    stopping = build(cfg.dynamics.early_stopping, members=2)
    assert isinstance(stopping, NeverStopping)
    for loss in (1.0, 2.0, 3.0):
        stopping.update(torch.full((2,), loss))
    assert stopping.active.all()
