"""A task as imagination sees it, made of functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mbrl_async.types import Signal, TaskSpec

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]


def no_reward(observations: Tensor, _actions: Tensor, _outcomes: Tensor) -> Tensor:
    return torch.zeros(observations.shape[:-1])


class FunctionTask:
    """Rewards and terminations by functions of (observations, actions, outcomes)."""

    def __init__(
        self,
        reward: Rule = no_reward,
        termination: Rule | None = None,
        learned: Sequence[Signal] = (),
        horizon: int = 9,
    ) -> None:
        self._reward, self._termination = reward, termination
        self.spec = TaskSpec(
            1, 1, horizon, 0.1, learned=tuple(learned)
        )  # imagination takes its sizes from what it is given

    def reward(self, observations: Tensor, actions: Tensor, outcomes: Tensor, /) -> Tensor:
        return self._reward(observations, actions, outcomes)

    def termination(self, observations: Tensor, actions: Tensor, outcomes: Tensor, /) -> Tensor | None:
        return None if self._termination is None else self._termination(observations, actions, outcomes)
