"""Rollouts of many tasks at once: a task is one ensemble member, and a policy that acts in it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mbrl_async.algorithms.imagination import ImaginedTask, Model, Rollouts, roll_out
from mbrl_async.policies.stack import PolicyStack


def imagine_tasks(
    stack: PolicyStack,
    parameters: Tensor,
    model: Model,
    task: ImaginedTask,
    starts: Tensor,
    horizon: int,
    generator: torch.Generator,
    check_interrupted: Callable[[], None],
) -> Rollouts:
    """Let each task's policy act in the task's member: member j mod M for task j.

    Args:
        stack: the policies' shape.
        parameters: (J, P), a row a task.
        model: M members; J is a multiple of M.
        task: its reward and termination are called once, on all T J R transitions.
        starts: (J, R, O).
        horizon: T.
        generator: draws the policies' noise and what the model leaves to chance.
        check_interrupted: called every step; may raise `Interrupted`.

    Returns:
        Rollouts with (J, R) in the place of R.

    Raises:
        NonFiniteError: a predicted outcome or a reward is not finite.
    """

    def act(observations: Tensor) -> Tensor:
        return stack.distribution(parameters, observations).mean

    def predict(_step: int, observations: Tensor, actions: Tensor) -> Tensor:
        members = model.members
        outcomes = model.predict(_by_member(observations, members), _by_member(actions, members), generator)
        return _by_task(outcomes, len(observations))

    shape = (horizon, *starts.shape[:2], stack.action_size)
    noise = torch.randn(shape, generator=generator, device=generator.device).to(starts.device)  # (T, J, R, A)
    deviations = stack.std(parameters)[:, None] * noise
    return roll_out(act, predict, task, starts, deviations, check_interrupted)


def _by_member(rows: Tensor, members: int) -> Tensor:
    """(J, R, D) -> (M, J / M * R, D): the rows of tasks m, m + M, m + 2 M, ... to member m."""
    return rows.view(-1, members, *rows.shape[1:]).transpose(0, 1).flatten(1, 2)


def _by_task(rows: Tensor, tasks: int) -> Tensor:
    """The inverse of `_by_member`."""
    return rows.view(len(rows), tasks // len(rows), -1, rows.shape[-1]).transpose(0, 1).flatten(0, 1)
