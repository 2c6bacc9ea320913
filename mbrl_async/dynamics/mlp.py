"""Multilayer perceptrons of M members, computed together, with hand-written gradients.

The gradients are written by hand because automatic differentiation in a learner's thread holds the interpreter lock
long enough to delay a collector that acts in real time beside it.
Shape letters: M members, B batch, I inputs and J outputs of a layer, P numbers kept for one member.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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


class BatchedMLP:
    """One network shape for all members: ReLU between layers, linear output.

    It holds no parameters. They are one flat tensor (M, P), a row a member: one copy publishes them, and one optimiser
    call updates them. Behind the layers of a row lie the extras that the output has learned beside them.
    """

    def __init__(self, sizes: Sequence[int], output: Output, signals: int = 0) -> None:
        """Fix the shape.

        Args:
            sizes: inputs, width of each hidden layer, predicted quantities.
            output: what these are.
            signals: how many of them, at the end, are predicted without a spread.
        """
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

    def forward(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Outputs (M, B, J) for inputs (M, B, I): each member computes its own rows."""
        *hidden, last = self.layers(parameters)
        activation = inputs
        for layer in hidden:
            activation = torch.baddbmm(layer.bias, activation, layer.weight).relu_()
        return torch.baddbmm(last.bias, activation, last.weight)

    def loss_and_gradient(self, parameters: Tensor, inputs: Tensor, targets: Tensor, gradient: Tensor) -> Tensor:
        """The output's loss of each member (M,); its gradient goes into `gradient` (M, P), save the padding."""
        layers = self.layers(parameters)
        activations = [inputs]  # what each layer is fed: (M, B, I)
        for layer in layers[:-1]:
            activations.append(torch.baddbmm(layer.bias, activations[-1], layer.weight).relu_())
        outputs = torch.baddbmm(layers[-1].bias, activations[-1], layers[-1].weight)  # (M, B, J)
        loss, slope = self._output.loss_and_slope(outputs, self.extras(parameters), targets, self.extras(gradient))
        self._backpropagate(layers, activations, slope, self.layers(gradient))
        return loss

    def loss(self, parameters: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """The output's loss of each member (M,)."""
        return self._output.loss(self.forward(parameters, inputs), self.extras(parameters), targets)

    def sample(self, parameters: Tensor, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Predicted quantities (M, B, D), drawn from what the output says may happen."""
        return self._output.sample(self.forward(parameters, inputs), self.extras(parameters), generator)

    @staticmethod
    def _backpropagate(layers: list[Layer], activations: list[Tensor], error: Tensor, gradients: list[Layer]) -> None:
        """Fill `gradients` from the gradient with respect to the outputs; uses up the activations."""
        for index in reversed(range(len(layers))):
            torch.bmm(activations[index].transpose(1, 2), error, out=gradients[index].weight)
            torch.sum(error, dim=1, keepdim=True, out=gradients[index].bias)
            if index > 0:  # the inputs need no gradient
                slope = activations[index].sign_()  # ReLU's derivative: its output is positive or 0
                error = torch.bmm(error, layers[index].weight.transpose(1, 2)).mul_(slope)
