"""Bring three points of an arm to three goals by torques: the paper's robot tasks (arXiv:1910.12453, §5.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from mbrl_async.envs.simulated_task import SimulatedTask
from mbrl_async.robot.arm import JOINTS, POINTS
from mbrl_async.robot.interface import DrawableRobot, Robot
from mbrl_async.types import FloatArray, Metrics, TaskSpec, TaskStep

_POINTS_FROM = 2 * JOINTS
"""Where the points begin in an observation; before them come J angles, then J velocities."""

Posture = Annotated[Sequence[float], Field(min_length=JOINTS, max_length=JOINTS)]
Coordinates = Annotated[Sequence[float], Field(min_length=3, max_length=3)]
Goals = Annotated[Sequence[Coordinates], Field(min_length=POINTS, max_length=POINTS)]


class ArmTask(SimulatedTask):
    """Reach, match or stack, on any `Robot`.

    o = (7 joint angles in rad, 7 joint velocities in rad/s, x y z of 3 points in m); the action is the 7 torques as
    shares of their limits. The reward is that of what the step led to, with d the 9-dimensional distance of the points
    to their goals, v the velocities and a the executed action:

        -(d^2 + log(d^2 + 1e-5)) - velocity_cost |v|^2 - torque_cost |a|^2

    Args:
        robot: who moves; this task's own.
        start_posture: joint angles of the start, in rad.
        start_noise: how far, at most, each of them is from that, in rad: uniform.
        goals: x y z of each point's goal, in m, in the robot's frame.
        success: how far the points' centre may be from the goals' at the end, across and along the vertical, in m.
        horizon: control steps of a trajectory.
        reset_seconds: the least time that the robot is given to be at its start again.
        velocity_cost: of the reward.
        torque_cost: of the reward.
    """

    def __init__(
        self,
        *,
        robot: Robot,
        start_posture: Posture,
        start_noise: NonNegativeFloat,
        goals: Goals,
        success: Annotated[Sequence[PositiveFloat], Field(min_length=2, max_length=2)],
        horizon: PositiveInt,
        reset_seconds: NonNegativeFloat,
        velocity_cost: NonNegativeFloat,
        torque_cost: NonNegativeFloat,
    ) -> None:
        super().__init__(
            TaskSpec(
                observation_size=_POINTS_FROM + 3 * POINTS,
                action_size=JOINTS,
                horizon=horizon,
                control_period=robot.control_period,
                repeatable=not robot.real_time,
                reset_seconds=reset_seconds,
                real_time=robot.real_time,
            )
        )
        self._robot = robot
        self._start_posture = np.array(start_posture, dtype=np.float64)
        self._start_noise = start_noise
        self._goals = torch.tensor(goals, dtype=torch.float64).reshape(-1)  # (3 P,)
        self._across, self._upright = success
        self._velocity_cost = velocity_cost
        self._torque_cost = torque_cost
        self._check: Callable[[], None] = _go_on
        self._deadline: float | None = None  # of the newest torques; None before the first
        self._misses = 0

    def heed(self, check: Callable[[], None]) -> None:
        """See `Interruptible`."""
        self._check = check

    def begin_episode(self, generator: np.random.Generator) -> FloatArray:
        """Have the robot move to a posture near the start; the first observation, (O,)."""
        noise = generator.uniform(-self._start_noise, self._start_noise, JOINTS)
        try:
            self._robot.reset(self._start_posture + noise, self._check)
        except BaseException:
            self._robot.stop()
            raise
        self._deadline = None  # who drives may wait before the first torques
        self._misses = self._robot.misses
        return self._observe()

    def step(self, action: FloatArray) -> TaskStep:
        """See `Task.step`; whatever goes wrong, and after the last step, no torque acts any more."""
        try:
            step = super().step(action)
        except BaseException:
            self._robot.stop()
            raise
        if self._steps >= self.spec.horizon:
            self._robot.stop()
        return step

    def advance(self, action: FloatArray) -> FloatArray:
        """Send the action's torques, (A,), and observe at the end of the control period, (O,).

        Periods follow each other without a gap. One begins with its torques only if they are the episode's first, or
        come more than a period too late: what is observed is always what they did.
        """
        now, period = self._robot.now(), self.spec.control_period
        began = now if self._deadline is None or now - self._deadline > period else self._deadline
        self._robot.send(self._robot.limits().torques * action)
        self._deadline = began + period
        self._robot.sleep_until(self._deadline)
        return self._observe()

    def reward(self, _observations: Tensor, actions: Tensor, outcomes: Tensor, /) -> Tensor:
        """Of the next observation; see the class."""
        velocities, points = outcomes[..., JOINTS:_POINTS_FROM], outcomes[..., _POINTS_FROM:]
        squared_distance = (points - self._goals.to(points)).square().sum(dim=-1)
        costs = self._velocity_cost * velocities.square().sum(dim=-1) + self._torque_cost * actions.square().sum(dim=-1)
        return -(squared_distance + torch.log(squared_distance + 1e-5)) - costs

    def outcome_metrics(self, observations: FloatArray) -> Metrics:
        """See `Assessed`: where the points are at the end, and the torques that were not confirmed in time."""
        offsets = observations[-1, _POINTS_FROM:].reshape(POINTS, 3) - self._goals.numpy().reshape(POINTS, 3)  # (P, 3)
        x, y, z = offsets.mean(axis=0)
        return {
            "final_distance_cm": float(100 * np.linalg.norm(offsets, axis=1).mean()),
            "success": float(np.hypot(x, y) <= self._across and abs(z) <= self._upright),
            "unconfirmed_torques": float(self._robot.misses - self._misses),
        }

    def draw(self) -> NDArray[np.uint8]:
        """See `Drawable.draw`; only simulated robots can be seen from here."""
        if not isinstance(self._robot, DrawableRobot):
            raise RuntimeError(
                f"{type(self._robot).__name__} has no picture of itself: film it with env/robot=stepped."
            )
        self._robot.mark(self._goals.numpy().reshape(POINTS, 3))
        return self._robot.draw()

    def close(self) -> None:
        """Stop the robot, and let it go."""
        self._robot.stop()
        self._robot.close()

    def _observe(self) -> FloatArray:
        state = self._robot.state()
        return np.concatenate((state.positions, state.velocities, state.points.reshape(-1)), dtype=np.float32)


def _go_on() -> None:
    """Nobody wants an end."""
