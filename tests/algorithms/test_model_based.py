import pytest
import torch
from hydra.utils import instantiate

from mbrl_async.algorithms.advantages import AdvantageEstimator
from mbrl_async.algorithms.flat import flatten
from mbrl_async.algorithms.imagination import imagine
from mbrl_async.algorithms.model_based import ImaginedPolicyImprovement
from mbrl_async.algorithms.trpo import TRPO
from mbrl_async.policies.baseline import LinearFeatureBaseline
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import Interrupted, NonFiniteError
from tests.algorithms.settings import trust_region_settings
from tests.imagined import FunctionTask
from tests.small import composed

ROLLOUTS, HORIZON = 40, 20


class PointMass:
    """Exact model of a point [position, velocity] that an action pushes; all members agree."""

    members = 5

    def predict(self, observations, actions, _generator):
        position, velocity = observations.unbind(-1)
        return torch.stack([position + 0.1 * velocity, velocity + 0.5 * actions[..., 0]], dim=-1)


def reward(_observations, actions, next_observations):
    return -next_observations[..., 0].square() - 0.01 * actions.square().sum(-1)


def starts_from(generator):
    return lambda count: 2 * torch.rand(count, 2, generator=generator) - 1


class RecordingUpdate:
    """Keeps what it was given, and spoils the policy on request."""

    def __init__(self, parameter_value=None):
        self.parameter_value = parameter_value

    def update(self, policy, observations, actions, advantages):
        self.given = (observations, actions, advantages)
        if self.parameter_value is not None:
            with torch.no_grad():
                policy.log_std.fill_(self.parameter_value)
        return {"kl": 0.25}


def make_improvement(update=None, rollouts=ROLLOUTS):
    trpo = TRPO(**trust_region_settings(step_size=0.02))
    advantages = AdvantageEstimator(
        discount=0.99, gae_lambda=1.0, bootstrap="zero", baseline=LinearFeatureBaseline(regularisation=1e-5)
    )
    return ImaginedPolicyImprovement(
        rollouts=rollouts, horizon=HORIZON, advantages=advantages, update=trpo if update is None else update
    )


def make_policy(seed=0):
    return GaussianMLP(
        observation_size=2,
        action_size=1,
        hidden=[16],
        initial_log_std=0.0,
        minimum_log_std=-13.8,
        generator=torch.Generator().manual_seed(seed),
        device="cpu",
    )


def improve(improvement, policy, *, model=None, seed=0, check=lambda: None, starts=None):
    generator = torch.Generator().manual_seed(seed)
    starts = starts or starts_from(torch.Generator().manual_seed(seed + 1))
    return improvement.improve(policy, model or PointMass(), FunctionTask(reward), starts, generator, check)


def parameters_of(policy):
    return flatten([parameter.detach().clone() for parameter in policy.parameters()])


def test_it_learns_to_stop_a_point_mass():
    policy, improvement = make_policy(), make_improvement()
    returns = [improve(improvement, policy, seed=2 * step)["imagined_return"] for step in range(60)]
    # The untrained policy drives the point away. Of ten seeds nine ended between -1.32 and -1.53, from -6 to -185 at
    # first, and one at -4.1; this run's is fixed.
    assert max(returns[:3]) < -6
    assert sum(returns[-10:]) / 10 > -2


def test_the_update_gets_matching_rows_in_the_order_of_time():
    update = RecordingUpdate()
    policy = make_policy()
    metrics = improve(make_improvement(update), policy, seed=3)
    rollouts = imagine(
        policy,
        PointMass(),
        FunctionTask(reward),
        starts_from(torch.Generator().manual_seed(4))(ROLLOUTS),
        HORIZON,
        torch.Generator().manual_seed(3),
        lambda: None,
    )
    observations, actions, advantages = update.given
    assert torch.equal(observations.view(HORIZON, ROLLOUTS, 2), rollouts.observations[:-1])
    assert torch.equal(actions.view(HORIZON, ROLLOUTS, 1), rollouts.actions)
    estimator = AdvantageEstimator(
        discount=0.99, gae_lambda=1.0, bootstrap="zero", baseline=LinearFeatureBaseline(regularisation=1e-5)
    )
    expected = estimator.estimate(rollouts.observations, rollouts.rewards, rollouts.ends)
    assert torch.equal(advantages.view(HORIZON, ROLLOUTS), expected)
    assert metrics["imagined_return"] == pytest.approx(rollouts.rewards.sum(0).mean().item())


def test_metrics_are_those_of_the_update_and_the_imagination():
    metrics = improve(make_improvement(RecordingUpdate(parameter_value=-0.5)), make_policy())
    assert metrics.keys() == {"kl", "imagined_return", "log_std"}
    assert metrics["kl"] == 0.25
    assert metrics["log_std"] == -0.5


def test_generators_determine_the_result():
    first, same, other = make_policy(), make_policy(), make_policy()
    improvement = make_improvement()
    first_metrics, same_metrics = improve(improvement, first), improve(improvement, same)
    improve(improvement, other, seed=1)
    assert first_metrics == same_metrics
    assert torch.equal(parameters_of(first), parameters_of(same))
    assert not torch.equal(parameters_of(first), parameters_of(other))


def test_an_interruption_leaves_the_policy_as_it_was():
    policy = make_policy()
    before = parameters_of(policy)

    def check():
        raise Interrupted

    with pytest.raises(Interrupted):
        improve(make_improvement(), policy, check=check)
    assert torch.equal(parameters_of(policy), before)


def test_parameters_that_are_not_finite_are_refused():
    with pytest.raises(NonFiniteError, match="A policy parameter after the update is not finite"):
        improve(make_improvement(RecordingUpdate(parameter_value=float("nan"))), make_policy())


def test_members_that_cannot_share_the_rollouts_are_refused_before_the_run():
    improvement = make_improvement(rollouts=42)
    improvement.require_compatible(members=7)
    with pytest.raises(ValueError, match="rollouts=42 cannot be shared equally by 5 ensemble members"):
        improvement.require_compatible(members=5)


def test_the_configuration_builds_the_paper_s_me_trpo():
    cfg = composed(f"env.horizon={HORIZON}")
    improvement = instantiate(cfg.algorithm.improvement)
    improvement.require_compatible(members=5)
    policy = instantiate(
        cfg.policy,
        observation_size=2,
        action_size=1,
        generator=torch.Generator().manual_seed(0),
        device="cpu",
    )
    counts = []

    def starts(count):
        counts.append(count)
        return torch.zeros(count, 2)

    metrics = improve(improvement, policy, starts=starts)
    assert counts == [50]
    assert metrics["line_search_accepted"] == 1
    assert metrics["kl"] <= 0.01


def test_an_update_leaves_the_spread_where_it_can_rise_again():
    policy = make_policy()
    metrics = improve(make_improvement(RecordingUpdate(parameter_value=-20.0)), policy)
    assert metrics["log_std"] == float(policy.log_std.detach()) == pytest.approx(-13.8)
