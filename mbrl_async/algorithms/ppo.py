"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347): one update."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from mbrl_async.algorithms.batch import Batch
from mbrl_async.algorithms.flat import flatten
from mbrl_async.policies.gaussian import Gaussian
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import Metrics, State, require_finite


class PPO:
    """Some gradient steps on all samples, on a surrogate that gains nothing from ratios far from 1.

    Adam's moments last from update to update, so one instance improves one policy.

    Args:
        clip_ratio: epsilon, the distance from 1 beyond which a ratio gains nothing.
        learning_rate: Adam's.
        gradient_steps: of an update, each on the whole batch.
    """

    def __init__(
        self,
        *,
        clip_ratio: Annotated[float, Field(gt=0, lt=1)],
        learning_rate: PositiveFloat,
        gradient_steps: PositiveInt,
    ) -> None:
        self._clip_ratio = clip_ratio
        self._learning_rate = learning_rate
        self._gradient_steps = gradient_steps
        self._improved: GaussianMLP | None = None
        self._restored: State = {}

    def update(self, policy: GaussianMLP, observations: Tensor, actions: Tensor, advantages: Tensor) -> Metrics:
        """Improve the policy in place.

        Args:
            policy: the one that sampled the actions; the same in every call.
            observations: (N, O).
            actions: (N, A), as the policy sampled them.
            advantages: (N,).

        Raises:
            NonFiniteError: a gradient, and so an observation, action, advantage or parameter, is not finite.
            ValueError: another policy than before, or rows that do not belong together.
        """
        adam = self._adam_of(policy)
        new: Gaussian = policy(observations)  # the first step's own forward pass, and the old distribution
        batch = Batch(observations, actions, advantages, new.detach())
        before = float(batch.surrogate(batch.old))
        for step in range(self._gradient_steps):
            adam.zero_grad()
            new = policy(observations) if step else new
            (-self._clipped_surrogate(batch, new)).backward()  # type: ignore[no-untyped-call]
            gradient = flatten([parameter.grad for parameter in policy.parameters() if parameter.grad is not None])
            require_finite(gradient, "The policy gradient")
            adam.step()
        adam.zero_grad()
        return self._metrics(batch, policy, before) | {"gradient_norm": float(gradient.norm())}

    def state_dict(self) -> State:
        """Adam's moments and step count of each parameter of the policy, as a copy."""
        if self._improved is None:
            return self._restored
        moments = self._adam.state_dict()["state"]
        return {str(index): {name: tensor.clone() for name, tensor in each.items()} for index, each in moments.items()}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`; the next update may be of another policy, the restored one."""
        self._improved = None
        self._restored = state

    def _adam_of(self, policy: GaussianMLP) -> torch.optim.Adam:
        if self._improved is None:
            self._improved = policy
            self._adam = self._restored_adam(policy)
        if self._improved is not policy:
            raise ValueError(
                "This PPO improved another policy before, whose moments it keeps: make one for each policy."
            )
        return self._adam

    def _restored_adam(self, policy: GaussianMLP) -> torch.optim.Adam:
        adam = torch.optim.Adam(policy.parameters(), lr=self._learning_rate)
        moments = {
            int(index): {name: tensor.clone() for name, tensor in each.items()}
            for index, each in self._restored.items()
        }
        adam.load_state_dict(adam.state_dict() | {"state": moments})
        return adam

    def _clipped_surrogate(self, batch: Batch, new: Gaussian) -> Tensor:
        """Mean of min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A): equation 7."""
        ratio = batch.ratio(new)  # (N,)
        clipped = ratio.clamp(1 - self._clip_ratio, 1 + self._clip_ratio)
        return torch.minimum(ratio * batch.advantages, clipped * batch.advantages).mean()

    @torch.no_grad()
    def _metrics(self, batch: Batch, policy: GaussianMLP, before: float) -> Metrics:
        new: Gaussian = policy(batch.observations)
        outside = (batch.ratio(new) - 1).abs() > self._clip_ratio
        return {
            "kl": float(new.kl_from(batch.old).mean()),
            "surrogate_gain": float(batch.surrogate(new)) - before,
            "clipped_share": float(outside.float().mean()),
        }
