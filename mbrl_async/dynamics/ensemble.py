"""The learned dynamics: independent networks that disagree where data is missing (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mbrl_async.dynamics.buffer import MemberTransitions
from mbrl_async.dynamics.mlp import BatchedMLP
from mbrl_async.dynamics.normaliser import Normaliser
from mbrl_async.dynamics.outputs import Output
from mbrl_async.dynamics.precision import PrecisionChoice, dtype_of
from mbrl_async.dynamics.prediction import Predictor
from mbrl_async.dynamics.starts import StartObservations


class Ensemble(torch.nn.Module):
    """M networks that map [observation, action] to the change of the observation and the learned signals, normalised.

    Weights, normalisation and stored starts are buffers without gradient; `state_dict` holds everything that
    imagination depends on.
    """

    network: Tensor  # (M, P)

    def __init__(
        self,
        *,
        observation_size: int,
        action_size: int,
        signals: int,
        members: PositiveInt,
        hidden: Sequence[PositiveInt],
        minimum_std: PositiveFloat,
        observation_limit: PositiveFloat,
        observation_deviations: PositiveFloat | None,
        output: Output,
        precision: PrecisionChoice,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> None:
        """Draw the initial weights.

        Args:
            observation_size: O.
            action_size: A.
            signals: E.
            members: M.
            hidden: width of each hidden layer.
            minimum_std: least standard deviation that a dimension is normalised by.
            observation_limit: predicted observations are clipped to plus and minus this, so that a bad model cannot
                diverge.
            observation_deviations: and to so many standard deviations from the mean of each member's training data, in
                each dimension; None: not.
            output: what the networks say of an outcome, and how far they are from the truth.
            precision: of the products between hidden layers; everything else is float32.
            generator: source of the initial weights.
            device: where the ensemble computes.
        """
        super().__init__()
        self.observation_limit = observation_limit
        self._observation_deviations = observation_deviations
        self._shapes = ((members, observation_size), (members, action_size))
        sizes = [observation_size + action_size, *hidden, observation_size + signals]
        self.mlp = BatchedMLP(sizes, output, signals, dtype_of(precision, device))
        self.register_buffer("network", self.mlp.initial_parameters(members, generator).to(device))
        self.input_normaliser = Normaliser(
            members=members, size=observation_size + action_size, minimum_std=minimum_std, device=device
        )
        self.target_normaliser = Normaliser(
            members=members, size=observation_size + signals, minimum_std=minimum_std, device=device
        )
        self.starts = StartObservations(observation_size=observation_size, device=device)

    @property
    def members(self) -> int:
        """M."""
        return len(self.network)

    def predictor(self) -> Predictor:
        """Answers for the ensemble as it is now."""
        return Predictor(self)

    def observation_bounds(self) -> tuple[Tensor, Tensor]:
        """The least and the greatest observation that each member predicts, both (M, 1, O)."""
        size = self._shapes[0][1]
        mean, std = self.input_normaliser.mean[..., :size], self.input_normaliser.std[..., :size]
        deviations = torch.inf if self._observation_deviations is None else self._observation_deviations
        reach = torch.where(std == 0, torch.inf, deviations * std)  # what never changed stays where a rollout began
        limit = self.observation_limit
        return (mean - reach).clamp(-limit, limit), (mean + reach).clamp(-limit, limit)

    def fit_normalisation(self, transitions: MemberTransitions) -> None:
        """Take each member's normalisation from its own transitions (M, N, ...)."""
        self.input_normaliser.fit(transitions.inputs)
        self.target_normaliser.fit(transitions.targets)

    def normalised(self, transitions: MemberTransitions) -> tuple[Tensor, Tensor]:
        """What the networks are fed (M, N, O + A), and what they should answer (M, N, O + E)."""
        inputs = self.input_normaliser.normalise(transitions.inputs)
        return inputs, self.target_normaliser.normalise(transitions.targets)

    def require_shapes(self, observations: Tensor, actions: Tensor) -> None:
        """Refuse observations and actions that are not (M, B, O) and (M, B, A).

        Raises:
            ValueError: with both shapes.
        """
        expected = tuple((members, *observations.shape[1:2], size) for members, size in self._shapes)
        given = (tuple(observations.shape), tuple(actions.shape))
        if given != expected:
            raise ValueError(
                f"observations and actions have the shapes {given}: give each member as many rows, "
                f"(M, B, size), here {expected}."
            )
