"""Lists of tensors as one vector, for linear algebra over all parameters of a policy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """One vector of all entries, in order."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def split_like(vector: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Views of `vector` with the shapes of `tensors`: the inverse of `flatten`."""
    pieces = torch.split(vector, [tensor.numel() for tensor in tensors])
    return [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]


@torch.no_grad()
def assign(parameters: Sequence[Tensor], vector: Tensor) -> None:
    """Copy the entries of `vector` into `parameters`, in place."""
    for parameter, value in zip(parameters, split_like(vector, parameters), strict=True):
        parameter.copy_(value)
