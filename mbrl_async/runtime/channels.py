"""How workers hand results to each other: two channels, and no other way.

`Latest` carries parameters, of which only the newest matter. `Stream` carries trajectories, each delivered once, in
order, none lost.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Generic, TypeVar

from mbrl_async.types import Parameters, State, copy_of

Item = TypeVar("Item")


@dataclass(frozen=True)
class Versioned:
    """Published parameters. Readers copy what they want to change: the tensors are shared by all of them."""

    version: int
    """1 for the first that was published."""
    parameters: Parameters

    def state_dict(self) -> State:
        """No copy, because nobody changes published parameters."""
        return {"version": self.version, "parameters": dict(self.parameters)}

    @classmethod
    def from_state_dict(cls, state: State) -> Versioned:
        """The inverse of `state_dict`."""
        return cls(**state)


class Latest:
    """Holds the newest parameters that somebody published."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: Versioned | None = None

    def put(self, parameters: Parameters) -> None:
        """Publish a snapshot: the tensors are copied, so their owner may go on changing them."""
        snapshot = copy_of(parameters)
        with self._lock:
            version = 1 if self._newest is None else self._newest.version + 1
            self._newest = Versioned(version, snapshot)

    def get(self) -> Versioned | None:
        """The newest snapshot; None before the first."""
        with self._lock:
            return self._newest

    def state_dict(self) -> State:
        """The newest snapshot; empty before the first."""
        newest = self.get()
        return {} if newest is None else newest.state_dict()

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        with self._lock:
            self._newest = Versioned.from_state_dict(state) if state else None


class Stream(Generic[Item]):
    """Delivers every item once, in the order of arrival. Items are values that nobody changes any more.

    Anybody may put items in, but there is one consumer: what one has drained, another would never see. Wiring refuses
    a second one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: list[Item] = []
        self._delivered = 0

    def put(self, item: Item) -> None:
        """Append an item."""
        with self._lock:
            self._items.append(item)

    def drain(self) -> list[Item]:
        """Take everything that has come since the last call; empty if nothing has."""
        with self._lock:
            items = self._items[self._delivered :]
            self._delivered = max(self._delivered, len(self._items))
            return items

    def state_dict(self) -> State:
        """How many items were delivered; the items themselves are in the journal of the run."""
        with self._lock:
            return {"delivered": self._delivered}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`, for a new stream: items that were delivered are put again, but not delivered."""
        with self._lock:
            self._delivered = state["delivered"]

    @property
    def history(self) -> list[Item]:
        """Everything that ever came, delivered or not: it stays until the results are written.

        A HalfCheetah trajectory is 20 kB, so 1250 of them, three and a half robot hours, are 24 MiB.
        """
        with self._lock:
            return list(self._items)
