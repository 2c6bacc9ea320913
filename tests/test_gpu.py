"""What a GPU computes is what the CPU computes, to the rounding of float32; without a GPU this is left out."""

from __future__ import annotations

import pytest
import torch

from benchmarks.dynamics import make_learner
from benchmarks.policy_step import PolicyStep
from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.experiment import build_experiment
from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.stop import Ending, StopSignal
from tests.runtime.fakes import Recorder
from tests.small import FIXED_COSTS, composed, options, small

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")

DEVICES = ("device=cuda", "devices.learn_model=cuda", "devices.improve_policy=cuda")


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("algorithm", options("algorithm"))
def test_every_algorithm_runs_wherever_its_workers_compute(algorithm, devices):
    cfg = composed(*small(f"algorithm={algorithm}", "schedule=sync"), *FIXED_COSTS, "iteration.rollouts=2", devices)
    experiment = build_experiment(cfg)
    summary = experiment.backend.run(
        experiment.makers, experiment.schedule, experiment.rule, StopSignal(), Recorder(), Forgetful()
    )
    assert summary.failure is None, summary.failure
    assert summary.ending is Ending.FINISHED


def test_a_prediction_and_an_epoch_agree_with_the_cpu():
    on_cpu, on_gpu = make_learner(), make_learner(device="cuda")
    for learner in (on_cpu, on_gpu):
        learner.epoch(5)
    # 31 steps of Adam, whose first ones are as long as the learning rate wherever a slope is rounded to another sign.
    apart = (on_gpu.ensemble.network.cpu() - on_cpu.ensemble.network).abs()
    assert apart.mean() < 1e-5
    on_gpu.ensemble.load_state_dict(on_cpu.ensemble.state_dict())
    torch.testing.assert_close(predicted(on_gpu.ensemble).cpu(), predicted(on_cpu.ensemble), rtol=1e-3, atol=1e-4)


def predicted(ensemble: Ensemble) -> torch.Tensor:
    device = ensemble.network.device
    rows = torch.ones(5, 10, 17, device=device), torch.ones(5, 10, 6, device=device)
    return ensemble.predictor().predict(*rows, torch.Generator(device))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_policy_is_improved_on_the_gpu(precision):
    step = PolicyStep(precision, device="cuda")
    step.improve(step.whole)
