"""Multilayer perceptrons of M members, computed together, with hand-written gradients.

The gradients are written by hand because automatic differentiation in a learner's thread holds the interpreter lock
long enough to delay a collector that acts in real time beside it.
Shape letters: M members, B batch, I inputs and J outputs of a layer, P numbers kept for one member.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat

import torch
from torch import Tensor

from mbrl_async.dynamics.outputs import Output

CACHE_LINE = 16
"""float32 numbers in 64 bytes; rows that start elsewhere cost 3 % of an epoch (5 x 3 x 512, AMD Zen 3)."""


@dataclass(frozen=True)
class Layer:
    """Views into the flat parameters, or into their gradient."""

    weight: Tensor  # (M, I, J)
    bias: Tensor  # (M, 1, J)

    def __call__(self, inputs: Tensor, memory: Tensor | None = None) -> Tensor:
        """Sums (M, B, J) of inputs (M, B, I) in the layer's precision; in `memory` if there is any."""
        return torch.baddbmm(self.bias, inputs, self.weight, out=memory)

    def to(self, precision: torch.dtype) -> Layer:
        """The layer in this precision; itself if it has it."""
        return Layer(self.weight.to(precision), self.bias.to(precision))


class BatchedMLP:
    """One network shape for all members: ReLU between layers, linear output.

    It holds no parameters. They are one flat tensor (M, P), a row a member: one copy publishes them, and one optimiser
    call updates them. Behind the layers of a row lie the extras that the output has learned beside them.
    """

    def __init__(
        self, sizes: Sequence[int], output: Output, signals: int = 0, precision: torch.dtype | None = None
    ) -> None:
        """Fix the shape.

        Args:
            sizes: inputs, width of each hidden layer, predicted quantities.
            output: what these are.
            signals: how many of them, at the end, are predicted without a spread.
            precision: of the products between hidden layers, which are nearly all of them; None: the parameters' own,
                which the first and the last layer and all gradients have in any case.
        """
        self._precision = precision
        *widths, quantities = sizes
        spread = quantities - signals
        self._shapes = list(pairwise([*widths, output.width(quantities, spread)]))
        self._output = output
        self._initial_extras = output.initial_extras(spread)  # (K,)
        self._used_by_layers = sum((inputs + 1) * outputs for inputs, outputs in self._shapes)

    @property
    def row_size(self) -> int:
        """P: the parameters of one member, and padding that is never used."""
        return math.ceil((self._used_by_layers + len(self._initial_extras)) / CACHE_LINE) * CACHE_LINE

    def layers(self, parameters: Tensor) -> list[Layer]:
        """The layers' weights and biases in flat parameters (M, P), as views."""
        layers, start = [], 0
        for inputs, outputs in self._shapes:
            end = start + inputs * outputs
            weight = parameters[:, start:end].view(-1, inputs, outputs)
            start = end + outputs
            layers.append(Layer(weight, parameters[:, None, end:start]))
        return layers

    def extras(self, parameters: Tensor) -> Tensor:
        """What the output has learned beside the layers, in flat parameters (M, P): a view (M, K)."""
        return parameters[:, self._used_by_layers : self._used_by_layers + len(self._initial_extras)]

    def initial_parameters(self, members: int, generator: torch.Generator) -> Tensor:
        """Glorot-uniform weights, zero biases and the output's extras (M, P), on the generator's device."""
        parameters = torch.zeros(members, self.row_size, device=generator.device)
        for layer in self.layers(parameters):
            bound = math.sqrt(6 / (layer.weight.shape[1] + layer.weight.shape[2]))
            layer.weight.uniform_(-bound, bound, generator=generator)
        self.extras(parameters).copy_(self._initial_extras)
        return parameters

    def compute_layers(self, parameters: Tensor) -> list[Layer]:
        """The layers as the products need them: views of flat parameters (M, P), or copies in their precision."""
        layers = self.layers(parameters)
        between = slice(1, len(layers) - 1)
        layers[between] = [layer.to(self._precision or parameters.dtype) for layer in layers[between]]
        return layers

    def apply(self, layers: Sequence[Layer], inputs: Tensor, memory: Sequence[Tensor | None] = ()) -> Tensor:
        """Outputs (M, B, J) of these layers for inputs (M, B, I): each member computes its own rows.

        Args:
            layers: from `compute_layers`.
            inputs: normalised.
            memory: for the sums of the hidden layers, (M, B, width) each in the layer's precision; empty: it is made.
        """
        return layers[-1](self._fed(layers, inputs, memory)[-1])

    def loss_and_gradient(self, parameters: Tensor, inputs: Tensor, targets: Tensor, gradient: Tensor) -> Tensor:
        """The output's loss of each member (M,); its gradient goes into `gradient` (M, P), save the padding."""
        layers = self.compute_layers(parameters)
        fed = self._fed(layers, inputs)
        outputs = layers[-1](fed[-1])  # (M, B, J)
        loss, slope = self._output.loss_and_slope(outputs, self.extras(parameters), targets, self.extras(gradient))
        self._backpropagate(layers, fed, slope, self.layers(gradient))
        return loss

    def loss(self, parameters: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """The output's loss of each member (M,)."""
        outputs = self.apply(self.compute_layers(parameters), inputs)
        return self._output.loss(outputs, self.extras(parameters), targets)

    def sample(self, outputs: Tensor, extras: Tensor, generator: torch.Generator) -> Tensor:
        """Predicted quantities (M, B, D), drawn from what outputs (M, B, J) and extras (M, K) say may happen."""
        return self._output.sample(outputs, extras, generator)

    @staticmethod
    def _fed(layers: Sequence[Layer], inputs: Tensor, memory: Sequence[Tensor | None] = ()) -> list[Tensor]:
        """What each layer is fed, in its precision: (M, B, I)."""
        fed = [inputs]
        for (layer, following), sums in zip(pairwise(layers), memory or repeat(None), strict=False):
            fed.append(layer(fed[-1], sums).relu_().to(following.weight.dtype))
        return fed

    @staticmethod
    def _backpropagate(layers: list[Layer], fed: list[Tensor], error: Tensor, gradients: list[Layer]) -> None:
        """Fill `gradients` from the gradient with respect to the outputs; uses up what the layers were fed."""
        for index in reversed(range(len(layers))):
            weight, gradient = layers[index].weight, gradients[index]
            error = error.to(weight.dtype)  # (M, B, J)
            _multiply(fed[index].transpose(1, 2), error, gradient.weight)
            torch.sum(error, dim=1, keepdim=True, dtype=gradient.bias.dtype, out=gradient.bias)
            if index > 0:  # the inputs need no gradient
                slope = fed[index].sign_()  # ReLU's derivative: its output is positive or 0
                error = torch.bmm(error, weight.transpose(1, 2)).mul_(slope)


def _multiply(left: Tensor, right: Tensor, result: Tensor) -> None:
    """Put the batched product into `result`, in its precision."""
    if left.dtype == result.dtype:
        torch.bmm(left, right, out=result)
    else:
        result.copy_(torch.bmm(left, right))
