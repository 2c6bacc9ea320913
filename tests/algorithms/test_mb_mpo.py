import itertools

import pytest
import torch

from mbrl_async.algorithms.adaptation import Adaptation, split
from mbrl_async.algorithms.advantages import AdvantageEstimator
from mbrl_async.algorithms.flat import flatten
from mbrl_async.algorithms.mb_mpo import MBMPO
from mbrl_async.algorithms.task_imagination import imagine_tasks
from mbrl_async.algorithms.trust_region import TrustRegion
from mbrl_async.policies.adapted import adapted_policies
from mbrl_async.policies.baseline import LinearFeatureBaseline
from mbrl_async.policies.stack import PolicyStack
from mbrl_async.types import Interrupted, NonFiniteError
from tests.algorithms.settings import trust_region_settings
from tests.algorithms.test_model_based import make_policy, parameters_of, reward, starts_from
from tests.imagined import FunctionTask

TASKS, ROLLOUTS, HORIZON, RATE = 6, 10, 20, 0.01


class DisagreeingPointMass:
    """Models of a point [position, velocity] that an action pushes; the members differ in how far."""

    members = 3
    pushes = torch.tensor([0.4, 0.5, 0.6])[:, None]

    def predict(self, observations, actions, _generator):
        position, velocity = observations.unbind(-1)
        return torch.stack([position + 0.1 * velocity, velocity + self.pushes * actions[..., 0]], dim=-1)


def make_advantages():
    return AdvantageEstimator(
        discount=0.99, gae_lambda=1.0, bootstrap="zero", baseline=LinearFeatureBaseline(regularisation=1e-5)
    )


def make_mb_mpo(**changes):
    of_region = {name: changes.pop(name) for name in ("step_size", "backtracks") if name in changes}
    settings = trust_region_settings(step_size=0.02, curvature_interval=2) | of_region
    arguments = {
        "tasks": TASKS,
        "rollouts": ROLLOUTS,
        "horizon": HORIZON,
        "adaptation_rate": RATE,
        "advantages": make_advantages(),
        "trust_region": TrustRegion(**settings),
    }
    return MBMPO(**arguments | changes)


def improve(improvement, policy, *, model=None, seed=0, check=lambda: None):
    generator = torch.Generator().manual_seed(seed)
    starts = starts_from(torch.Generator().manual_seed(seed + 1))
    return improvement.improve(policy, model or DisagreeingPointMass(), FunctionTask(reward), starts, generator, check)


def rows_of_published(improvement, policy):
    """The adapted parameters (J, P)."""
    return torch.stack([flatten(list(each.values())) for each in adapted_policies(improvement.published(policy))])


def test_it_learns_to_stop_point_masses():
    policy, improvement = make_policy(), make_mb_mpo(step_size=0.05)
    history = [improve(improvement, policy, seed=2 * step) for step in range(30)]
    returns = [metrics["adapted_imagined_return"] for metrics in history]
    # The untrained policy drives the points away. Of eight seeds seven ended between -1.4 and -17, from -12 to -202 at
    # first, and one at -5.3, from -4.1; this run's is fixed.
    assert max(returns[:2]) < -6
    assert sum(returns[-5:]) / 5 > -2
    assert all(metrics["kl"] <= 0.05 for metrics in history)


def test_what_is_published_are_the_adapted_policies_that_the_line_search_accepted():
    policy, improvement = make_policy(), make_mb_mpo()
    start = parameters_of(policy)
    metrics = improve(improvement, policy)
    assert metrics["line_search_accepted"] == 1
    stack = PolicyStack(policy)
    begin = starts_from(torch.Generator().manual_seed(1))(TASKS * ROLLOUTS).unflatten(0, (TASKS, -1))
    before = imagine_tasks(
        stack,
        start.expand(TASKS, -1),
        DisagreeingPointMass(),
        FunctionTask(reward),
        begin,
        HORIZON,
        torch.Generator().manual_seed(0),
        lambda: None,
    )
    advantages = make_advantages().estimate(before.observations, before.rewards, before.ends)
    adaptation = Adaptation(stack, split(before, advantages), RATE, lambda: None)
    assert torch.equal(rows_of_published(improvement, policy), adaptation.adapted(parameters_of(policy)))
    assert metrics["imagined_return"] == pytest.approx(before.rewards.sum(0).mean().item())
    published = improvement.published(policy)
    assert all(torch.equal(published[name], tensor) for name, tensor in policy.state_dict().items())


def test_without_an_accepted_step_the_parameters_stay_and_the_tasks_still_adapt():
    policy, improvement = make_policy(), make_mb_mpo(step_size=1e6, backtracks=1)
    before = parameters_of(policy)
    metrics = improve(improvement, policy)
    assert metrics["line_search_accepted"] == metrics["kl"] == metrics["surrogate_gain"] == 0
    assert torch.equal(parameters_of(policy), before)
    adapted = rows_of_published(improvement, policy)
    assert adapted.shape == (TASKS, len(before))
    distances = (adapted - before).norm(dim=1)
    # A gradient of size 0.1 to 10 times the rate of 0.01.
    assert distances.min() > 1e-4
    assert distances.max() < 1


def test_generators_determine_the_result():
    results = []
    for seed in (0, 0, 1):
        policy, improvement = make_policy(), make_mb_mpo()
        metrics = improve(improvement, policy, seed=seed)
        results.append((metrics, parameters_of(policy), rows_of_published(improvement, policy)))
    first, same, other = results
    assert first[0] == same[0]
    assert torch.equal(first[1], same[1])
    assert torch.equal(first[2], same[2])
    assert not torch.equal(first[1], other[1])


def test_it_can_be_interrupted_anywhere_and_then_leaves_the_policy_as_it_was():
    counted = itertools.count()
    improve(make_mb_mpo(), make_policy(), check=lambda: next(counted))
    checks = next(counted)
    assert checks > 2 * HORIZON + 10, "imagination, adaptation, curvature and line search all ask"
    for last in (0, HORIZON, 2 * HORIZON + 1, checks // 2, checks - 1):
        steps = itertools.count()

        def check(steps=steps, last=last):
            if next(steps) == last:
                raise Interrupted

        policy = make_policy()
        before = parameters_of(policy)
        with pytest.raises(Interrupted):
            improve(make_mb_mpo(), policy, check=check)
        assert torch.equal(parameters_of(policy), before)


def test_one_restored_publishes_the_same():
    policy, improvement = make_policy(), make_mb_mpo()
    improve(improvement, policy)
    state, before = improvement.state_dict(), rows_of_published(improvement, policy)
    restored = make_mb_mpo()
    restored.load_state_dict(state)
    improve(improvement, policy, seed=5)
    assert torch.equal(rows_of_published(restored, policy), before), "the state is no copy"


def test_a_diverged_model_is_named_and_the_policy_kept():
    class Diverged(DisagreeingPointMass):
        def predict(self, observations, actions, generator):
            return super().predict(observations, actions, generator) * float("inf")

    policy = make_policy()
    before = parameters_of(policy)
    with pytest.raises(NonFiniteError, match="An imagined observation, reward or termination is not finite"):
        improve(make_mb_mpo(), policy, model=Diverged())
    assert torch.equal(parameters_of(policy), before)


def test_members_that_cannot_share_the_tasks_are_refused_before_the_run():
    improvement = make_mb_mpo()
    improvement.require_compatible(members=3)
    with pytest.raises(ValueError, match="tasks=6 cannot be shared equally by 5 ensemble members"):
        improvement.require_compatible(members=5)


def test_an_update_leaves_the_spread_where_it_can_rise_again():
    policy = make_policy()
    improve(make_mb_mpo(), policy)
    policy.minimum_log_std = float(policy.log_std.detach()) + 0.5  # as if the next update had pushed it so far
    metrics = improve(make_mb_mpo(), policy, seed=2)
    assert metrics["log_std"] == float(policy.log_std.detach()) == pytest.approx(policy.minimum_log_std)
