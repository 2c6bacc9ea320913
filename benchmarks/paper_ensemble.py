"""The paper's ensemble for HalfCheetah, and the least that computing with it can take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.dynamics.outputs import Point
from mbrl_async.dynamics.precision import DTYPES, Precision

OBSERVATION_SIZE, ACTION_SIZE = 17, 6
MEMBERS, HIDDEN = 5, (512, 512, 512)
LAYER_SIZES = (OBSERVATION_SIZE + ACTION_SIZE, *HIDDEN, OBSERVATION_SIZE)


def make_ensemble(
    generator: torch.Generator,
    precision: Precision = "float32",
    device: str = "cpu",
    sizes: tuple[int, int] = (OBSERVATION_SIZE, ACTION_SIZE),
) -> Ensemble:
    """An untrained one, with the same weights on every device if the generator is the CPU's."""
    observation_size, action_size = sizes
    return Ensemble(
        observation_size=observation_size,
        action_size=action_size,
        signals=0,
        members=MEMBERS,
        hidden=HIDDEN,
        minimum_std=1e-3,
        observation_limit=100.0,
        observation_deviations=None,
        output=Point(),
        precision=precision,
        generator=generator,
        device=device,
    )


def prediction_products(batch: int, precision: Precision = "float32") -> Callable[[], None]:
    """The matrix products of a prediction, so many inputs a member."""
    layers = _operands(batch, precision)

    def multiply() -> None:
        for inputs, weight, _ in layers:
            torch.bmm(inputs, weight)

    return multiply


def training_products(batch: int, precision: Precision = "float32") -> Callable[[], None]:
    """Those of a training step: forward, and backward to weights and to inputs, but to the first inputs."""
    layers = _operands(batch, precision)

    def multiply() -> None:
        for layer, (inputs, weight, outputs) in enumerate(layers):
            torch.bmm(inputs, weight)
            torch.bmm(inputs.transpose(1, 2), outputs)
            if layer > 0:
                torch.bmm(outputs, weight.transpose(1, 2))

    return multiply


def _operands(batch: int, precision: Precision) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Inputs (M, B, in), weights (M, in, out) and outputs (M, B, out) of every layer, as the ensemble has them."""
    generator = torch.Generator().manual_seed(0)
    activations = [torch.randn(MEMBERS, batch, size, generator=generator) for size in LAYER_SIZES]
    weights = [torch.randn(MEMBERS, *sizes, generator=generator) for sizes in pairwise(LAYER_SIZES)]
    outer = (0, len(weights) - 1)
    dtypes = [torch.float32 if layer in outer else DTYPES[precision] for layer in range(len(weights))]
    layers = zip(activations[:-1], weights, activations[1:], dtypes, strict=True)
    return [(inputs.to(dtype), weight.to(dtype), outputs.to(dtype)) for inputs, weight, outputs, dtype in layers]
