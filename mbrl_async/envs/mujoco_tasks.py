"""The benchmark tasks: Gymnasium's v5 bodies with the paper's observations and rewards (arXiv:1910.12453, §5.1).

Gymnasium gives the body, its frame skip and its reset noise. Its own observation, reward and termination are never
asked: they differ from the paper's.

In the formulas o is the observation before the step and a the executed action.
"""

from __future__ import annotations

from typing import ClassVar, cast

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.envs.mujoco import MujocoEnv
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor

from mbrl_async.envs.mujoco_pictures import Painter
from mbrl_async.envs.mujoco_warnings import STATE_WARNINGS, take_over_mujoco_warnings
from mbrl_async.envs.simulated_task import SimulatedTask
from mbrl_async.types import FloatArray, TaskSpec


class MujocoTask(SimulatedTask):
    """A Gymnasium body without its observation, reward and termination."""

    body_id: ClassVar[str]
    """Gymnasium's name of the body."""
    hidden_positions: ClassVar[int] = 0
    """Leading entries of qpos that are not observed: where the body is in the world."""

    def __init__(self, *, horizon: PositiveInt) -> None:
        take_over_mujoco_warnings()
        body = gymnasium.make(self.body_id, disable_env_checker=True).unwrapped
        self._body = cast(MujocoEnv, body)
        self._painter = Painter(self._body.model)
        low, high = self._body.model.actuator_ctrlrange.T  # (A,), (A,)
        self._control_centre = (high + low) / 2
        self._control_half_range = (high - low) / 2
        super().__init__(
            TaskSpec(
                observation_size=len(self._observe()),
                action_size=self._body.model.nu,
                horizon=horizon,
                control_period=float(self._body.dt),
            )
        )

    def begin_episode(self, generator: np.random.Generator) -> FloatArray:
        """Clear the simulator's whole state, then add the body's reset noise; the first observation, (O,)."""
        self._body.np_random = generator
        self._body.reset()
        return self._observe()

    def advance(self, action: FloatArray) -> FloatArray:
        """Hold the action, (A,), for one control period; the next observation, (O,).

        Raises:
            FloatingPointError: MuJoCo met a state that it cannot simulate.
        """
        control = self._control_centre + self._control_half_range * action
        self._body.do_simulation(control, self._body.frame_skip)
        # MuJoCo answers a diverged state by resetting itself without an error: only its counters tell.
        if self._body.data.warning.number[STATE_WARNINGS].any():
            raise FloatingPointError("a position, velocity or acceleration left MuJoCo's range")
        return self._observe()

    def draw(self) -> NDArray[np.uint8]:
        """The body as it stands now, seen by the camera that follows it; see `Painter.draw`."""
        return self._painter.draw(self._body.data, 0 if self._body.model.ncam else -1)

    def close(self) -> None:
        """Close the body."""
        self._painter.close()
        self._body.close()  # type: ignore[no-untyped-call]  # Gymnasium leaves it untyped

    def _observe(self) -> FloatArray:
        data = self._body.data
        return np.concatenate((data.qpos[self.hidden_positions :], data.qvel), dtype=np.float32)


class HalfCheetah(MujocoTask):
    """Run: o = (qpos[1:], qvel), o[8] is the torso's forward velocity in m/s."""

    body_id = "HalfCheetah-v5"
    hidden_positions = 1

    def reward(self, observations: Tensor, actions: Tensor, _outcomes: Tensor, /) -> Tensor:
        """o[8] - 0.1 |a|^2."""
        return observations[..., 8] - 0.1 * _squared_norm(actions)


class Ant(MujocoTask):
    """Run on four legs: o = (qpos[2:], qvel), o[0] is the torso's height in m, o[13] its velocity along x in m/s."""

    body_id = "Ant-v5"
    hidden_positions = 2

    def reward(self, observations: Tensor, actions: Tensor, _outcomes: Tensor, /) -> Tensor:
        """o[13] - 0.1 |a|^2 - 3 (o[0] - 0.57)^2 + 1."""
        height_error = observations[..., 0] - 0.57
        return observations[..., 13] - 0.1 * _squared_norm(actions) - 3 * height_error.square() + 1


class Hopper(MujocoTask):
    """Hop: o = (qpos[1:], qvel), o[0] is the torso's height in m, o[5] its forward velocity in m/s."""

    body_id = "Hopper-v5"
    hidden_positions = 1

    def reward(self, observations: Tensor, actions: Tensor, _outcomes: Tensor, /) -> Tensor:
        """o[5] - 0.1 |a|^2 - 3 (o[0] - 1.3)^2 + 1."""
        height_error = observations[..., 0] - 1.3
        return observations[..., 5] - 0.1 * _squared_norm(actions) - 3 * height_error.square() + 1


class Walker2d(MujocoTask):
    """Walk: o = (qpos[1:], qvel), o[0] is the torso's height in m, o[8] its forward velocity in m/s."""

    body_id = "Walker2d-v5"
    hidden_positions = 1

    def reward(self, observations: Tensor, actions: Tensor, _outcomes: Tensor, /) -> Tensor:
        """o[8] - 0.1 |a|^2 - 3 (o[0] - 1.3)^2 + 1."""
        height_error = observations[..., 0] - 1.3
        return observations[..., 8] - 0.1 * _squared_norm(actions) - 3 * height_error.square() + 1


class Swimmer(MujocoTask):
    """Swim: o = (qpos[2:], qvel), o[3] is the front tip's velocity along x in m/s."""

    body_id = "Swimmer-v5"
    hidden_positions = 2

    def reward(self, observations: Tensor, actions: Tensor, _outcomes: Tensor, /) -> Tensor:
        """o[3] - 0.0001 |a|^2."""
        return observations[..., 3] - 1e-4 * _squared_norm(actions)


class InvertedPendulum(MujocoTask):
    """Keep a pole upright on a cart: o = (qpos, qvel), o[1] is the pole's angle from the vertical in rad."""

    body_id = "InvertedPendulum-v5"

    def reward(self, observations: Tensor, _actions: Tensor, _outcomes: Tensor, /) -> Tensor:
        """-o[1]^2."""
        return -observations[..., 1].square()


class Reacher(MujocoTask):
    """Bring a two-joint arm's fingertip to a random target.

    o = (cos of both joint angles, sin of both, target x y, both joint velocities, fingertip - target x y z in m).
    """

    body_id = "Reacher-v5"

    def reward(self, observations: Tensor, actions: Tensor, _outcomes: Tensor, /) -> Tensor:
        """-|o[8:11]| - |a|^2."""
        distance: Tensor = torch.linalg.vector_norm(observations[..., 8:11], dim=-1)
        return -distance - _squared_norm(actions)

    def _observe(self) -> FloatArray:
        data = self._body.data
        # mj_step leaves body positions as they were before its last integration; bring them to the time of qpos.
        mujoco.mj_kinematics(self._body.model, data)
        angles, target = data.qpos[:2], data.qpos[2:]
        to_target = data.body("fingertip").xpos - data.body("target").xpos  # (3,)
        return np.concatenate((np.cos(angles), np.sin(angles), target, data.qvel[:2], to_target), dtype=np.float32)


def _squared_norm(actions: Tensor) -> Tensor:
    return actions.square().sum(dim=-1)
