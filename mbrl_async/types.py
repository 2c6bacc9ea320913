"""The values that cross module borders, with their shapes.

Shape letters, used everywhere: T control steps of a trajectory, R rollouts imagined at once,
M ensemble members, B batch, O observation size, A action size, E learned signals.
Arrays and tensors are float32 unless a docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Metrics = dict[str, float]
"""One number a name; names are listed in docs/metrics.md."""

Parameters = Mapping[str, Tensor]
"""What one worker publishes for another: named tensors, as `torch.nn.Module.state_dict` gives them."""

State = dict[str, Any]
"""What a worker or a component needs to go on as if it had never stopped: nested dictionaries with string keys of
tensors and of what JSON holds (numbers, strings, booleans, None, lists). `load_state_dict` is always the inverse of
`state_dict`, and a state is a copy: its owner may go on changing."""

INPUTS = "inputs"
"""The entry of a worker's state that its next `pull` could restore: what it took from the channels."""

WINDOW = 10
"""Trajectories in the moving mean of the return, wherever one is shown."""

FloatArray = NDArray[np.float32]

Signal = Literal["reward", "termination"]
"""What a model may have to learn of a step besides the next observation."""


class Clock(Protocol):
    """What a worker sees of the outside: the time, and whether the run is over."""

    def now(self) -> float:
        """Seconds since the run started."""

    def sleep_until(self, deadline: float) -> None:
        """Return when `now()` has reached `deadline`, at once if it has.

        Raises:
            Interrupted: the run is over.
        """

    def computing(self) -> AbstractContextManager[None]:
        """What is computed within takes the run's time, on a virtual clock as much as it is said to cost."""

    def check(self) -> None:
        """Call often in a long computation.

        Raises:
            Interrupted: the run is over.
        """


class NonFiniteError(ValueError):
    """A loss, a return or a parameter is NaN or infinite."""


class RealSystemError(Exception):
    """The real system, such as a robot, cannot be used."""


class SystemLostError(RealSystemError):
    """The real system was lost in an episode, which therefore does not count; the next reset may find it again."""


class Interrupted(Exception):  # noqa: N818  (it is no error)
    """The run is over: raised inside a worker's step, which is then dropped without a trace."""


@dataclass(frozen=True)
class PerCollector:
    """Marks, in the type hint of a component's setting, that several collectors may have it different from each other.

    Its value may then be a list with one item for each of them, as in `env.robot.address`.
    """

    distinct: bool = False
    """Whether they have to: two collectors cannot share what this is the address of."""


@dataclass(frozen=True)
class StepReport:
    """What one step of one worker did."""

    metrics: Metrics
    trajectories: int = 0
    env_steps: int = 0
    """Control steps of the real system."""
    collection_seconds: float = 0.0
    """The least time in which the real system can make these steps: their control periods, and the resets."""


@dataclass(frozen=True)
class TaskSpec:
    """What the learners need to know of a task.

    Actions are normalised: a policy acts in [-1, 1], the task maps that onto its actuators.
    """

    observation_size: int
    action_size: int
    horizon: int
    """Control steps of a trajectory."""
    control_period: float
    """Seconds between two control steps of the real system."""
    repeatable: bool = True
    """Whether equal generators and actions lead to equal observations: true of simulators, not of robots."""
    learned: tuple[Signal, ...] = ()
    """What only the real system can tell, so that a model has to learn it; E of them."""
    reset_seconds: float = 0.0
    """The least time that a reset takes: on the run's clock, but in no episode."""
    real_time: bool = False
    """Whether the system's time passes whatever the run's clock says: true of robots."""


class TaskStep(NamedTuple):
    """What one control step of the real system brought."""

    observation: FloatArray  # (O,)
    reward: float
    terminated: bool
    """The task is over for good: nothing that could be earned follows."""
    truncated: bool
    """The system was cut off, though the task would go on."""


@dataclass(frozen=True)
class Trajectory:
    """One real trajectory of T control steps, hence T transitions.

    It is shorter than the task's horizon if the task terminated, or if the system was cut off.
    """

    observations: FloatArray  # (T + 1, O)
    actions: FloatArray  # (T, A), as the policy sampled them: the task executes `clip_action(actions)`
    rewards: FloatArray  # (T,)
    policy_version: int
    """Version of the policy, or of the model of one who plans, that acted; 0: before there was any."""
    terminated: bool = False
    """Whether the last step ended the task for good."""

    @property
    def length(self) -> int:
        """T."""
        return len(self.rewards)

    @property
    def tensors(self) -> Parameters:
        """The arrays by name, without a copy."""
        arrays = {"observations": self.observations, "actions": self.actions, "rewards": self.rewards}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    @property
    def undiscounted_return(self) -> float:
        """Sum of the T rewards."""
        return float(self.rewards.sum(dtype=np.float64))

    def state_dict(self) -> State:
        """No copy, because nobody changes a trajectory."""
        return {**self.tensors, "policy_version": self.policy_version, "terminated": self.terminated}

    @classmethod
    def from_state_dict(cls, state: State) -> Trajectory:
        """The inverse of `state_dict`."""
        observations, actions, rewards = (state[name].numpy() for name in ("observations", "actions", "rewards"))
        return cls(observations, actions, rewards, state["policy_version"], state["terminated"])


@dataclass(frozen=True)
class Transitions:
    """N independent transitions, with actions as they were executed (clipped)."""

    observations: Tensor  # (N, O)
    actions: Tensor  # (N, A)
    outcomes: Tensor  # (N, O + E): the next observation, then the learned signals

    def __len__(self) -> int:
        return len(self.observations)

    @property
    def next_observations(self) -> Tensor:
        """(N, O)."""
        return self.outcomes[:, : self.observations.shape[1]]


@dataclass(frozen=True)
class RolloutEnds:
    """Where rollouts ended that lie side by side in tensors of T steps, (T, ..., R)."""

    lengths: Tensor  # (..., R), int64, 1 to T; what is stored behind these steps never happened
    terminated: Tensor  # (..., R), bool: whether the last step ended the task for good

    @classmethod
    def at_horizon(cls, rewards: Tensor) -> RolloutEnds:
        """All rollouts have the T steps that these rewards (T, ..., R) have, and none terminated."""
        first = rewards[0]
        return cls(torch.full_like(first, len(rewards), dtype=torch.int64), torch.zeros_like(first, dtype=torch.bool))

    @classmethod
    def at_first(cls, terminations: Tensor) -> RolloutEnds:
        """Each ended at the first step that terminated, bool (T, ..., R), or at the horizon."""
        terminated = terminations.any(dim=0)  # (..., R)
        first = terminations.int().argmax(dim=0) + 1  # (..., R)
        return cls(torch.where(terminated, first, len(terminations)), terminated)

    def happened(self, horizon: int) -> Tensor:
        """Which of the T steps happened: bool (T, ..., R)."""
        steps = torch.arange(horizon, device=self.lengths.device)
        return steps.view(-1, *[1] * self.lengths.ndim) < self.lengths


def clip_action(action: Tensor) -> Tensor:
    """The action that is executed, in reality and in imagination alike: limited to [-1, 1]."""
    return action.clamp(-1.0, 1.0)


def transitions_of(
    trajectory: Trajectory, device: torch.device | str = "cpu", learned: Sequence[Signal] = ()
) -> Transitions:
    """The T transitions of a trajectory of T steps, with the signals that are to be learned; a termination is 1."""
    observations = torch.as_tensor(trajectory.observations, device=device)
    actions = clip_action(torch.as_tensor(trajectory.actions, device=device))
    rewards = torch.as_tensor(trajectory.rewards, device=device)
    terminations = torch.zeros_like(rewards)
    terminations[-1] = float(trajectory.terminated)
    signals = {"reward": rewards, "termination": terminations}
    outcomes = torch.cat([observations[1:], *(signals[signal][:, None] for signal in learned)], dim=1)  # (T, O + E)
    return Transitions(observations[:-1], actions, outcomes)


def copy_of(parameters: Parameters) -> dict[str, Tensor]:
    """The same tensors, which their owner does not change any more."""
    return {name: tensor.detach().clone() for name, tensor in parameters.items()}


def require_finite(value: Tensor | float, what: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        NonFiniteError: `what` in a sentence that also says what to try.
    """
    if not bool(torch.isfinite(torch.as_tensor(value)).all()):
        remedy = "lower the learning rate or the policy's step size, or look at the rewards"
        raise NonFiniteError(f"{what} is not finite: {remedy}.")
