from __future__ import annotations

import pytest

from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.stop import StopSignal
from mbrl_async.workers.pacing import Pacer


class LateClock(VirtualClock):
    """Wakes its sleepers late, by given numbers of seconds."""

    def __init__(self, lateness: list[float]) -> None:
        super().__init__(StopSignal())
        self._lateness = iter(lateness)

    def sleep_until(self, deadline: float) -> None:
        super().sleep_until(deadline)
        self.set(self.now() + next(self._lateness))


def test_on_time_every_deadline_is_one_period_after_the_last():
    clock = VirtualClock(StopSignal())
    clock.set(3.0)
    pacer = Pacer(clock, 0.5)
    for _ in range(4):
        pacer.wait()
    assert clock.now() == 5.0
    assert pacer.lateness == [0.0] * 4
    assert pacer.misses == 0


def test_lateness_below_a_period_does_not_add_up():
    clock = LateClock([0.25, 0.25, 0.25, 0.0])
    pacer = Pacer(clock, 0.5)
    for _ in range(4):
        pacer.wait()
    assert pacer.lateness == [0.25, 0.25, 0.25, 0.0]
    assert clock.now() == 2.0, "the fourth deadline is four periods after the start"
    assert pacer.misses == 0


def test_a_miss_is_counted_and_the_deadlines_start_again_from_there():
    clock = LateClock([0.0, 1.25, 0.0])
    pacer = Pacer(clock, 0.5)
    for _ in range(3):
        pacer.wait()
    assert pacer.misses == 1
    assert pacer.lateness == [0.0, 1.25, 0.0]
    assert clock.now() == 0.5 + 0.5 + 1.25 + 0.5


def test_computing_within_the_period_costs_no_time():
    clock = VirtualClock(StopSignal())
    pacer = Pacer(clock, 0.5)
    clock.set(0.375)  # computed for 0.375 s
    pacer.wait()
    assert clock.now() == 0.5
    assert pacer.lateness == [0.0]


def test_without_a_period_nothing_waits_and_nothing_is_late():
    clock = VirtualClock(StopSignal())
    pacer = Pacer(clock, 0.0)
    for now in (0.0, 5.0, 9.0):
        clock.set(now)
        pacer.wait()
        assert clock.now() == now
    assert pacer.lateness == [0.0] * 3
    assert pacer.misses == 0


def test_waiting_ends_with_the_run():
    from mbrl_async.runtime.stop import Ending
    from mbrl_async.types import Interrupted

    stop = StopSignal()
    pacer = Pacer(VirtualClock(stop), 0.5)
    stop.request(Ending.KILLED)
    with pytest.raises(Interrupted):
        pacer.wait()
