"""The worker that improves the policy without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from mbrl_async.algorithms.imagination import Rollouts
from mbrl_async.algorithms.policy_gradient import PolicyGradientImprovement
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.runtime.channels import Latest, Stream
from mbrl_async.types import Parameters, RolloutEnds, State, StepReport, Trajectory, copy_of


class OnPolicyLearner:
    """One step: one policy improvement on exactly the trajectories that came since the last one.

    Args:
        policy: what to improve.
        improvement: the algorithm.
        trajectories: where they come from.
        policies: where the policy goes.
        device: where the policy is.
    """

    publishes = "policy"
    on_policy = True
    """Learns from data of the newest policy alone: nothing may be collected during a step."""

    def __init__(
        self,
        *,
        policy: GaussianMLP,
        improvement: PolicyGradientImprovement,
        trajectories: Stream[Trajectory],
        policies: Latest,
        device: torch.device | str,
    ) -> None:
        self._policy = policy
        self._improvement = improvement
        self._trajectories = trajectories
        self._policies = policies
        self._device = device
        self._batch: list[Trajectory] = []
        self._taken = 0
        self._updates = 0

    @property
    def pulled(self) -> Mapping[str, int]:
        """Trajectories taken so far."""
        return {"trajectories": self._taken}

    def pull(self) -> bool:
        """Take every new trajectory; whether there is one to learn from."""
        arrived = self._trajectories.drain()
        self._batch += arrived
        self._taken += len(arrived)
        return bool(self._batch)

    def step(self) -> StepReport:
        """Improve the policy once.

        Raises:
            NonFiniteError: something observed, or a parameter, is not finite.
        """
        metrics = self._improvement.improve(self._policy, rollouts_of(self._batch, self._device))
        self._batch = []
        self._updates += 1
        return StepReport(metrics | {"updates": float(self._updates)})

    def result(self) -> Parameters:
        """The policy's parameters."""
        return self._policy.state_dict()

    def push(self) -> None:
        """Publish the policy."""
        self._policies.put(self.result())

    def state_dict(self) -> State:
        """Policy, improvement, counts, and the trajectories that the next step will use: nobody delivers them again."""
        return {
            "policy": copy_of(self._policy.state_dict()),
            "improvement": self._improvement.state_dict(),
            "batch": {str(index): trajectory.state_dict() for index, trajectory in enumerate(self._batch)},
            "taken": self._taken,
            "updates": self._updates,
        }

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self._policy.load_state_dict(state["policy"])
        self._improvement.load_state_dict(state["improvement"])
        self._batch = [Trajectory.from_state_dict(state["batch"][str(index)]) for index in range(len(state["batch"]))]
        self._taken = state["taken"]
        self._updates = state["updates"]

    def close(self) -> None:
        """Nothing is held outside Python."""


def rollouts_of(trajectories: Sequence[Trajectory], device: torch.device | str) -> Rollouts:
    """R trajectories of at most T steps, side by side; zeros behind the end of the shorter ones."""
    tensors = [trajectory.tensors for trajectory in trajectories]
    observations, actions, rewards = (
        pad_sequence([each[name] for each in tensors]).to(device) for name in ("observations", "actions", "rewards")
    )
    lengths = torch.tensor([trajectory.length for trajectory in trajectories], device=device)
    terminated = torch.tensor([trajectory.terminated for trajectory in trajectories], device=device)
    return Rollouts(observations, actions, rewards, RolloutEnds(lengths, terminated))
