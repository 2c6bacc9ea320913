"""Where the time of a policy improvement goes.

The sizes are HalfCheetah's and the paper's: 5 models of 3 x 512, a policy of 2 x 64, 50 x 200 imagined transitions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.measurement import Measurement, median_seconds, torch_threads
from benchmarks.paper_ensemble import ACTION_SIZE, MEMBERS, OBSERVATION_SIZE, make_ensemble, prediction_products
from benchmarks.program_settings import settings
from mbrl_async.algorithms.advantages import AdvantageEstimator
from mbrl_async.algorithms.imagination import Rollouts, imagine
from mbrl_async.algorithms.model_based import ImaginedPolicyImprovement
from mbrl_async.algorithms.policy_gradient import PolicyUpdate
from mbrl_async.algorithms.ppo import PPO
from mbrl_async.algorithms.trpo import TRPO
from mbrl_async.config import build
from mbrl_async.dynamics.precision import DTYPES, Precision
from mbrl_async.policies.baseline import LinearFeatureBaseline
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import TaskSpec
from mbrl_async.workers.policy_learner import PolicyImprovement

VELOCITY = 8  # the index of HalfCheetah's observation that is rewarded
ROLLOUTS, HORIZON = 50, 200
ACTIONS = 1000  # taken one by one in a measurement


class RewardedVelocity:
    """HalfCheetah's reward, without its body."""

    spec = TaskSpec(OBSERVATION_SIZE, ACTION_SIZE, HORIZON, 0.05)

    def reward(self, observations: Tensor, actions: Tensor, _outcomes: Tensor, /) -> Tensor:
        """Forward velocity, less the cost of control: (...)."""
        return observations[..., VELOCITY] - 0.1 * actions.square().sum(-1)

    def termination(self, _observations: Tensor, _actions: Tensor, _outcomes: Tensor, /) -> None:
        """Never."""


class PolicyStep:
    """A policy improvement in an untrained ensemble, whole and in parts."""

    def __init__(self, precision: Precision = "float32", device: str = "cpu") -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.precision = precision
        self._device = device
        self.model = make_ensemble(self.generator, precision, device).predictor()
        self.task = RewardedVelocity()
        cfg = settings()
        improvement = cfg.algorithm.improvement
        self.baseline: LinearFeatureBaseline = build(improvement.advantages.baseline)
        self.estimator: AdvantageEstimator = build(improvement.advantages)
        self.trpo: TRPO = build(improvement["update"])
        self.whole: ImaginedPolicyImprovement = build(improvement)
        self._ppo: PPO = build(settings("algorithm=me_ppo").algorithm.improvement["update"])
        sizes = {"observation_size": OBSERVATION_SIZE, "action_size": ACTION_SIZE}
        self._policy: GaussianMLP = build(
            cfg.policy, **sizes, generator=torch.Generator().manual_seed(0), device=self._device
        )

    def improve(self, improvement: PolicyImprovement) -> None:
        """The whole of it, from a new policy."""
        improvement.improve(self.policy(), self.model, self.task, self._starts, self.generator, _go_on)

    def imagine(self, rollouts: int) -> Rollouts:
        """Rollouts of the paper's length."""
        starts = self._starts(rollouts)
        return imagine(self.policy(), self.model, self.task, starts, HORIZON, self.generator, _go_on)

    def fit_baseline(self, rollouts: Rollouts) -> None:
        """The baseline alone."""
        no_continuation = torch.zeros_like(rollouts.rewards)
        self.baseline.fit_predict(rollouts.observations, rollouts.rewards, no_continuation, rollouts.ends)

    def estimate(self, rollouts: Rollouts) -> Tensor:
        """Advantages, with the baseline."""
        return self.estimator.estimate(rollouts.observations, rollouts.rewards, rollouts.ends)

    def update(self, update: PolicyUpdate, rollouts: Rollouts, advantages: Tensor) -> None:
        """One update of a new policy, the one that acted."""
        observations, actions = rollouts.observations[:-1].flatten(0, 1), rollouts.actions.flatten(0, 1)
        update.update(self.policy(), observations, actions, advantages.flatten())

    def ppo(self) -> PPO:
        """A new one, for it belongs to the policy that it first improves."""
        return copy.deepcopy(self._ppo)

    @torch.no_grad()
    def act(self) -> None:
        """Actions for single observations, as the collector takes them."""
        policy, observation = self.policy(), torch.zeros(OBSERVATION_SIZE)
        for _ in range(ACTIONS):
            policy(observation).sample(torch.randn(ACTION_SIZE, generator=self.generator))

    def policy(self) -> GaussianMLP:
        """The same untrained policy each time, so that updates do not depend on how many went before."""
        return copy.deepcopy(self._policy)

    def _starts(self, count: int) -> Tensor:
        return 0.1 * torch.randn(count, OBSERVATION_SIZE, generator=self.generator).to(self._device)


def measure(threads: int, repetitions: int, many_rollouts: Sequence[int]) -> list[Measurement]:
    """Medians with this many torch threads; imagining `many_rollouts`, which takes long, only once."""
    with torch_threads(threads):
        steps = [PolicyStep(precision) for precision in DTYPES]
        return [
            *_seconds_of_parts(steps[0], threads, repetitions),
            _action(steps[0], threads, repetitions),
            *(row for step in steps for row in _precision_matters(step, threads, repetitions, many_rollouts)),
        ]


def _precision_matters(
    step: PolicyStep, threads: int, repetitions: int, many_rollouts: Sequence[int]
) -> list[Measurement]:
    (whole,) = median_seconds(repetitions, lambda: step.improve(step.whole))
    rows = [
        Measurement("policy improvement", whole, "s", threads),
        _imagination(step, ROLLOUTS, threads, repetitions),
        *(_imagination(step, rollouts, threads, 1) for rollouts in many_rollouts),
    ]
    return [replace(row, name=f"{row.name}, {step.precision}") for row in rows]


def _seconds_of_parts(step: PolicyStep, threads: int, repetitions: int) -> list[Measurement]:
    parts = _parts(step)
    seconds = median_seconds(repetitions, *parts.values())
    return [Measurement(part, value, "s", threads) for part, value in zip(parts, seconds, strict=True)]


def _imagination(step: PolicyStep, rollouts: int, threads: int, repetitions: int) -> Measurement:
    products = prediction_products(rollouts // MEMBERS, step.precision)

    def products_of_all_steps() -> None:
        for _ in range(HORIZON):
            products()

    imagination, least = median_seconds(repetitions, lambda: step.imagine(rollouts), products_of_all_steps)
    name = f"imagined transitions, {rollouts} rollouts"
    return Measurement(name, rollouts * HORIZON / imagination, "1/s", threads, least / imagination)


def _action(step: PolicyStep, threads: int, repetitions: int) -> Measurement:
    (actions,) = median_seconds(repetitions, step.act)
    return Measurement("one action", 1e6 * actions / ACTIONS, "us", threads)


def _parts(step: PolicyStep) -> dict[str, Callable[[], object]]:
    rollouts = step.imagine(ROLLOUTS)
    advantages = step.estimate(rollouts)
    return {
        "baseline": lambda: step.fit_baseline(rollouts),
        "advantages, with the baseline": lambda: step.estimate(rollouts),
        "TRPO update": lambda: step.update(step.trpo, rollouts, advantages),
        "PPO update": lambda: step.update(step.ppo(), rollouts, advantages),
    }


def _go_on() -> None:
    """Nothing interrupts a benchmark."""
