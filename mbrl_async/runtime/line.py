"""A line between two processes: a pipe for what is small, shared memory for tensors and arrays.

The memory has no name in any file system: whoever dies, and however, it is gone with the last process that holds it.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]

ALIGNMENT = 64
"""Bytes, as torch aligns its own: how products round may depend on it."""
SPARE = 1.25
"""How much larger than needed a memory is made, so that it is seldom made anew."""


class SharedMemory:
    """So many bytes that two processes see."""

    def __init__(self, size: int, file: int | None = None) -> None:
        """`file`: that of the other process, which gives it away; None: a new one."""
        self._file = _nameless_file(size) if file is None else file
        self.bytes: Bytes = np.frombuffer(mmap.mmap(self._file, size), np.uint8)

    def send(self, connection: Connection) -> None:
        """Give the other process a share, once."""
        send_handle(connection, self._file, None)
        os.close(self._file)

    @classmethod
    def receive(cls, connection: Connection, size: int) -> SharedMemory:
        """The other end of `send`."""
        memory = cls(size, recv_handle(connection))
        os.close(memory._file)
        return memory


class Line:
    """One end of a line.

    Who has sent arrays must hear from the other end before sending more: the same memory is used for them.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._outgoing: SharedMemory | None = None
        self._incoming: SharedMemory | None = None

    def send(self, message: object) -> None:
        """Send anything that can be pickled; its tensors arrive as copies on the CPU.

        Raises:
            OSError: nobody is at the other end.
        """
        pickled, arrays = _pickled(message)
        with self._sending:
            new = self._make_room(_end_of([len(each) for each in arrays]))
            self._copy_out(arrays)
            self._connection.send_bytes(
                pickle.dumps((pickled, [len(each) for each in arrays], None if new is None else len(new.bytes)))
            )
            if new is not None:
                new.send(self._connection)

    def receive(self) -> Any:
        """Wait for the next message.

        Raises:
            EOFError: nobody is at the other end.
            OSError: nor is there.
        """
        pickled, lengths, new_size = pickle.loads(self._connection.recv_bytes())
        if new_size is not None:
            self._incoming = SharedMemory.receive(self._connection, new_size)
        return pickle.loads(pickled, buffers=self._copies(lengths))

    def has_message(self, timeout: float) -> bool:
        """Whether there is a message, or nobody at the other end any more; waits up to `timeout` seconds."""
        return self._connection.poll(timeout)

    def _make_room(self, total: int) -> SharedMemory | None:
        """A new memory if so many bytes do not fit into the one that there is."""
        if total == 0 or (self._outgoing is not None and total <= len(self._outgoing.bytes)):
            return None
        self._outgoing = SharedMemory(int(SPARE * total))
        return self._outgoing

    def _copy_out(self, arrays: Sequence[Bytes]) -> None:
        position = 0
        for array in arrays:
            assert self._outgoing is not None, "there is room for what there is"
            self._outgoing.bytes[position : position + len(array)] = array
            position = _aligned(position + len(array))

    def _copies(self, lengths: Sequence[int]) -> list[Bytes]:
        """What lies in the memory, each in a copy of its own: who keeps a part keeps no other. Torch aligns them."""
        position, copies = 0, []
        for length in lengths:
            assert self._incoming is not None, "it came with the first array"
            copied: Bytes = torch.empty(length, dtype=torch.uint8).numpy()
            copied[:] = self._incoming.bytes[position : position + length]
            copies.append(copied)
            position = _aligned(position + length)
        return copies


def _nameless_file(size: int) -> int:
    """A descriptor of memory, or of a file where the system has no such memory."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("mbrl-async")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, size)
    return file


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _end_of(lengths: Sequence[int]) -> int:
    """Bytes that arrays of these lengths take; at least one, if there is any array."""
    return max(sum(_aligned(length) for length in lengths), min(1, len(lengths)))


def _pickled(message: object) -> tuple[bytes, list[Bytes]]:
    """The message without its arrays, and these."""
    arrays: list[Bytes] = []
    file = io.BytesIO()
    _Pickler(file, lambda buffer: arrays.append(np.asarray(buffer.raw()))).dump(message)
    return file.getvalue(), arrays


class _Pickler(pickle.Pickler):
    """Takes tensors as arrays; those that are one in memory, once."""

    def __init__(self, file: io.BytesIO, take: Callable[[pickle.PickleBuffer], None]) -> None:
        super().__init__(file, protocol=5, buffer_callback=take)
        self._arrays: dict[tuple[object, ...], Bytes] = {}

    def reducer_override(self, value: Any) -> Any:
        """See `pickle.Pickler`."""
        if not isinstance(value, Tensor):
            return NotImplemented
        key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if key not in self._arrays:
            self._arrays[key] = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return _tensor, (self._arrays[key], value.dtype, tuple(value.shape))


def _tensor(array: Bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(array).view(dtype).reshape(shape)
