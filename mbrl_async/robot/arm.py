"""The arm in MuJoCo: seven joints, three tracked points, and one of three scenes around them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from mbrl_async.envs.mujoco_pictures import Painter
from mbrl_async.envs.mujoco_warnings import STATE_WARNINGS, take_over_mujoco_warnings
from mbrl_async.robot.interface import Limits, RealArray, RobotState, require_posture

Scene = Literal["reach", "match", "stack"]

POINTS = 3
"""Tracked points."""
JOINTS = 7
"""In the PR2's order: shoulder pan, shoulder lift, upper-arm roll, elbow flex, forearm roll, wrist flex, wrist roll."""

_FILES = Path(__file__).parent / "scenes"
_PREFIX = "scene/"


class Arm:
    """The physics of the arm; whoever has it says when its time passes.

    Args:
        scene: what is around the arm, and what it holds.
    """

    def __init__(self, scene: Scene) -> None:
        take_over_mujoco_warnings()
        self.model = _model(scene)
        self._data = mujoco.MjData(self.model)
        self._points = [self.model.site(f"{_PREFIX}point_{index}").id for index in range(POINTS)]
        self._goals = [self.model.site(f"{_PREFIX}goal_{index}").id for index in range(POINTS)]
        self._painter = Painter(self.model)
        self.limits = _limits(self.model)

    @property
    def time(self) -> float:
        """Seconds of physics since the arm was placed."""
        return float(self._data.time)

    def place(self, posture: RealArray) -> None:
        """Rest in a posture (J,), in rad, whatever happened before, and let the time begin at 0.

        Raises:
            ValueError: the arm cannot have it.
        """
        require_posture(posture, self.limits)
        mujoco.mj_resetData(self.model, self._data)
        self._data.qpos[:] = posture

    def carry(self, posture: RealArray) -> None:
        """Be at rest in a posture (J,), for this moment."""
        self._data.qpos[:] = posture
        self._data.qvel[:] = 0.0

    def push(self, torques: RealArray) -> None:
        """Let torques (J,), in N m, act from now on; beyond the limits they are clipped."""
        self._data.ctrl[:] = torques

    def advance_to(self, time: float) -> None:
        """Let the physics go on until its time is the whole step nearest to `time`.

        Raises:
            FloatingPointError: MuJoCo met a state that it cannot simulate.
        """
        steps = round((time - self.time) / self.model.opt.timestep)
        if steps > 0:
            mujoco.mj_step(self.model, self._data, nstep=steps)
        # MuJoCo answers a diverged state by resetting itself without an error: only its counters tell.
        if self._data.warning.number[STATE_WARNINGS].any():
            raise FloatingPointError("a position, velocity or acceleration left MuJoCo's range")

    def state(self) -> RobotState:
        """Joints and points now."""
        # mj_step leaves the points as they were before its last integration; bring them to the time of the joints.
        mujoco.mj_kinematics(self.model, self._data)
        return RobotState(self._data.qpos.copy(), self._data.qvel.copy(), self._data.site_xpos[self._points].copy())

    def mark(self, goals: RealArray) -> None:
        """Show goals (P, 3), in m, in the pictures."""
        self.model.site_sameframe[self._goals] = 0  # they do not lie where their body does any more
        self.model.site_pos[self._goals] = goals

    def draw(self) -> NDArray[np.uint8]:
        """See `Drawable.draw`."""
        mujoco.mj_forward(self.model, self._data)
        return self._painter.draw(self._data, "side")

    def close(self) -> None:
        """Close what drew it."""
        self._painter.close()


def _model(scene: Scene) -> mujoco.MjModel:
    """The arm, with the scene's held things in its gripper and the fixed ones around it."""
    arm = mujoco.MjSpec.from_file(str(_FILES / "arm.xml"))
    parts = mujoco.MjSpec.from_file(str(_FILES / f"{scene}.xml"))
    held, surroundings = parts.body("held"), parts.body("surroundings")
    arm.body("gripper").add_frame().attach_body(held, _PREFIX, "")
    arm.worldbody.add_frame().attach_body(surroundings, _PREFIX, "")
    return arm.compile()


def _limits(model: mujoco.MjModel) -> Limits:
    limited = model.jnt_limited.astype(bool)
    lower, upper = model.jnt_range.T
    return Limits(
        torques=model.actuator_ctrlrange[:, 1].copy(),
        lower=np.where(limited, lower, -np.inf),
        upper=np.where(limited, upper, np.inf),
    )
