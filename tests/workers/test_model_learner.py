"""The model learner alone: when it learns, and from what."""

from __future__ import annotations

import pytest
import torch

from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.runtime.stop import Ending
from mbrl_async.types import Interrupted, transitions_of
from tests.workers.bench import HORIZON, PERIOD, Bench, EndsAfterThree


def test_the_model_learner_waits_for_data_learns_until_it_stops_and_waits_again():
    bench = Bench()
    assert not bench.learner.pull()
    bench.collect()
    epochs = 0
    while bench.learner.pull():
        report = bench.learner.step()
        bench.learner.push()
        epochs += 1
        assert epochs < 10_000, "early stopping never fired"
    assert epochs >= 2, "early stopping cannot fire on the first epoch"
    assert report.metrics["epochs"] == epochs
    assert report.metrics["transitions"] == HORIZON
    newest = bench.models.get()
    assert newest is not None
    assert newest.version == epochs

    bench.collect()
    assert bench.learner.pull(), "new data makes all members learn again"
    assert bench.learner.pulled == {"trajectories": 2}


def test_an_interrupted_epoch_changes_nothing():
    bench = Bench()
    bench.collect()
    bench.learner.pull()
    before = {name: tensor.clone() for name, tensor in bench.learner._ensemble.state_dict().items()}
    bench.stop.request(Ending.KILLED)
    with pytest.raises(Interrupted):
        bench.learner.step()
    after = bench.learner._ensemble.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_the_model_learner_waits_until_short_trajectories_fill_both_splits():
    bench = Bench(LinearQuadratic(horizon=1, control_period=PERIOD))
    able = []
    for _ in range(3):
        bench.collect()
        able.append(bench.learner.pull())
    assert able == [False, True, True]


def test_only_the_last_transition_of_a_trajectory_that_terminated_is_a_termination():
    trajectory = Bench(EndsAfterThree(terminates=True)).collect()
    outcomes = transitions_of(trajectory, learned=("reward", "termination")).outcomes
    assert torch.equal(outcomes[:, :4], torch.from_numpy(trajectory.observations[1:]))
    assert torch.equal(outcomes[:, 4], torch.from_numpy(trajectory.rewards))
    assert outcomes[:, 5].tolist() == [0.0, 0.0, 1.0]
    cut_off = Bench(EndsAfterThree(terminates=False)).collect()
    assert transitions_of(cut_off, learned=("termination",)).outcomes[:, 4].tolist() == [0.0, 0.0, 0.0]


def test_observations_that_cannot_be_predicted_are_told_once(caplog):
    bench = Bench()
    bench.learner._ensemble.observation_limit = 1e-3
    for _ in range(2):
        bench.collect()
        bench.learner.pull()
    (message,) = caplog.messages
    assert "but predictions end at dynamics.ensemble.observation_limit=0.001: set it beyond" in message
