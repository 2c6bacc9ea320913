"""A worker that was made elsewhere sees the channels of the run, each by its far end."""

from __future__ import annotations

import pytest
import torch

from mbrl_async.runtime.far_channels import Crossing, FarEnds
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL
from tests.runtime.fakes import Wires, fake_makers


def crossed(wires: Wires, name: str) -> tuple[object, Crossing, FarEnds]:
    """A fake worker as another process would make it, its near side and its far ends."""
    crossing = Crossing(fake_makers(wires)[name])
    far_ends = FarEnds(crossing.newer)
    return far_ends.maker(crossing.maker)(None), crossing, far_ends  # type: ignore[arg-type]


def test_parameters_are_asked_for_and_stay_the_same_object_until_there_are_newer_ones():
    wires = Wires()
    worker, _, _ = crossed(wires, IMPROVE_POLICY)
    assert not worker.pull()
    for version in (1, 2):
        wires.models.put({"total": torch.tensor([1.5 * version])})
        newest = worker.wires.models.get()
        assert newest is worker.wires.models.get()
        assert (newest.version, float(newest.parameters["total"])) == (version, 1.5 * version)
    assert worker.wires.models is not wires.models


def test_a_stream_is_drained_where_it_is():
    wires = Wires()
    worker, _, _ = crossed(wires, LEARN_MODEL)
    for item in (1, 2, 3):
        wires.trajectories.put(item)
    assert worker.pull()
    assert worker.received == [1, 2, 3]
    assert wires.trajectories.drain() == []


def test_what_a_worker_puts_waits_for_whoever_comes_for_it():
    wires = Wires()
    worker, crossing, far_ends = crossed(wires, COLLECT)
    for count in (1, 2):
        worker.count = count
        worker.push()
    assert wires.trajectories.history == []
    for item in far_ends.kept():
        crossing.put(item)
    assert wires.trajectories.history == [1, 2]
    assert far_ends.kept() == []


def test_a_maker_that_cannot_travel_is_refused_in_a_sentence():
    with pytest.raises(TypeError, match="its maker cannot go to another process, because it cannot be pickled: "):
        Crossing(lambda clock: clock)  # type: ignore[arg-type,return-value]
