from __future__ import annotations

import os
import signal
import threading

import pytest

from mbrl_async.runtime.clock import VirtualClock, WallClock
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal, stop_on_signals
from mbrl_async.runtime.trace import Counters
from mbrl_async.types import Interrupted


def test_virtual_time_passes_only_by_sleeping():
    clock = VirtualClock(StopSignal())
    clock.sleep_until(2.5)
    assert clock.now() == 2.5
    clock.sleep_until(1.0)
    assert clock.now() == 2.5


def test_the_wall_clock_sleeps_no_shorter_than_asked():
    clock = WallClock(StopSignal())
    clock.start()
    clock.sleep_until(0.02)
    assert clock.now() >= 0.02


@pytest.mark.parametrize("make", [VirtualClock, WallClock])
def test_every_clock_ends_sleep_and_computation_with_the_run(make):
    stop = StopSignal()
    clock = make(stop)
    clock.check()
    stop.request(Ending.FINISHED)
    with pytest.raises(Interrupted):
        clock.check()
    with pytest.raises(Interrupted):
        clock.sleep_until(clock.now() + 3600.0)


def test_a_sleeping_thread_wakes_when_the_run_ends():
    stop = StopSignal()
    clock = WallClock(stop)
    woken: list[BaseException] = []

    def sleep() -> None:
        try:
            clock.sleep_until(3600.0)
        except Interrupted as interrupted:
            woken.append(interrupted)

    thread = threading.Thread(target=sleep, daemon=True)
    thread.start()
    stop.request(Ending.KILLED)
    thread.join(timeout=10.0)
    assert woken


def test_the_first_reason_to_end_counts():
    stop = StopSignal()
    assert stop.ending is None
    stop.request(Ending.FAILED)
    stop.request(Ending.FINISHED)
    assert stop.ending is Ending.FAILED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_run_as_killed_and_the_old_handlers_come_back(number):
    before = signal.getsignal(number)
    stop = StopSignal()
    with stop_on_signals(stop):
        os.kill(os.getpid(), number)
        assert stop.ending is Ending.KILLED
        assert signal.getsignal(number) is before, "a second signal must end the process as usual"
    assert signal.getsignal(number) is before


def test_signals_are_left_alone_outside_the_main_thread():
    errors: list[BaseException] = []

    def use() -> None:
        try:
            with stop_on_signals(StopSignal()):
                pass
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert not errors


@pytest.mark.parametrize(
    ("rule", "reached", "not_reached"),
    [
        (StopRule(3, None, None), Counters(trajectories=3), Counters(trajectories=2, env_steps=999, seconds=999.0)),
        (StopRule(None, 500, None), Counters(env_steps=600), Counters(env_steps=499, trajectories=999)),
        (StopRule(None, None, 2.0), Counters(seconds=2.0), Counters(seconds=1.9, trajectories=999)),
        (StopRule(9, 500, None), Counters(env_steps=500), Counters(env_steps=499, trajectories=8)),
    ],
)
def test_the_stop_rule_counts_what_it_says(rule, reached, not_reached):
    assert rule.reached(reached)
    assert not rule.reached(not_reached)


def test_a_stop_rule_without_limit_is_refused():
    with pytest.raises(ValueError, match=r"stop\.trajectories=null.*set one of them"):
        StopRule(None, None, None)
