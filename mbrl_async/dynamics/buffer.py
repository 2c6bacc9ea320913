"""Where real transitions are kept for training: every member has a training and a validation split of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from mbrl_async.types import State, Transitions


@dataclass(frozen=True)
class MemberTransitions:
    """N transitions for each of M members."""

    observations: Tensor  # (M, N, O)
    actions: Tensor  # (M, N, A)
    outcomes: Tensor  # (M, N, O + E)

    @property
    def size(self) -> int:
        """N."""
        return self.observations.shape[1]

    @property
    def inputs(self) -> Tensor:
        """What a model is told: observation, then action."""
        return torch.cat((self.observations, self.actions), dim=2)  # (M, N, O + A)

    @property
    def targets(self) -> Tensor:
        """What a model should answer: the change of the observation, then the signals."""
        next_observations, signals = self.outcomes.tensor_split([self.observations.shape[2]], dim=2)
        return torch.cat((next_observations - self.observations, signals), dim=2)  # (M, N, O + E)


class FirstInFirstOut:
    """The newest rows of each member, at most `capacity`; W numbers a row."""

    def __init__(self, *, members: int, capacity: int, width: int, device: torch.device | str) -> None:
        self._rows = torch.zeros(members, capacity, width, device=device)  # (M, capacity, W)
        self.appended = 0
        """Rows that ever came."""

    def __len__(self) -> int:
        return min(self.appended, self._rows.shape[1])

    @property
    def rows(self) -> Tensor:
        """A view of the rows that are kept (M, N, W), in no promised order."""
        return self._rows[:, : len(self)]

    def append(self, rows: Tensor) -> None:
        """Add rows (M, n, W), oldest first; the oldest that are kept make room."""
        capacity = self._rows.shape[1]
        newest = rows[:, -capacity:]
        self.appended += rows.shape[1]
        places = torch.arange(self.appended - newest.shape[1], self.appended, device=rows.device) % capacity
        self._rows[:, places] = newest

    def state_dict(self) -> State:
        """Everything that is kept, as a copy."""
        return {"rows": self.rows.clone(), "appended": self.appended}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self.appended = state["appended"]
        self.rows.copy_(state["rows"])


class TransitionBuffer:
    """Splits every addition at random, for each member anew, into training and validation transitions.

    All members hold equally many rows, so either split is one batched tensor. Of all that ever came, the configured
    fraction is held out, however short the single additions are.
    """

    def __init__(
        self,
        *,
        members: int,
        capacity: PositiveInt,
        validation_fraction: Annotated[float, Field(gt=0, lt=1)],
        observation_size: int,
        action_size: int,
        signals: int,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> None:
        """Start empty.

        Args:
            members: M.
            capacity: transitions of one member, both splits together.
            validation_fraction: share of the capacity, and of what is added, that is held out.
            observation_size: O.
            action_size: A.
            signals: E.
            generator: source of the splits.
            device: where the transitions are kept.

        Raises:
            ValueError: a split of the capacity is empty.
        """
        self._members = members
        self._validation_fraction = validation_fraction
        self._sizes = [observation_size, action_size, observation_size + signals]
        self._generator = generator
        validation_capacity = round(capacity * validation_fraction)
        train_capacity = capacity - validation_capacity
        if not 0 < validation_capacity < capacity:
            raise ValueError(
                f"validation_fraction={validation_fraction} of capacity={capacity} leaves a split empty: "
                "use a larger capacity, or a fraction nearer to a half."
            )
        width = sum(self._sizes)
        self._train = FirstInFirstOut(members=members, capacity=train_capacity, width=width, device=device)
        self._validation = FirstInFirstOut(members=members, capacity=validation_capacity, width=width, device=device)

    def __len__(self) -> int:
        """Transitions that each member holds, both splits together."""
        return len(self._train) + len(self._validation)

    @property
    def trainable(self) -> bool:
        """Whether there is something to learn from and something to test on."""
        return len(self._train) > 0 and len(self._validation) > 0

    @property
    def train(self) -> MemberTransitions:
        """What each member learns from, as views that the next `append` changes."""
        return MemberTransitions(*torch.split(self._train.rows, self._sizes, dim=2))

    @property
    def validation(self) -> MemberTransitions:
        """What each member is tested on, as views that the next `append` changes."""
        return MemberTransitions(*torch.split(self._validation.rows, self._sizes, dim=2))

    def append(self, transitions: Transitions) -> None:
        """Add the transitions of one trajectory, in the order of time.

        Raises:
            ValueError: sizes other than the buffer's.
        """
        rows = self._rows_of(transitions)  # (N, W)
        held_out = self._held_out_of(len(rows))
        order = torch.stack([self._permutation(len(rows)) for _ in range(self._members)])  # (M, N)
        self._validation.append(rows[order[:, :held_out].sort(dim=1).values.to(rows.device)])
        self._train.append(rows[order[:, held_out:].sort(dim=1).values.to(rows.device)])

    def state_dict(self) -> State:
        """All transitions and the generator, as a copy."""
        return {
            "train": self._train.state_dict(),
            "validation": self._validation.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self._train.load_state_dict(state["train"])
        self._validation.load_state_dict(state["validation"])
        self._generator.set_state(state["generator"])

    def _permutation(self, size: int) -> Tensor:
        return torch.randperm(size, generator=self._generator, device=self._generator.device)

    def _rows_of(self, transitions: Transitions) -> Tensor:
        fields = (transitions.observations, transitions.actions, transitions.outcomes)
        shapes = [tuple(field.shape) for field in fields]
        expected = [(len(transitions), size) for size in self._sizes]
        if shapes != expected:
            raise ValueError(f"transitions have the shapes {shapes}: this buffer takes {expected}.")
        return torch.cat(fields, dim=1)

    def _held_out_of(self, size: int) -> int:
        """How many of the next `size` rows are held out, so that of all rows so far the fraction is."""
        before = self._train.appended + self._validation.appended
        return self._held_out_in_all(before + size) - self._held_out_in_all(before)

    def _held_out_in_all(self, rows: int) -> int:
        """The fraction of them; of two or more at least one, and not all."""
        return max(0, min(rows - 1, max(1, round(rows * self._validation_fraction))))
