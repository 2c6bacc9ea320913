"""The paper's ensemble for HalfCheetah, and the least that computing with it can take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

from mbrl_async.dynamics.ensemble import Ensemble, Precision
from mbrl_async.dynamics.outputs import Point

OBSERVATION_SIZE, ACTION_SIZE = 17, 6
MEMBERS, HIDDEN = 5, (512, 512, 512)
LAYER_SIZES = (OBSERVATION_SIZE + ACTION_SIZE, *HIDDEN, OBSERVATION_SIZE)


def make_ensemble(generator: torch.Generator, precision: Precision = "float32") -> Ensemble:
    """An untrained one."""
    return Ensemble(
        observation_size=OBSERVATION_SIZE,
        action_size=ACTION_SIZE,
        signals=0,
        members=MEMBERS,
        hidden=HIDDEN,
        minimum_std=1e-3,
        observation_limit=100.0,
        output=Point(),
        precision=precision,
        generator=generator,
        device="cpu",
    )


def prediction_products(batch: int) -> Callable[[], None]:
    """The matrix products of a prediction, so many inputs a member."""
    inputs, weights = _operands(batch)

    def multiply() -> None:
        for layer, weight in enumerate(weights):
            torch.bmm(inputs[layer], weight)

    return multiply


def training_products(batch: int) -> Callable[[], None]:
    """Those of a training step: forward, and backward to weights and to inputs, but to the first inputs."""
    inputs, weights = _operands(batch)

    def multiply() -> None:
        for layer, weight in enumerate(weights):
            torch.bmm(inputs[layer], weight)
            torch.bmm(inputs[layer].transpose(1, 2), inputs[layer + 1])
            if layer > 0:
                torch.bmm(inputs[layer + 1], weight.transpose(1, 2))

    return multiply


def _operands(batch: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Activations of every layer, (M, B, in), and weights, (M, in, out)."""
    generator = torch.Generator().manual_seed(0)
    activations = [torch.randn(MEMBERS, batch, size, generator=generator) for size in LAYER_SIZES]
    weights = [torch.randn(MEMBERS, *sizes, generator=generator) for sizes in pairwise(LAYER_SIZES)]
    return activations, weights
