"""A small meta-learning problem in float64, and its plain definition with one task after another."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from mbrl_async.algorithms.flat import flatten, split_like
from mbrl_async.algorithms.imagination import Rollouts
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.policies.stack import PolicyStack
from mbrl_async.types import RolloutEnds

TASKS, ROLLOUTS, HORIZON, OBSERVATION_SIZE, ACTION_SIZE = 3, 4, 5, 3, 2
RATE = 0.1  # large, so that what goes through the inner step is seen


def make_policy():
    policy = GaussianMLP(
        observation_size=OBSERVATION_SIZE,
        action_size=ACTION_SIZE,
        hidden=[5, 4],
        initial_log_std=0.0,
        minimum_log_std=-13.8,
        generator=torch.Generator().manual_seed(0),
        device="cpu",
    ).double()
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([-0.7, 0.4]))
    return policy


def random_rollouts(seed):
    """Rollouts (T, J, R) without any system, and advantages."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows = (TASKS, ROLLOUTS)
    observations, actions = random(HORIZON + 1, *rows, OBSERVATION_SIZE), random(HORIZON, *rows, ACTION_SIZE)
    rewards = random(HORIZON, *rows)
    return Rollouts(observations, actions, rewards, RolloutEnds.at_horizon(rewards)), random(HORIZON, *rows)


def problem():
    policy = make_policy()
    return SimpleNamespace(
        policy=policy,
        stack=PolicyStack(policy),
        start=flatten(list(policy.parameters())).detach(),
        before=random_rollouts(1),
        after=random_rollouts(2),
    )


def distribution(policy, parameters, observations):
    """Of the policy with other parameters (P,)."""
    names, shapes = zip(*policy.named_parameters(), strict=True)
    return torch.func.functional_call(
        policy, dict(zip(names, split_like(parameters, shapes), strict=True)), (observations,)
    )


def adapt_one(policy, parameters, rollouts, advantages, task):
    """The inner step of one task, differentiable: (P,) -> (P,)."""
    gaussian = distribution(policy, parameters, rollouts.observations[:-1, task])
    loss = -(gaussian.log_probability(rollouts.actions[:, task]) * advantages[:, task]).mean()
    (gradient,) = torch.autograd.grad(loss, parameters, create_graph=True)
    return parameters - RATE * gradient


def surrogate_and_kl(given, parameters):
    """The outer objective and the mean KL at `parameters` (P,), by a loop over the tasks."""
    surrogates, kls = [], []
    rollouts, advantages = given.after
    for task in range(TASKS):
        observations, actions = rollouts.observations[:-1, task], rollouts.actions[:, task]
        start = given.start.clone().requires_grad_()
        adapted_start = adapt_one(given.policy, start, *given.before, task).detach()
        old = distribution(given.policy, adapted_start, observations).detach()
        new = distribution(given.policy, adapt_one(given.policy, parameters, *given.before, task), observations)
        ratio = (new.log_probability(actions) - old.log_probability(actions)).exp()
        surrogates.append((ratio * advantages[:, task]).mean())
        kls.append(new.kl_from(old).mean())
    return torch.stack(surrogates).mean(), torch.stack(kls).mean()
