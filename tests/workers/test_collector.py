"""The collector alone: what it takes, what it leaves, and what it does with bad values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.policies.adapted import with_adapted
from mbrl_async.runtime.digest import digest
from mbrl_async.runtime.stop import Ending
from mbrl_async.types import FloatArray, Interrupted, NonFiniteError, TaskStep
from mbrl_async.workers.acting import AdaptedPolicyActor
from tests.workers.bench import HORIZON, PERIOD, Bench, EndsAfterThree, generator, make_policy


def test_the_collector_acts_uniformly_at_random_until_there_is_a_policy():
    bench = Bench()
    actions = np.concatenate([bench.collect().actions for _ in range(100)])  # (1000, 2)
    assert bench.collector.pulled == {"policy": 0}
    assert np.abs(actions).max() <= 1.0
    # 2000 draws of a uniform on [-1, 1]: the mean's standard error is 0.013, so 0.065 is wrong once in 2 million.
    assert abs(actions.mean()) < 0.065
    assert actions.std() == pytest.approx(3**-0.5, abs=0.03)


def test_the_initial_policy_acts_until_there_is_another_if_so_configured():
    trajectory = Bench(first_actions="policy").collect()
    noise = torch.randn(2, generator=generator())
    expected = make_policy()(torch.from_numpy(trajectory.observations[0])).sample(noise)
    assert torch.equal(torch.from_numpy(trajectory.actions[0]), expected.detach())
    assert trajectory.policy_version == 0


def test_the_collector_uses_the_newest_policy_and_says_which():
    bench = Bench()
    bench.policies.put(make_policy(1).state_dict())
    newest = make_policy(2)
    bench.policies.put(newest.state_dict())
    trajectory = bench.collect()
    assert trajectory.policy_version == 2
    noise = torch.randn(2, generator=generator())
    expected = newest(torch.from_numpy(trajectory.observations[0])).sample(noise)
    assert torch.allclose(torch.from_numpy(trajectory.actions[0]), expected.detach())


def test_with_adapted_policies_each_trajectory_has_one_of_them():
    bench = Bench(actor=AdaptedPolicyActor)
    bench.policies.put(published_by(-5.0, 5.0))
    # The spread of a mean of 20 actions is 0.08.
    means = [round(float(bench.collect().actions.mean())) for _ in range(40)]
    assert set(means) == {-5, 5}
    # Of two, alike probable, fewer than 8 of 40 are one of them once in 24 000 times; this generator's are fixed.
    assert min(means.count(-5), means.count(5)) >= 8
    assert bench.collector.pulled == {"policy": 1}
    bench.policies.put(published_by(-10.0, -20.0))
    trajectory = bench.collect()
    assert trajectory.policy_version == 2
    assert round(float(trajectory.actions.mean())) in (-10, -20)


def published_by(*means: float) -> dict[str, torch.Tensor]:
    """A policy that acts around 0, and adapted ones that act around these means."""
    states = []
    for mean in (0.0, *means):
        policy = make_policy()
        with torch.no_grad():
            policy.mean[-1].weight.zero_()
            policy.mean[-1].bias.fill_(mean)
        states.append(policy.state_dict())
    own, *adapted = states
    return with_adapted(own, {name: torch.stack([state[name] for state in adapted]) for name in own})


def test_a_trajectory_lasts_its_control_periods_times_the_pace():
    for pace in (1.0, 0.5, 0.0):
        bench = Bench(pace=pace)
        bench.collect()
        assert bench.clock.now() == pytest.approx(pace * HORIZON * PERIOD)


def test_the_collectors_metrics_describe_the_trajectory():
    bench = Bench()
    bench.collector.pull()
    report = bench.collector.step()
    bench.collector.push()
    (trajectory,) = bench.trajectories.history
    assert (report.trajectories, report.env_steps) == (1, HORIZON)
    assert report.metrics["return"] == trajectory.undiscounted_return
    assert report.metrics["length"] == HORIZON
    assert report.metrics["lateness_max_ms"] == report.metrics["deadline_misses"] == 0.0


@pytest.mark.parametrize("method", ["reset", "step"])
def test_an_observation_of_another_size_is_refused_where_broadcasting_would_let_it_pass(method, monkeypatch):
    bench = Bench()
    short = np.zeros(1, np.float32)
    result = short if method == "reset" else TaskStep(short, 0.0, False, False)
    monkeypatch.setattr(LinearQuadratic, method, lambda *_: result)
    bench.collector.pull()
    with pytest.raises(ValueError, match=r"an observation of shape \(1,\): its spec says \(4,\)"):
        bench.collector.step()
    assert bench.trajectories.history == []


def test_the_result_of_a_step_is_what_is_published():
    bench = Bench()
    trajectory = bench.collect()
    ended = {"terminated": torch.tensor(trajectory.terminated)}
    assert digest(bench.collector.result()) == digest({**trajectory.tensors, **ended})
    assert trajectory.tensors["rewards"].tolist() == trajectory.rewards.tolist()
    assert bench.learner.pull()
    bench.learner.step()
    result = digest(bench.learner.result())
    bench.learner.push()
    newest = bench.models.get()
    assert newest is not None
    assert result == digest(newest.parameters)


def test_an_interrupted_trajectory_is_dropped():
    bench = Bench()
    bench.collector.pull()
    bench.stop.request(Ending.KILLED)
    with pytest.raises(Interrupted):
        bench.collector.step()
    assert bench.trajectories.history == []


def test_a_return_that_is_not_finite_is_an_error_that_says_where():
    class Unbounded(LinearQuadratic):
        def step(self, action: FloatArray) -> TaskStep:
            return super().step(action)._replace(reward=float("nan"))

    bench = Bench(Unbounded(horizon=HORIZON, control_period=PERIOD))
    bench.collector.pull()
    with pytest.raises(NonFiniteError, match="return of a trajectory with policy 0 is not finite"):
        bench.collector.step()


@pytest.mark.parametrize("terminates", [True, False])
def test_a_trajectory_ends_where_the_task_does(terminates):
    bench = Bench(EndsAfterThree(terminates))
    bench.collector.pull()
    report = bench.collector.step()
    bench.collector.push()
    (trajectory,) = bench.trajectories.history
    assert (trajectory.length, trajectory.terminated) == (3, terminates)
    assert (trajectory.observations.shape, trajectory.actions.shape) == ((4, 4), (3, 2))
    assert (report.env_steps, report.metrics["length"]) == (3, 3.0)
    assert report.collection_seconds == bench.clock.now() == pytest.approx(3 * PERIOD)
