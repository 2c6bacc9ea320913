from __future__ import annotations

import pytest
import torch

from mbrl_async.dynamics.starts import CAPACITY, StartObservations


def numbered(count: int) -> StartObservations:
    starts = StartObservations(observation_size=2, device="cpu")
    for number in range(count):
        starts.append(torch.tensor([number, -number]))
    return starts


def test_draws_are_uniform_over_what_was_stored() -> None:
    drawn = numbered(4).sample(4000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[:, 0], -drawn[:, 1])
    # Four counts of 4000 draws at 1/4: standard deviation 27, and the bound is five of them.
    assert (drawn[:, 0].long().bincount(minlength=4) - 1000).abs().max() < 137


def test_the_newest_are_kept() -> None:
    drawn = numbered(CAPACITY + 10).sample(20_000, torch.Generator().manual_seed(0))
    # Each of 1000 is missed by 20 000 draws with odds of 2e-9.
    assert set(drawn[:, 0].int().tolist()) == set(range(10, CAPACITY + 10))


def test_they_travel_with_the_state() -> None:
    copy = StartObservations(observation_size=2, device="cpu")
    copy.load_state_dict(numbered(3).state_dict())
    first, second = (each.sample(9, torch.Generator().manual_seed(1)) for each in (copy, numbered(3)))
    assert torch.equal(first, second)


def test_nothing_can_be_drawn_from_nothing() -> None:
    with pytest.raises(ValueError, match="no start observation is stored yet: learn from a real trajectory first"):
        numbered(0).sample(1, torch.Generator())
