"""What a robot is to this project: moved to a posture, sent torques, asked for its state, and stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mbrl_async.types import RealSystemError, SystemLostError

RealArray = NDArray[np.float64]


class RobotError(RealSystemError):
    """The robot refused, or cannot do what it was asked for; trying again will not help."""


class RobotLostError(RobotError, SystemLostError):
    """The robot does not answer any more, or is another one than before; it may come back."""


@dataclass(frozen=True)
class RobotState:
    """What the sensors say at one instant; J joints, P tracked points."""

    positions: RealArray  # (J,), rad
    velocities: RealArray  # (J,), rad/s
    points: RealArray  # (P, 3), m, in the robot's own frame


@dataclass(frozen=True)
class Limits:
    """What the robot can be asked for."""

    torques: RealArray  # (J,), N m, of either sign
    lower: RealArray  # (J,), rad; -inf: the joint turns freely
    upper: RealArray  # (J,), rad


class Robot(Protocol):
    """An arm with torque control.

    A torque acts until the next one is sent, or until the robot's watchdog misses one; so whatever happens to the one
    who drives it, the robot ends with zero torque.

    An episode reads:

        robot.reset(posture, check)
        deadline = robot.now()
        for _ in range(horizon):
            robot.send(torques)
            deadline += robot.control_period
            robot.sleep_until(deadline)
            state = robot.state()
        robot.stop()
    """

    @property
    def control_period(self) -> float:
        """Seconds between two torques."""

    @property
    def real_time(self) -> bool:
        """Whether its time passes by itself; else it passes in `sleep_until` alone."""

    @property
    def misses(self) -> int:
        """Torques so far of which nobody knows whether they arrived in time."""

    def limits(self) -> Limits:
        """What it can be asked for.

        Raises:
            RobotError: it cannot be reached.
        """

    def reset(self, posture: RealArray, check: Callable[[], None]) -> None:
        """Move to joint angles (J,), in rad, and return when it rests there.

        Args:
            posture: where to.
            check: called often; may raise to give the move up.

        Raises:
            RobotError: it does not get there, or cannot be reached.
        """

    def send(self, torques: RealArray) -> None:
        """Let torques (J,), in N m, act from now on; what is beyond the limits is clipped.

        Raises:
            ValueError: they are not finite, or not J.
            RobotError: the robot refuses them.
        """

    def state(self) -> RobotState:
        """What the sensors say now.

        Raises:
            RobotLostError: nobody answers.
            FloatingPointError: a simulated robot left the range in which it can be simulated.
        """

    def stop(self) -> None:
        """Let no torque act any more; never raises, because it is what is left to do when all else failed."""

    def now(self) -> float:
        """Seconds on the robot's clock."""

    def sleep_until(self, deadline: float) -> None:
        """Return when `now()` has reached `deadline`, at once if it has."""

    def close(self) -> None:
        """Stop, and give back what it holds outside Python."""


@runtime_checkable
class DrawableRobot(Protocol):
    """A robot that can be seen, because it is simulated here."""

    def mark(self, goals: RealArray) -> None:
        """Show goals (P, 3), in m, in the pictures."""

    def draw(self) -> NDArray[np.uint8]:
        """See `mbrl_async.envs.task.Drawable`."""


class RealTime:
    """The clock of every robot that moves whether or not somebody looks."""

    real_time = True

    def now(self) -> float:
        """Seconds since some moment."""
        return time.perf_counter()

    def sleep_until(self, deadline: float) -> None:
        """See `Robot`."""
        time.sleep(max(0.0, deadline - self.now()))


def allowed_torques(torques: RealArray, positions: RealArray, limits: Limits) -> RealArray:
    """Torques (J,) within the limits, without those that push a joint further beyond its range.

    Raises:
        ValueError: they are not finite, or not J.
    """
    if torques.shape != limits.torques.shape:
        raise ValueError(f"torques of shape {torques.shape} were sent: this arm takes {limits.torques.shape}.")
    if not np.isfinite(torques).all():
        raise ValueError(f"the torques {torques} were sent: every one must be finite; look at who computed them.")
    outwards = ((positions >= limits.upper) & (torques > 0)) | ((positions <= limits.lower) & (torques < 0))
    return np.where(outwards, 0.0, np.clip(torques, -limits.torques, limits.torques))


def require_posture(posture: RealArray, limits: Limits) -> None:
    """Refuse a posture (J,) that the arm cannot have.

    Raises:
        ValueError: it is not finite, not J, or beyond a joint's range.
    """
    if posture.shape != limits.lower.shape or not np.isfinite(posture).all():
        raise ValueError(f"the posture {posture} cannot be reached: it takes {len(limits.lower)} finite angles.")
    beyond = np.flatnonzero((posture < limits.lower) | (posture > limits.upper))
    if len(beyond):
        joint = int(beyond[0])
        raise ValueError(
            f"the posture {posture} cannot be reached: joint {joint} moves from {limits.lower[joint]:.3f} to "
            f"{limits.upper[joint]:.3f} rad."
        )
