"""The policy learners alone: what they take, and what they leave."""

from __future__ import annotations

import numpy as np
import torch

from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.runtime.channels import Latest
from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.stop import StopSignal
from mbrl_async.workers.on_policy_learner import OnPolicyLearner, rollouts_of
from mbrl_async.workers.policy_learner import PolicyLearner
from tests.workers.bench import HORIZON, PERIOD, Bench, EndsAfterThree, generator, make_ensemble, make_policy


class FakeImprovement:
    """Notes what it was given, and moves one parameter."""

    def require_compatible(self, members):
        if members != 2:
            raise ValueError(members)

    def improve(self, policy, model, task, starts, generator, check_interrupted):  # noqa: ARG002
        self.model, self.starts = model, starts(3)
        with torch.no_grad():
            policy.log_std.add_(0.5)
        return {"kl": 0.25}

    def published(self, policy):
        return policy.state_dict()


def make_policy_learner(
    improvement: FakeImprovement, models: Latest, policies: Latest, starts="reset"
) -> PolicyLearner:
    return PolicyLearner(
        policy=make_policy(),
        ensemble=make_ensemble(1),
        improvement=improvement,
        task=LinearQuadratic(horizon=HORIZON, control_period=PERIOD),
        starts=starts,
        models=models,
        policies=policies,
        clock=VirtualClock(StopSignal()),
        environment_generator=np.random.default_rng(0),
        generator=generator(),
    )


def test_the_policy_learner_needs_a_model_and_improves_in_the_newest():
    models, policies, improvement = Latest(), Latest(), FakeImprovement()
    learner = make_policy_learner(improvement, models, policies)
    assert not learner.pull()
    models.put(make_ensemble(2).state_dict())
    models.put(make_ensemble(3).state_dict())
    assert learner.pull()
    report = learner.step()
    learner.push()
    assert learner.pulled == {"model": 2}
    assert report.metrics == {"kl": 0.25, "updates": 1.0}
    rows = torch.ones(2, 1, 4), torch.ones(2, 1, 2), generator()
    assert torch.equal(improvement.model.predict(*rows), make_ensemble(3).predictor().predict(*rows))
    assert improvement.starts.shape == (3, 4)
    published = policies.get()
    assert published is not None
    assert torch.allclose(published.parameters["log_std"], torch.full((2,), -0.5))
    assert learner.pull(), "it always steps, also with a model that it used before"


class FakeGradientImprovement:
    """Notes what it was given."""

    def improve(self, policy, rollouts):  # noqa: ARG002
        self.rollouts = rollouts
        return {"kl": 0.25}

    def state_dict(self):
        return {}


def test_the_on_policy_learner_uses_every_trajectory_in_exactly_one_update():
    bench, improvement = Bench(first_actions="policy"), FakeGradientImprovement()
    learner = OnPolicyLearner(
        policy=make_policy(),
        improvement=improvement,  # type: ignore[arg-type]
        trajectories=bench.trajectories,
        policies=bench.policies,
        device="cpu",
    )
    assert not learner.pull()
    batches = [[bench.collect() for _ in range(count)] for count in (2, 3)]
    first, second = batches
    assert learner.pull(), "five have come, and none was used yet"
    report = learner.step()
    learner.push()
    assert report.metrics == {"kl": 0.25, "updates": 1.0}
    assert learner.pulled == {"trajectories": 5}
    for index, trajectory in enumerate(first + second):
        assert torch.equal(improvement.rollouts.observations[:, index], trajectory.tensors["observations"])
        assert torch.equal(improvement.rollouts.actions[:, index], trajectory.tensors["actions"])
        assert torch.equal(improvement.rollouts.rewards[:, index], trajectory.tensors["rewards"])
    assert not learner.pull(), "an update on the same data again would be off its policy"
    third = bench.collect()
    assert third.policy_version == 1
    assert learner.pull()
    assert learner.pull(), "what was pulled is not lost before a step used it"
    learner.step()
    assert improvement.rollouts.rewards.shape == (HORIZON, 1)


def test_the_on_policy_learner_lays_trajectories_of_different_lengths_side_by_side():
    trajectories = [Bench(EndsAfterThree(terminates=True)).collect(), Bench().collect()]
    trajectories.append(Bench(EndsAfterThree(terminates=False)).collect())
    rollouts = rollouts_of(trajectories, "cpu")
    assert rollouts.observations.shape == (HORIZON + 1, 3, 4)
    assert rollouts.ends.lengths.tolist() == [3, HORIZON, 3]
    assert rollouts.ends.terminated.tolist() == [True, False, False]
    for index, trajectory in enumerate(trajectories):
        length = trajectory.length
        assert torch.equal(rollouts.observations[: length + 1, index], trajectory.tensors["observations"])
        assert torch.equal(rollouts.actions[:length, index], trajectory.tensors["actions"])
        assert torch.equal(rollouts.rewards[:length, index], trajectory.tensors["rewards"])
        assert not rollouts.rewards[length:, index].any()


def test_imagined_rollouts_start_where_stored_trajectories_began_if_so_configured():
    bench, improvement = Bench(), FakeImprovement()
    began = [bench.collect().observations[0].tolist() for _ in range(2)]
    bench.learner.pull()
    bench.learner.push()
    learner = make_policy_learner(improvement, bench.models, Latest(), starts="stored")
    learner.pull()
    drawn = []
    for _ in range(20):
        learner.step()
        drawn += improvement.starts.tolist()
    assert {tuple(each) for each in drawn} == {tuple(each) for each in began}  # missed by 60 draws: once in 1e18
