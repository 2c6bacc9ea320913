"""States as bytes: tensors by safetensors, everything else by JSON; reading them executes no code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from mbrl_async.types import State

HEADER_LENGTH = 8
"""Bytes of the number that a safetensors file begins with: the length of its JSON header."""

ALIGNMENT = 8
"""Bytes of which that header is a multiple."""

TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What such a file calls them."""


class CheckpointError(Exception):
    """What was kept of a run cannot be used; the message says which file, and what to do."""


def encode(state: State) -> bytes:
    """The state as a safetensors file: a tensor is named by its path as JSON, the rest is one JSON text beside them."""
    return b"".join(encoded(state))


def encoded(state: State) -> Iterator[bytes | memoryview]:
    """The same file in pieces, of which those of tensors are no copies.

    The library's own `save` copies everything twice and lets no other thread of Python run meanwhile: for the paper's
    model learner, 47 MB, some 50 ms in which the collector would be late.
    """
    tensors = {json.dumps(path): tensor.detach().cpu().contiguous() for path, tensor in _tensors(state, [])}
    tensors = dict(sorted(tensors.items(), key=lambda named: -named[1].element_size()))  # so all are aligned
    header: dict[str, Any] = {"__metadata__": {"rest": json.dumps(_without_tensors(state))}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    yield len(text).to_bytes(HEADER_LENGTH, "little") + text
    for tensor in tensors.values():
        yield tensor.flatten().view(torch.uint8).numpy().data


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
