"""The learned dynamics: independent deterministic networks that disagree where data is missing (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mbrl_async.dynamics.buffer import MemberTransitions
from mbrl_async.dynamics.mlp import BatchedMLP
from mbrl_async.dynamics.normaliser import Normaliser


class Ensemble(torch.nn.Module):
    """M networks that map [observation, action] to the change of the observation, all normalised.

    Weights and normalisation are buffers without gradient; `state_dict` holds everything that `predict` depends on.
    """

    network: Tensor  # (M, P)

    def __init__(
        self,
        *,
        observation_size: int,
        action_size: int,
        members: PositiveInt,
        hidden: Sequence[PositiveInt],
        minimum_std: PositiveFloat,
        observation_limit: PositiveFloat,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> None:
        """Draw the initial weights.

        Args:
            observation_size: O.
            action_size: A.
            members: M.
            hidden: width of each hidden layer.
            minimum_std: least standard deviation that a dimension is normalised by.
            observation_limit: predictions are clipped to plus and minus this, so that a bad model cannot diverge.
            generator: source of the initial weights.
            device: where the ensemble computes.
        """
        super().__init__()
        self._observation_limit = observation_limit
        self._shapes = ((members, observation_size), (members, action_size))
        self.mlp = BatchedMLP([observation_size + action_size, *hidden, observation_size])
        self.register_buffer("network", self.mlp.initial_parameters(members, generator).to(device))
        self.input_normaliser = Normaliser(
            members=members, size=observation_size + action_size, minimum_std=minimum_std, device=device
        )
        self.delta_normaliser = Normaliser(
            members=members, size=observation_size, minimum_std=minimum_std, device=device
        )

    @property
    def members(self) -> int:
        """M."""
        return len(self.network)

    @torch.no_grad()
    def predict(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Next observations (M, B, O): row b of member m is predicted by member m alone.

        Args:
            observations: (M, B, O).
            actions: (M, B, A), as executed (clipped).

        Raises:
            ValueError: the shapes do not fit the ensemble.
        """
        self._require_shapes(observations, actions)
        inputs = self.input_normaliser.normalise(torch.cat((observations, actions), dim=2))
        delta = self.delta_normaliser.restore(self.mlp.forward(self.network, inputs))
        return delta.add_(observations).clamp_(-self._observation_limit, self._observation_limit)

    def fit_normalisation(self, transitions: MemberTransitions) -> None:
        """Take each member's normalisation from its own transitions (M, N, ...)."""
        self.input_normaliser.fit(transitions.inputs)
        self.delta_normaliser.fit(transitions.deltas)

    def normalised(self, transitions: MemberTransitions) -> tuple[Tensor, Tensor]:
        """What the networks are fed (M, N, O + A), and what they should answer (M, N, O)."""
        inputs = self.input_normaliser.normalise(transitions.inputs)
        return inputs, self.delta_normaliser.normalise(transitions.deltas)

    def _require_shapes(self, observations: Tensor, actions: Tensor) -> None:
        expected = tuple((members, *observations.shape[1:2], size) for members, size in self._shapes)
        given = (tuple(observations.shape), tuple(actions.shape))
        if given != expected:
            raise ValueError(
                f"observations and actions have the shapes {given}: give each member as many rows, "
                f"(M, B, size), here {expected}."
            )
