"""The simulated arm in real time: a world that does not wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from mbrl_async.robot.arm import Arm, Scene
from mbrl_async.robot.interface import Limits, RealArray, RealTime, RobotState, allowed_torques, require_posture

TICK_SECONDS = 0.005
"""How often the thread brings the physics up to now; a question brings it there as well."""


class MovingArm:
    """The arm at the times that it is told, which may only grow.

    The last torques act until others come, or until none came for `watchdog_seconds`: then none act any more. A move to
    a posture is that of an ideal position controller, which nothing stands in the way of: each joint goes there along
    the path of least jerk, 10 s^3 - 15 s^4 + 6 s^5 (Flash and Hogan 1985), with s from 0 to 1 in `move_seconds`.

    Args:
        arm: the physics.
        watchdog_seconds: see above.
        move_seconds: see above.
    """

    def __init__(self, arm: Arm, watchdog_seconds: float, move_seconds: float) -> None:
        self._arm = arm
        self._watchdog_seconds = watchdog_seconds
        self._move_seconds = move_seconds
        self._now = np.inf  # before the first move, no time passes
        self._origin = np.inf  # when the physics' time was 0
        self._torques_until = np.inf
        self._move: tuple[float, RealArray, RealArray] | None = None  # when it began, from where, to where
        self.torques = np.zeros_like(arm.limits.torques)
        """What acts now, (J,), in N m."""

    @property
    def moving(self) -> bool:
        """Whether a move to a posture goes on."""
        return self._move is not None

    def follow(self, now: float) -> None:
        """Let everything happen that happens until `now`.

        Raises:
            FloatingPointError: the physics left its range.
        """
        if self._move is not None:
            self._carry_on(now)
        elif now > self._torques_until:
            self._pass(min(now, max(self._now, self._torques_until)))
            self.push(np.zeros_like(self.torques), now)
        self._pass(now)

    def move(self, posture: RealArray, now: float) -> None:
        """Begin to move to a posture (J,).

        Raises:
            ValueError: the arm cannot have it.
        """
        require_posture(posture, self._arm.limits)
        self.push(np.zeros_like(self.torques), now)
        self._move = (now, self._arm.state().positions, posture)

    def push(self, torques: RealArray, now: float) -> None:
        """Let torques (J,) act from now on; a move ends here.

        Raises:
            ValueError: they are not finite, or not J.
        """
        if self._move is not None:
            self._rest_at(self._arm.state().positions, now)
        self.torques = allowed_torques(torques, self._arm.state().positions, self._arm.limits)
        self._arm.push(self.torques)
        self._torques_until = now + self._watchdog_seconds if self.torques.any() else np.inf

    def _carry_on(self, now: float) -> None:
        assert self._move is not None
        began, start, end = self._move
        share = 1.0 if self._move_seconds == 0 else min(1.0, (now - began) / self._move_seconds)
        if share < 1.0:
            self._arm.carry(start + (10 * share**3 - 15 * share**4 + 6 * share**5) * (end - start))
            self._now = now
        else:
            self._rest_at(end, now)

    def _rest_at(self, posture: RealArray, now: float) -> None:
        self._move = None
        self._arm.place(np.clip(posture, self._arm.limits.lower, self._arm.limits.upper))
        self._now = self._origin = now

    def _pass(self, now: float) -> None:
        if self._move is None and now > self._now:
            self._arm.advance_to(now - self._origin)
            self._now = now


class SimulatedRobot(RealTime):
    """The arm in a thread of its own, in real time, from the first reset on.

    Args:
        scene: what is around it.
        control_period: seconds between two torques.
        watchdog_periods: control periods without a torque after which none acts any more.
        move_seconds: how long a move to a posture takes.
    """

    misses = 0

    def __init__(
        self,
        *,
        scene: Scene,
        control_period: PositiveFloat,
        watchdog_periods: PositiveInt,
        move_seconds: NonNegativeFloat,
    ) -> None:
        self.control_period = control_period
        self._arm = Arm(scene)
        self._moving = MovingArm(self._arm, watchdog_periods * control_period, move_seconds)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def limits(self) -> Limits:
        """See `Robot`."""
        return self._arm.limits

    def reset(self, posture: RealArray, check: Callable[[], None]) -> None:
        """See `Robot`."""
        self._live()
        with self._lock:
            self._moving.move(posture, self.now())
        while self._is_moving():
            check()
            self._closing.wait(TICK_SECONDS)

    def send(self, torques: RealArray) -> None:
        """See `Robot`."""
        with self._lock:
            self._moving.follow(self.now())
            self._moving.push(torques, self.now())

    def state(self) -> RobotState:
        """See `Robot`."""
        with self._lock:
            self._moving.follow(self.now())
            return self._arm.state()

    def stop(self) -> None:
        """See `Robot`."""
        with self._lock:
            with suppress(FloatingPointError):
                self._moving.follow(self.now())
            self._moving.push(np.zeros_like(self._moving.torques), self.now())

    def close(self) -> None:
        """See `Robot`."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self.stop()
        self._arm.close()

    def _live(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="arm", daemon=True)
            self._thread.start()

    def _follow(self) -> None:
        try:
            while not self._closing.wait(TICK_SECONDS):
                with self._lock:
                    self._moving.follow(self.now())
        except FloatingPointError:
            self.stop()  # whoever asks for the state next meets it as well

    def _is_moving(self) -> bool:
        with self._lock:
            self._moving.follow(self.now())
            return self._moving.moving and not self._closing.is_set()
