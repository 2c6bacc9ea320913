"""Solves symmetric positive definite systems of which only products are at hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SQUARED_RESIDUAL_TOLERANCE = 1e-10


def conjugate_gradient(product: Callable[[Tensor], Tensor], target: Tensor, iterations: int) -> Tensor:
    """Approximate x with product(x) = target (P,), by at most `iterations` products (Hestenes and Stiefel 1952).

    Starts at 0 and ends early once the squared residual is within 1e-10 of the squared target, relatively. The
    result meets x . product(x) = x . target, whenever it ends.
    """
    solution = torch.zeros_like(target)
    residual = target.clone()
    direction = target.clone()
    squared_residual = residual @ residual
    enough = SQUARED_RESIDUAL_TOLERANCE * squared_residual
    for _ in range(iterations):
        if squared_residual <= enough:
            break
        image = product(direction)
        length = squared_residual / (direction @ image)
        solution += length * direction
        residual -= length * image
        previous, squared_residual = squared_residual, residual @ residual
        direction = residual + squared_residual / previous * direction
    return solution
