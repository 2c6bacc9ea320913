"""Every transition carries its number in all its fields, so lost, repeated and torn rows are seen."""

from __future__ import annotations

import pytest
import torch

from mbrl_async.dynamics.buffer import MemberTransitions, TransitionBuffer
from mbrl_async.types import Transitions


def numbered(start: int, size: int) -> Transitions:
    numbers = torch.arange(start, start + size, dtype=torch.float32)[:, None]
    return Transitions(numbers.expand(-1, 3), 0.5 * numbers.expand(-1, 2), numbers.expand(-1, 3) + 0.25)


def numbers(transitions: MemberTransitions) -> list[list[int]]:
    """Each member's numbers in ascending order, after checking that each row is whole."""
    kept = transitions.observations[:, :, :1]
    assert torch.equal(transitions.observations, kept.expand(-1, -1, 3))
    assert torch.equal(transitions.actions, 0.5 * kept.expand(-1, -1, 2))
    assert torch.equal(transitions.outcomes, kept.expand(-1, -1, 3) + 0.25)
    return kept.squeeze(2).sort(dim=1).values.int().tolist()


def test_each_member_splits_every_trajectory_completely_and_on_its_own(make_buffer) -> None:
    buffer = make_buffer(members=4)
    for start in (0, 100, 200):
        buffer.append(numbered(start, 100))
    assert (len(buffer), buffer.train.size, buffer.validation.size) == (300, 240, 60)
    train, validation = numbers(buffer.train), numbers(buffer.validation)
    for mine, held_out in zip(train, validation, strict=True):
        assert sorted(mine + held_out) == list(range(300))  # disjoint and complete
        assert [sum(number // 100 == trajectory for number in held_out) for trajectory in range(3)] == [20, 20, 20]
    assert len({tuple(held_out) for held_out in validation}) == 4  # equal by chance: once in 1e20


def test_the_oldest_make_room_in_the_order_of_their_arrival(make_buffer) -> None:
    everything, bounded = make_buffer(capacity=10_000), make_buffer(capacity=70)  # the same generator: the same splits
    for count, start in enumerate(range(0, 210, 30), start=1):
        for buffer in (everything, bounded):
            buffer.append(numbered(start, 30))
        assert (bounded.train.size, bounded.validation.size) == (min(56, 24 * count), min(14, 6 * count))
        assert numbers(bounded.train) == [row[-56:] for row in numbers(everything.train)]
        assert numbers(bounded.validation) == [row[-14:] for row in numbers(everything.validation)]


@pytest.mark.parametrize("sizes", [[500], [35, 500], [500, 7], [100, 100]])
def test_one_addition_larger_than_the_capacity_keeps_its_newest(make_buffer, sizes: list[int]) -> None:
    everything, bounded = make_buffer(capacity=10_000), make_buffer(capacity=50)
    start = 0
    for size in sizes:
        for buffer in (everything, bounded):
            buffer.append(numbered(start, size))
        start += size
    assert len(bounded) == 50
    assert numbers(bounded.train) == [row[-40:] for row in numbers(everything.train)]
    assert numbers(bounded.validation) == [row[-10:] for row in numbers(everything.validation)]


def test_the_generator_determines_the_splits(make_buffer) -> None:
    first, same, other = make_buffer(seed=5), make_buffer(seed=5), make_buffer(seed=6)
    for buffer in (first, same, other):
        buffer.append(numbered(0, 100))
    assert numbers(first.validation) == numbers(same.validation)
    assert numbers(first.validation) != numbers(other.validation)


def test_a_restored_buffer_goes_on_like_the_original(make_buffer) -> None:
    original, restored = make_buffer(capacity=50, seed=5), make_buffer(capacity=50, seed=5)
    original.append(numbered(0, 35))
    restored.append(numbered(500, 35))  # overwritten below; brings both generators to the same point
    restored.load_state_dict(original.state_dict())
    for buffer in (original, restored):
        buffer.append(numbered(35, 30))
    assert numbers(original.train) == numbers(restored.train)
    assert numbers(original.validation) == numbers(restored.validation)


def test_a_saved_state_does_not_change_with_the_buffer(make_buffer) -> None:
    buffer = make_buffer()
    state = buffer.state_dict()
    buffer.append(numbered(1, 100))
    assert not state["train"]["rows"].any()


@pytest.mark.parametrize("fraction", [0.002, 0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_of_short_trajectories_too_the_fraction_is_held_out(make_buffer, size: int, fraction: float) -> None:
    buffer = make_buffer(fraction=fraction)
    for start in range(0, 40 * size, size):
        buffer.append(numbered(start, size))
        rounded = round(len(buffer) * fraction)
        assert buffer.validation.size == (0 if len(buffer) == 1 else min(max(rounded, 1), len(buffer) - 1))
    for mine, held_out in zip(numbers(buffer.train), numbers(buffer.validation), strict=True):
        assert sorted(mine + held_out) == list(range(40 * size))


def test_both_splits_must_hold_something_to_train(make_buffer) -> None:
    buffer = make_buffer(fraction=0.2)
    trainable = []
    for start in range(4):
        trainable.append(buffer.trainable)
        buffer.append(numbered(start, 1))
    assert trainable == [False, False, True, True]


def test_refuses_a_capacity_that_leaves_a_split_empty(make_buffer) -> None:
    with pytest.raises(ValueError, match=r"validation_fraction=0.2 of capacity=2 leaves a split empty"):
        make_buffer(capacity=2)


@pytest.mark.parametrize(
    "wrong",
    [
        Transitions(torch.zeros(10, 4), torch.zeros(10, 2), torch.zeros(10, 4)),
        Transitions(torch.zeros(10, 3), torch.zeros(10, 3), torch.zeros(10, 3)),
        Transitions(torch.zeros(11, 3), torch.zeros(10, 2), torch.zeros(10, 3)),
        Transitions(torch.zeros(5, 10, 3), torch.zeros(5, 10, 2), torch.zeros(5, 10, 3)),
    ],
)
def test_refuses_transitions_of_other_sizes(make_buffer, wrong: Transitions) -> None:
    buffer: TransitionBuffer = make_buffer()
    with pytest.raises(ValueError, match="transitions have the shapes"):
        buffer.append(wrong)
