"""Where real trajectories began: a model's knowledge of the start distribution."""

from __future__ import annotations

import torch
from torch import Tensor

CAPACITY = 1000
"""Start observations that are kept: enough that a draw from them hardly differs from a draw of their distribution."""


class StartObservations(torch.nn.Module):
    """The first observations of the newest real trajectories."""

    rows: Tensor  # (CAPACITY, O)
    appended: Tensor  # (), int64: how many ever came

    def __init__(self, *, observation_size: int, device: torch.device | str) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(CAPACITY, observation_size, device=device))
        self.register_buffer("appended", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return min(int(self.appended), CAPACITY)

    def append(self, observation: Tensor) -> None:
        """Keep the observation (O,) that a trajectory began with; the oldest makes room."""
        self.rows[int(self.appended) % CAPACITY] = observation
        self.appended += 1

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws (count, O), with replacement.

        Raises:
            ValueError: no trajectory has begun yet.
        """
        if len(self) == 0:
            raise ValueError("no start observation is stored yet: learn from a real trajectory first.")
        chosen = torch.randint(len(self), (count,), generator=generator, device=generator.device)
        return self.rows[chosen.to(self.rows.device)]
