"""The simulated arm whose time passes only while somebody waits: for virtual clocks, and for tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from mbrl_async.robot.arm import Arm, Scene
from mbrl_async.robot.interface import Limits, RealArray, RobotState, allowed_torques


class SteppedArm:
    """Rests wherever it is told to at once; between two torques exactly a control period of physics passes.

    Args:
        scene: what is around it.
        control_period: seconds between two torques.
    """

    real_time = False
    misses = 0

    def __init__(self, *, scene: Scene, control_period: PositiveFloat) -> None:
        self.control_period = control_period
        self._arm = Arm(scene)
        self._now = 0.0

    def limits(self) -> Limits:
        """See `Robot`."""
        return self._arm.limits

    def reset(self, posture: RealArray, check: Callable[[], None]) -> None:
        """See `Robot`."""
        check()
        self._arm.place(posture)
        self._now = 0.0

    def send(self, torques: RealArray) -> None:
        """See `Robot`."""
        self._arm.push(allowed_torques(torques, self._arm.state().positions, self._arm.limits))

    def state(self) -> RobotState:
        """See `Robot`."""
        return self._arm.state()

    def stop(self) -> None:
        """See `Robot`."""
        self._arm.push(np.zeros_like(self._arm.limits.torques))

    def now(self) -> float:
        """See `Robot`; 0 at the last reset."""
        return self._now

    def sleep_until(self, deadline: float) -> None:
        """Let the physics go on until then."""
        self._now = max(self._now, deadline)
        self._arm.advance_to(self._now)

    def mark(self, goals: RealArray) -> None:
        """Show goals (P, 3) in the pictures."""
        self._arm.mark(goals)

    def draw(self) -> NDArray[np.uint8]:
        """See `Drawable.draw`."""
        return self._arm.draw()

    def close(self) -> None:
        """See `Robot`."""
        self._arm.close()
