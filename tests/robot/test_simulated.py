"""The arm that moves on by itself: exact where a test says what time it is, bounds where it is real."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from mbrl_async.robot.arm import Arm
from mbrl_async.robot.simulated import MovingArm, SimulatedRobot
from mbrl_async.types import Interrupted
from tests.robot.conftest import NOBODY, START

TORQUES = np.array([1.0, 0, 0, 0, 0, 0, 0.1])


@pytest.fixture
def arm() -> MovingArm:
    """At rest at the start since second 100."""
    moving = MovingArm(Arm("reach"), watchdog_seconds=0.6, move_seconds=4.0)
    moving.move(START, 96.0)
    moving.follow(100.0)
    assert not moving.moving
    return moving


def positions(arm: MovingArm) -> np.ndarray:
    return arm._arm.state().positions


def test_the_last_torques_act_until_the_next(arm):
    arm.push(TORQUES, 100.0)
    for now in (100.1, 100.2, 100.25):
        arm.follow(now)
    expected = Arm("reach")
    expected.place(START)
    expected.push(TORQUES)
    expected.advance_to(0.25)
    np.testing.assert_array_equal(positions(arm), expected.state().positions)


def test_how_often_it_is_asked_makes_no_difference(arm):
    other = MovingArm(Arm("reach"), watchdog_seconds=0.6, move_seconds=0.0)
    other.move(START, 100.0)
    other.follow(100.0)
    for each in (arm, other):
        each.push(TORQUES, 100.0)
    for now in np.arange(100.0, 101.0, 0.004):
        arm.follow(float(now))
    arm.follow(101.0)
    other.follow(101.0)
    np.testing.assert_allclose(positions(arm), positions(other), atol=1e-3)  # the watchdog may act a step apart


def test_the_watchdog_takes_the_torques_away(arm):
    arm.push(TORQUES, 100.0)
    arm.follow(100.6)
    assert arm.torques.tolist() == TORQUES.tolist()
    arm.follow(100.61)
    assert not arm.torques.any()
    arm.follow(110.0)
    np.testing.assert_allclose(arm._arm.state().velocities, 0, atol=1e-3)


def test_torques_in_time_keep_the_watchdog_quiet(arm):
    for now in np.arange(100.0, 103.0, 0.5):
        arm.push(TORQUES, float(now))
        arm.follow(float(now) + 0.5)
        assert arm.torques.any()


def test_a_move_takes_its_time_and_ends_at_rest_where_it_should(arm):
    end = START + 0.1
    arm.move(end, 100.0)
    middle = []
    for now in (101.0, 102.0, 103.0):
        arm.follow(now)
        middle.append(positions(arm)[0] - START[0])
        assert arm.moving
    assert middle == pytest.approx([0.1 * 0.103515625, 0.05, 0.1 * 0.896484375])  # least jerk at 1/4, 1/2, 3/4
    arm.follow(104.0)
    assert not arm.moving
    np.testing.assert_array_equal(positions(arm), end)
    arm.follow(105.0)
    np.testing.assert_allclose(positions(arm), end, atol=1e-9)


def test_torques_are_clipped_and_do_not_push_a_joint_out_of_its_range(arm):
    posture = START.copy()
    posture[0] = 2.285
    arm.move(posture, 101.0)
    arm.follow(105.0)
    arm.push(np.full(7, 100.0), 105.0)
    assert arm.torques.tolist() == [0, 3.5, 2, 2, 1, 0.5, 0.75]


@pytest.mark.parametrize("bad", [np.full(7, np.nan), np.full(7, np.inf), np.zeros(6)])
def test_torques_that_mean_nothing_are_refused(arm, bad):
    with pytest.raises(ValueError, match="sent: "):
        arm.push(bad, 101.0)


def test_a_posture_that_cannot_be_had_is_refused(arm):
    with pytest.raises(ValueError, match="joint 0 moves from"):
        arm.move(np.full(7, 9.0), 101.0)


@pytest.fixture
def robot():
    robot = SimulatedRobot(scene="reach", control_period=0.05, watchdog_periods=4, move_seconds=0.02)
    yield robot
    robot.close()


def test_the_world_does_not_wait(robot):
    robot.reset(START, NOBODY)
    began = robot.now()
    robot.send(TORQUES)
    robot.sleep_until(began + 0.05)
    first = robot.state().positions
    robot.sleep_until(began + 0.1)
    second = robot.state().positions
    assert second[0] > first[0] > START[0]


def test_a_silent_driver_leaves_no_torque(robot):
    robot.reset(START, NOBODY)
    began = robot.now()
    robot.send(TORQUES)
    robot.sleep_until(began + 0.25)
    robot.state()
    assert not robot._moving.torques.any()


def test_a_move_can_be_given_up():
    robot = SimulatedRobot(scene="reach", control_period=0.05, watchdog_periods=4, move_seconds=3600)

    def over() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        robot.reset(START, over)
    assert robot._moving.moving
    robot.stop()
    assert not robot._moving.moving
    robot.close()


def test_stopped_no_torque_acts():
    patient = SimulatedRobot(scene="reach", control_period=0.05, watchdog_periods=1000, move_seconds=0)
    with closing(patient) as robot:
        robot.reset(START, NOBODY)
        robot.send(TORQUES)
        assert robot._moving.torques.tolist() == TORQUES.tolist()
        robot.stop()
        assert not robot._moving.torques.any()
