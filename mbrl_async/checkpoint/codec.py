"""States as bytes: tensors by safetensors, everything else by JSON; reading them executes no code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mbrl_async.types import State

HEADER_LENGTH = 8
"""Bytes of the number that a safetensors file begins with: the length of its JSON header."""


class CheckpointError(Exception):
    """What was kept of a run cannot be used; the message says which file, and what to do."""


def encode(state: State) -> bytes:
    """The state as a safetensors file: a tensor is named by its path as JSON, the rest is one JSON text beside them."""
    tensors = {json.dumps(path): tensor.contiguous() for path, tensor in _tensors(state, [])}
    return save(tensors, metadata={"rest": json.dumps(_without_tensors(state))})


def decode(data: bytes) -> State:
    """The inverse of `encode`.

    Raises:
        CheckpointError: these bytes are no state.
    """
    try:
        tensors = load(data)
        length = int.from_bytes(data[:HEADER_LENGTH], "little")
        header = json.loads(data[HEADER_LENGTH : HEADER_LENGTH + length])
        state: State = json.loads(header["__metadata__"]["rest"])
        for name, tensor in tensors.items():
            *parents, last = json.loads(name)
            owner = state
            for parent in parents:
                owner = owner[parent]
            owner[last] = tensor
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"no saved state ({type(error).__name__}: {error})") from error
    return state


def _tensors(state: State, path: list[str]) -> Iterator[tuple[list[str], Tensor]]:
    for name, value in state.items():
        if isinstance(value, Tensor):
            yield [*path, name], value
        elif isinstance(value, dict):
            yield from _tensors(value, [*path, name])


def _without_tensors(state: State) -> dict[str, Any]:
    return {
        name: _without_tensors(value) if isinstance(value, dict) else value
        for name, value in state.items()
        if not isinstance(value, Tensor)
    }
