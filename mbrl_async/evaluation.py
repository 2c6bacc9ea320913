"""Playing: episodes in a task, their returns, and what they look like."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v2
import numpy as np
import torch
from numpy.typing import NDArray

from mbrl_async.envs.task import Drawable, Task
from mbrl_async.policies.gaussian_mlp import GaussianMLP

Act = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Observation (O,) -> action (A,)."""

HIGHEST_FRAME_RATE = 30.0
"""Frames a second of a video; it shows real time, so of faster control it leaves steps out."""


@torch.no_grad()
def mean_action(policy: GaussianMLP, observation: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the policy does without exploring, (A,)."""
    action: NDArray[np.float32] = policy(torch.from_numpy(observation)).mean.numpy()
    return action


@torch.no_grad()
def sampled_action(
    policy: GaussianMLP, generator: torch.Generator, observation: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What the policy does while it learns, (A,)."""
    distribution = policy(torch.from_numpy(observation))
    noise = torch.randn(distribution.mean.shape, generator=generator)
    action: NDArray[np.float32] = distribution.sample(noise).numpy()
    return action


def play(task: Task, act: Act, generator: np.random.Generator, after_step: Callable[[], None] | None = None) -> float:
    """Play one episode; its undiscounted return.

    Args:
        task: played from a start state that `generator` draws.
        act: who plays.
        generator: of the start state.
        after_step: called after every control step, to look at the task.
    """
    observation = task.reset(generator)
    total = 0.0
    for _ in range(task.spec.horizon):
        observation, reward, terminated, truncated = task.step(act(observation))
        total += reward
        if after_step is not None:
            after_step()
        if terminated or truncated:
            break
    return total


def record(task: Task, act: Act, generator: np.random.Generator, path: Path) -> float:
    """Play one episode into a video (MP4); its undiscounted return.

    Raises:
        RuntimeError: the task cannot be drawn, or not here; there is no file then.
    """
    if not isinstance(task, Drawable):
        raise RuntimeError(f"{type(task).__name__} has no picture of itself: video=true needs a task with draw().")
    task.reset(copy.deepcopy(generator))  # so that the episode begins as it would without a video
    task.draw()  # raises before there is a file
    every = math.ceil(1 / (HIGHEST_FRAME_RATE * task.spec.control_period))
    rate = 1 / (every * task.spec.control_period)
    steps = 0
    video: Any = imageio.v2.get_writer(path, format="FFMPEG", fps=rate, codec="libx264")  # typed as if it only read

    def film() -> None:
        nonlocal steps
        steps += 1
        if steps % every == 0:
            video.append_data(task.draw())

    with video:
        return play(task, act, generator, film)
