"""The channels of a run as a worker in another process sees them.

A worker's maker travels there as a pickle, without the channels that it holds: in their place the worker finds far ends
with the same methods. What a worker takes, its far end asks for; what it puts, the far end keeps until whoever stands
for the worker comes for it.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

from mbrl_async.runtime.channels import Latest, Stream, Versioned
from mbrl_async.runtime.worker import WorkerMaker
from mbrl_async.types import Parameters

Channel = Latest | Stream[Any]

Put = tuple[int, Any]
"""The number of a channel, and what is put into it."""

Ask = Callable[[int, int], Any]
"""The number of a channel and the version that is known there -> what `newer` says."""


class Crossing:
    """The near side: takes the channels out of a maker, and answers for them.

    Raises:
        TypeError: the maker cannot be pickled.
    """

    def __init__(self, maker: WorkerMaker) -> None:
        self._channels: list[Channel] = []
        try:
            self.maker = self._pickled(maker)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(f"its maker cannot go to another process, because it cannot be pickled: {error}") from error

    def newer(self, number: int, known: int) -> Any:
        """Everything new of a stream; the newest parameters, or None if they are the known version."""
        channel = self._channels[number]
        if isinstance(channel, Stream):
            return channel.drain()
        newest = channel.get()
        return None if newest is None or newest.version == known else newest

    def put(self, item: Put) -> None:
        """Put what a far end kept into the channel."""
        number, value = item
        self._channels[number].put(value)

    def _pickled(self, maker: WorkerMaker) -> bytes:
        file = io.BytesIO()
        _Without(file, self._number_of).dump(maker)
        return file.getvalue()

    def _number_of(self, channel: Channel) -> int:
        for number, known in enumerate(self._channels):
            if known is channel:
                return number
        self._channels.append(channel)
        return len(self._channels) - 1


class FarEnds:
    """The far side: makes the maker again, with far ends for its channels.

    Args:
        ask: brings what is new.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._ends: dict[int, FarLatest | FarStream] = {}
        self._kept: list[Put] = []

    def maker(self, pickled: bytes) -> WorkerMaker:
        """The maker; only of this program's own bytes, for it may execute code."""
        maker: WorkerMaker = _With(io.BytesIO(pickled), self._end).load()
        return maker

    def kept(self) -> list[Put]:
        """What was put since the last call, in order."""
        kept, self._kept = self._kept, []
        return kept

    def _end(self, name: tuple[str, int]) -> FarLatest | FarStream:
        kind, number = name
        if number not in self._ends:
            end = FarStream if kind == Stream.__name__ else FarLatest
            self._ends[number] = end(number, self._ask, self._kept_by)
        return self._ends[number]

    def _kept_by(self, item: Put) -> None:
        self._kept.append(item)


class FarLatest:
    """See `Latest`."""

    def __init__(self, number: int, ask: Ask, keep: Callable[[Put], None]) -> None:
        self._number = number
        self._ask = ask
        self._keep = keep
        self._newest: Versioned | None = None

    def put(self, parameters: Parameters) -> None:
        """Publish a snapshot: it is copied when the step's report is sent, before the owner goes on."""
        self._keep((self._number, parameters))

    def get(self) -> Versioned | None:
        """The newest snapshot; the same object as before if that is still the newest."""
        known = 0 if self._newest is None else self._newest.version
        newer: Versioned | None = self._ask(self._number, known)
        if newer is not None:
            self._newest = newer
        return self._newest


class FarStream:
    """See `Stream`."""

    def __init__(self, number: int, ask: Ask, keep: Callable[[Put], None]) -> None:
        self._number = number
        self._ask = ask
        self._keep = keep

    def put(self, item: Any) -> None:
        """Append an item."""
        self._keep((self._number, item))

    def drain(self) -> list[Any]:
        """Take everything that has come since the last call."""
        drained: list[Any] = self._ask(self._number, 0)
        return drained


class _Without(pickle.Pickler):
    """Writes a name where a channel would be."""

    def __init__(self, file: io.BytesIO, number_of: Callable[[Channel], int]) -> None:
        super().__init__(file)
        self._number_of = number_of

    def persistent_id(self, value: Any) -> tuple[str, int] | None:
        """See `pickle.Pickler`."""
        if isinstance(value, Latest | Stream):
            return type(value).__name__, self._number_of(value)
        return None


class _With(pickle.Unpickler):
    """Puts a far end where a channel was."""

    def __init__(self, file: io.BytesIO, end: Callable[[tuple[str, int]], FarLatest | FarStream]) -> None:
        super().__init__(file)
        self._end = end

    def persistent_load(self, name: Any) -> FarLatest | FarStream:
        """See `pickle.Unpickler`."""
        return self._end(name)
