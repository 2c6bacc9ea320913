from __future__ import annotations

import pytest
import torch

from mbrl_async.algorithms.batch import Batch
from mbrl_async.algorithms.flat import flatten
from mbrl_async.algorithms.ppo import PPO
from mbrl_async.policies.gaussian import Gaussian
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import Metrics, NonFiniteError

ROWS = 500


def make_ppo(**changes) -> PPO:
    return PPO(**{"clip_ratio": 0.2, "learning_rate": 1e-3, "gradient_steps": 5} | changes)


def make_policy(seed: int = 0) -> GaussianMLP:
    return GaussianMLP(
        observation_size=4,
        action_size=2,
        hidden=[16],
        initial_log_std=0.0,
        minimum_log_std=-13.8,
        generator=torch.Generator().manual_seed(seed),
        device="cpu",
    )


def sample(policy: GaussianMLP, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    observations = torch.randn(ROWS, 4, generator=generator)
    with torch.no_grad():
        return observations, policy(observations).sample(torch.randn(ROWS, 2, generator=generator))


def test_it_finds_the_best_action_of_a_known_problem():
    """A bandit whose reward is -|a - (0.5, -0.5)|^2: of 8 seeds tried, the mean came within 0.011 to 0.017."""
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        policy, ppo, best = make_policy(seed), make_ppo(learning_rate=3e-3), torch.tensor([0.5, -0.5])
        for _ in range(150):
            observations, actions = sample(policy, generator)
            rewards = -(actions - best).square().sum(1)
            ppo.update(policy, observations, actions, (rewards - rewards.mean()) / rewards.std())
        with torch.no_grad():
            assert (policy(observations).mean - best).abs().mean() < 0.05


def test_one_step_is_adams_step_along_the_policy_gradient():
    """At the old policy nothing is clipped, and Adam's first step is the learning rate times the gradient's sign."""
    generator = torch.Generator().manual_seed(0)
    policy = make_policy()
    observations, actions = sample(policy, generator)
    advantages = torch.randn(ROWS, generator=generator)
    weight = (policy(observations).log_probability(actions) * advantages).mean()
    gradient = flatten(torch.autograd.grad(weight, list(policy.parameters())))
    before = flatten(list(policy.parameters())).detach()
    make_ppo(gradient_steps=1).update(policy, observations, actions, advantages)
    step = flatten(list(policy.parameters())).detach() - before
    large = gradient.abs() > 1e-5  # where Adam's epsilon of 1e-8 does not count
    assert large.sum() > 100
    assert torch.allclose(step[large], 1e-3 * gradient[large].sign(), rtol=2e-3)  # epsilon / gradient at most


def test_samples_outside_the_clip_with_a_gain_have_no_gradient():
    """One row for each case; the new mean is 0.1 instead of 0, and each action has the ratio that its row is about."""
    ratios = torch.tensor([1.3, 0.7, 1.3, 0.7, 1.1, 1.1, 0.9, 0.9])
    advantages = torch.tensor([2.0, -2.0, -2.0, 2.0, 2.0, -2.0, 2.0, -2.0])
    gained_outside = torch.tensor([True, True] + 6 * [False])
    mean, log_std = torch.full((8, 1), 0.1, requires_grad=True), torch.zeros(1)
    actions = (ratios.log()[:, None] + 0.005) / 0.1  # log ratio = 0.1 action - 0.1^2 / 2
    batch = Batch(torch.zeros(8, 1), actions, advantages, Gaussian(torch.zeros(8, 1), log_std))
    (gradient,) = torch.autograd.grad(make_ppo()._clipped_surrogate(batch, Gaussian(mean, log_std)), [mean])
    plain = advantages * ratios * (actions - mean.detach()).squeeze(1) / 8  # equation 6
    assert (plain.abs() > 1e-3).all()
    torch.testing.assert_close(gradient.squeeze(1), plain.where(~gained_outside, torch.zeros(8)))


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_an_update_goes_no_further_once_all_it_can_gain_is_gained(advantage):
    """The first of its steps takes the only sample out of the clip, the second finds no gradient."""
    observations, actions = torch.ones(1, 4), torch.ones(1, 2)

    def update(gradient_steps: int) -> Metrics:
        ppo = make_ppo(learning_rate=0.1, gradient_steps=gradient_steps)
        return ppo.update(make_policy(), observations, actions, torch.tensor([advantage]))

    first, second = update(1), update(2)
    assert first["clipped_share"] == 1.0
    assert first["surrogate_gain"] > 0.2
    assert first["kl"] > 0
    assert first["gradient_norm"] > 0.1
    assert second["gradient_norm"] == 0.0


def test_moments_last_from_update_to_update():
    generator = torch.Generator().manual_seed(0)
    policies = [make_policy(), make_policy()]
    kept, first = make_ppo(), make_ppo()
    for number in range(3):
        observations, actions = sample(policies[0], generator)
        advantages = torch.randn(ROWS, generator=generator)
        kept.update(policies[0], observations, actions, advantages)
        (first if number == 0 else make_ppo()).update(policies[1], observations, actions, advantages)
    assert not torch.equal(policies[0].log_std, policies[1].log_std)


def test_another_policy_is_refused():
    generator = torch.Generator().manual_seed(0)
    ppo, policy = make_ppo(), make_policy()
    observations, actions = sample(policy, generator)
    ppo.update(policy, observations, actions, torch.ones(ROWS))
    with pytest.raises(ValueError, match="improved another policy before"):
        ppo.update(make_policy(), observations, actions, torch.ones(ROWS))


def test_advantages_that_are_not_finite_are_an_error_and_change_nothing():
    generator = torch.Generator().manual_seed(0)
    policy = make_policy()
    before = flatten(list(policy.parameters())).detach().clone()
    observations, actions = sample(policy, generator)
    with pytest.raises(NonFiniteError, match="policy gradient is not finite"):
        make_ppo().update(policy, observations, actions, torch.full((ROWS,), torch.nan))
    assert torch.equal(before, flatten(list(policy.parameters())).detach())


def test_rows_that_do_not_belong_together_are_refused():
    policy = make_policy()
    observations, actions = sample(policy, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="do not fit"):
        make_ppo().update(policy, observations, actions, torch.ones(ROWS, 1))
