"""Where the time of a policy improvement goes: `python -m benchmarks.policy_step`.

The sizes are HalfCheetah's and the paper's: 5 models of 3 x 512, a policy of 2 x 64, 50 x 200 imagined transitions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.measurement import Measurement, median_seconds, print_table, torch_threads
from mbrl_async.algorithms.advantages import AdvantageEstimator
from mbrl_async.algorithms.imagination import Rollouts, imagine
from mbrl_async.algorithms.model_based import ImaginedPolicyImprovement
from mbrl_async.algorithms.trpo import TRPO
from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.policies.baseline import LinearFeatureBaseline
from mbrl_async.policies.gaussian_mlp import GaussianMLP

OBSERVATION_SIZE, ACTION_SIZE, VELOCITY = 17, 6, 8  # HalfCheetah; VELOCITY: the index that is rewarded
MEMBERS, HIDDEN = 5, (512, 512, 512)
ROLLOUTS, HORIZON = 50, 200
MANY_ROLLOUTS = (250, 1000)
ACTIONS = 1000  # taken one by one in a measurement


class PolicyStep:
    """A policy improvement in an untrained ensemble, whole and in parts."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.ensemble = _ensemble(self.generator)
        self.baseline = LinearFeatureBaseline(regularisation=1e-5)
        self.estimator = AdvantageEstimator(discount=0.99, gae_lambda=1.0, bootstrap="zero", baseline=self.baseline)
        self.trpo = TRPO(
            step_size=0.01, conjugate_gradient_iterations=10, damping=1e-5, backtrack_ratio=0.8, backtracks=15
        )
        self.whole = ImaginedPolicyImprovement(
            rollouts=ROLLOUTS, horizon=HORIZON, advantages=self.estimator, update=self.trpo
        )

    def improve(self) -> None:
        """The whole of it, from a new policy."""
        self.whole.improve(self.policy(), self.ensemble, _reward, self._starts, self.generator, _go_on)

    def imagine(self, rollouts: int) -> Rollouts:
        """Rollouts of the paper's length."""
        starts = self._starts(rollouts)
        return imagine(self.policy(), self.ensemble, _reward, starts, HORIZON, self.generator, _go_on)

    def fit_baseline(self, rollouts: Rollouts) -> None:
        """The baseline alone."""
        self.baseline.fit_predict(rollouts.observations, rollouts.rewards, torch.zeros(HORIZON))

    def update(self, rollouts: Rollouts, advantages: Tensor) -> None:
        """One TRPO update of a new policy, the one that acted."""
        observations, actions = rollouts.observations[:-1].flatten(0, 1), rollouts.actions.flatten(0, 1)
        self.trpo.update(self.policy(), observations, actions, advantages.flatten())

    @torch.no_grad()
    def act(self) -> None:
        """Actions for single observations, as the collector takes them."""
        policy, observation = self.policy(), torch.zeros(OBSERVATION_SIZE)
        for _ in range(ACTIONS):
            policy(observation).sample(torch.randn(ACTION_SIZE, generator=self.generator))

    def policy(self) -> GaussianMLP:
        """The same untrained policy each time, so that updates do not depend on how many went before."""
        return GaussianMLP(
            observation_size=OBSERVATION_SIZE,
            action_size=ACTION_SIZE,
            hidden=(64, 64),
            initial_log_std=0.0,
            minimum_log_std=-13.8,
            generator=torch.Generator().manual_seed(0),
            device="cpu",
        )

    def _starts(self, count: int) -> Tensor:
        return 0.1 * torch.randn(count, OBSERVATION_SIZE, generator=self.generator)


def measure(threads: int, repetitions: int = 5) -> list[Measurement]:
    """Medians with this many torch threads."""
    label = f"{threads} thread{'s' if threads > 1 else ''}"
    with torch_threads(threads):
        step = PolicyStep()
        parts = _parts(step)
        seconds = dict(zip(parts, median_seconds(repetitions, *parts.values()), strict=True))
        imaginations = median_seconds(1, *(partial(step.imagine, rollouts) for rollouts in MANY_ROLLOUTS))
    action = seconds.pop("actions")
    speeds = {ROLLOUTS: ROLLOUTS * HORIZON / seconds["imagination"]}
    speeds |= {n: n * HORIZON / taken for n, taken in zip(MANY_ROLLOUTS, imaginations, strict=True)}
    return [
        *(Measurement(f"{part}, {label}", value, "s") for part, value in seconds.items()),
        *(Measurement(f"imagined transitions, {n} rollouts, {label}", value, "1/s") for n, value in speeds.items()),
        Measurement(f"one action, {label}", 1e6 * action / ACTIONS, "us"),
    ]


def _parts(step: PolicyStep) -> dict[str, Callable[[], object]]:
    rollouts = step.imagine(ROLLOUTS)
    advantages = step.estimator.estimate(rollouts.observations, rollouts.rewards)
    return {
        "policy improvement": step.improve,
        "imagination": lambda: step.imagine(ROLLOUTS),
        "baseline": lambda: step.fit_baseline(rollouts),
        "advantages, with the baseline": lambda: step.estimator.estimate(rollouts.observations, rollouts.rewards),
        "TRPO update": lambda: step.update(rollouts, advantages),
        "actions": step.act,
    }


def _ensemble(generator: torch.Generator) -> Ensemble:
    return Ensemble(
        observation_size=OBSERVATION_SIZE,
        action_size=ACTION_SIZE,
        members=MEMBERS,
        hidden=HIDDEN,
        minimum_std=1e-3,
        observation_limit=100.0,
        generator=generator,
        device="cpu",
    )


def _reward(observations: Tensor, actions: Tensor, _next_observations: Tensor) -> Tensor:
    return observations[..., VELOCITY] - 0.1 * actions.square().sum(-1)


def _go_on() -> None:
    """Nothing interrupts a benchmark."""


if __name__ == "__main__":
    print("medians of 5; the larger imaginations once, after one that does not count")
    for thread_count in (1, 2):
        print_table(measure(thread_count))
