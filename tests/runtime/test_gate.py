"""The lock around the schedule, driven by hand from one thread."""

from __future__ import annotations

import math

import pytest

from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.gate import Gate
from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.schedule import COLLECT, LEARN_MODEL, Schedule
from mbrl_async.runtime.state import RunState
from mbrl_async.runtime.stop import StopRule, StopSignal
from tests.runtime.fakes import PERIOD, FakeCollector, FakeModelLearner, Recorder, Wires

BOTH = Schedule(warm_up=[], cycle=[{COLLECT: math.inf, LEARN_MODEL: math.inf}])


@pytest.mark.parametrize("published_meanwhile", [True, False])
def test_who_found_nothing_looks_again_at_once_only_if_somebody_published_meanwhile(published_meanwhile: bool):
    """The learner looks before the trajectory comes, and says so after: nobody would wake it for this one."""
    stop, wires = StopSignal(), Wires()
    clock = VirtualClock(stop)
    state = RunState([COLLECT, LEARN_MODEL], BOTH, StopRule(9, None, None), stop, Recorder(), Forgetful())
    gate = Gate(state, clock, stop)
    collector, learner = FakeCollector(wires, clock, PERIOD), FakeModelLearner(wires, clock, 1)
    gate.open()
    assert gate.enter(COLLECT, collector)
    report = collector.step()
    if not published_meanwhile:
        gate.finish(COLLECT, 0.0, collector, report)
        assert learner.pull(), "it has this one already"
        learner.remaining = 0
    assert gate.enter(LEARN_MODEL, learner)
    assert not learner.pull()
    if published_meanwhile:
        gate.finish(COLLECT, 0.0, collector, report)
    gate.found_nothing(LEARN_MODEL)
    assert state.allowed(LEARN_MODEL) is published_meanwhile
