"""What goes into one end of a line comes out of the other, on whatever way."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch

from mbrl_async.runtime.line import ALIGNMENT, Line
from mbrl_async.types import Trajectory

TENSORS = {
    "matrix": torch.arange(12.0).reshape(3, 4),
    "transposed": torch.arange(12.0).reshape(3, 4).T,
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "truth": torch.tensor([True, False]),
    "half": torch.arange(5).bfloat16(),
    "empty": torch.empty(0, 3),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "generator": torch.Generator().manual_seed(3).get_state(),
}


@pytest.fixture
def ends() -> tuple[Line, Line]:
    near, far = multiprocessing.Pipe()
    return Line(near), Line(far)


def sent(ends: tuple[Line, Line], message: object) -> object:
    ends[0].send(message)
    received = ends[1].receive()
    ends[1].send("received")
    assert ends[0].receive() == "received"
    return received


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_arrives_as_it_is_and_as_torch_would_align_it(ends, name):
    arrived = sent(ends, {"deep": [TENSORS[name]]})["deep"][0]
    assert torch.equal(arrived, TENSORS[name])
    assert (arrived.dtype, arrived.shape, arrived.requires_grad) == (TENSORS[name].dtype, TENSORS[name].shape, False)
    assert arrived.data_ptr() % ALIGNMENT == 0


def test_what_arrived_is_a_copy_that_later_messages_leave_alone(ends):
    source = torch.zeros(100)
    first = sent(ends, source)
    source += 1
    second = sent(ends, source)
    assert first.sum() == 0
    assert second.sum() == 100
    first += 5
    assert second.sum() == 100


def test_any_size_may_follow_any_other(ends):
    for size in (1, 100_000, 10, 3_000_000, 0, 7):
        tensor = torch.arange(size, dtype=torch.float32)
        assert torch.equal(sent(ends, tensor), tensor)


def test_tensors_that_are_one_in_memory_are_sent_once(ends):
    tensor = torch.ones(8)
    one, other, changed = sent(ends, (tensor, tensor.detach(), tensor.clone()))
    assert one.data_ptr() == other.data_ptr() != changed.data_ptr()


def test_parts_of_one_tensor_are_not_taken_for_each_other(ends):
    tensor = torch.arange(12.0).reshape(3, 4)
    parts = (tensor, tensor[0], tensor[:, 0], tensor.flatten(), tensor.int())
    for part, arrived in zip(parts, sent(ends, parts), strict=True):
        assert torch.equal(part, arrived)


def test_a_trajectory_arrives_as_it_is(ends):
    trajectory = Trajectory(np.ones((3, 2), np.float32), np.zeros((2, 1), np.float32), np.ones(2, np.float32), 4, True)
    arrived = sent(ends, trajectory)
    assert (arrived.policy_version, arrived.terminated, arrived.undiscounted_return) == (4, True, 2.0)
    assert np.array_equal(arrived.observations, trajectory.observations)


def test_nobody_at_the_other_end_is_an_error_and_not_a_wait():
    near, far = multiprocessing.Pipe()
    line = Line(near)
    assert not line.has_message(0.0)
    far.close()
    assert line.has_message(60.0)
    with pytest.raises(EOFError):
        line.receive()
    with pytest.raises(OSError, match="pipe"):
        line.send(1)


def test_who_keeps_a_part_of_a_message_keeps_no_other(ends):
    small, large = sent(ends, (torch.zeros(3), torch.zeros(100_000)))
    assert small.untyped_storage().nbytes() == 12
    assert large.untyped_storage().nbytes() == 400_000
