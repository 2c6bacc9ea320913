"""Asking an ensemble again and again, as imagination and planning do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mbrl_async.dynamics.ensemble import Ensemble


class Predictor:
    """An ensemble as it was when this was made: take a new one when it has changed.

    It holds the weights as the products need them, and the memory of the hidden layers, which lasts from call to call:
    rollouts of ten rows a member spend a third of their time on such things if every step makes them anew.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self.members = ensemble.members
        """M."""
        self._ensemble = ensemble
        self._layers = ensemble.mlp.compute_layers(ensemble.network)
        self._bounds = ensemble.observation_bounds()
        self._extras = ensemble.mlp.extras(ensemble.network)
        self._hidden: list[Tensor] = []  # (M, B, width), one a hidden layer

    @torch.no_grad()
    def predict(self, observations: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Outcomes (M, B, O + E), next observation first: row b of member m is predicted by member m alone.

        Args:
            observations: (M, B, O).
            actions: (M, B, A), as executed (clipped).
            generator: draws what the output leaves to chance.

        Raises:
            ValueError: the shapes do not fit the ensemble.
        """
        ensemble = self._ensemble
        ensemble.require_shapes(observations, actions)
        inputs = ensemble.input_normaliser.normalise(torch.cat((observations, actions), dim=2))
        outputs = ensemble.mlp.apply(self._layers, inputs, self._memory_for(inputs.shape[1]))
        outcomes = ensemble.target_normaliser.restore(ensemble.mlp.sample(outputs, self._extras, generator))
        change = outcomes[..., : observations.shape[2]]
        change.add_(observations).clamp_(*self._bounds)
        return outcomes

    def _memory_for(self, rows: int) -> list[Tensor]:
        if not self._hidden or self._hidden[0].shape[1] != rows:
            self._hidden = [
                layer.bias.new_empty(self.members, rows, layer.bias.shape[2]) for layer in self._layers[:-1]
            ]
        return self._hidden
