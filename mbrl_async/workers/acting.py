"""Who chooses the actions of a real trajectory."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from mbrl_async.algorithms.planning import Planner, shifted
from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.envs.task import Task
from mbrl_async.policies.adapted import adapted_policies
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.runtime.channels import Latest, Versioned
from mbrl_async.types import FloatArray, State, copy_of

FirstActions = Literal["random", "policy"]


class Actor(Protocol):
    """What the collector asks for an action in each control step of a trajectory."""

    @property
    def channel(self) -> str:
        """Where what it acts with comes from."""

    @property
    def acting(self) -> Versioned | None:
        """What it acts with; None before there is any."""

    def pull(self) -> None:
        """Take what is newest; a new trajectory begins."""

    def take(self, acting: Versioned | None) -> None:
        """Act with this from now on."""

    def act(self, observation: FloatArray) -> FloatArray:
        """An action (A,), which may lie outside [-1, 1], after the observation (O,)."""

    def state_dict(self) -> State:
        """Everything that the next trajectory depends on besides `acting`, as a copy."""

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""


class PolicyActor:
    """Samples from the newest policy.

    Args:
        policy: receives the published parameters.
        policies: where they come from.
        first_actions: what acts before anything is published: uniformly random actions, or the initial policy.
        action_generator: draws the actions.
    """

    channel = "policy"

    def __init__(
        self,
        *,
        policy: GaussianMLP,
        policies: Latest,
        first_actions: FirstActions,
        action_generator: torch.Generator,
    ) -> None:
        self._policy = policy
        self._policies = policies
        self._random_at_first = first_actions == "random"
        self._generator = action_generator
        self.acting: Versioned | None = None

    def pull(self) -> None:
        """Take the newest policy."""
        newest = self._policies.get()
        if newest is not None and newest is not self.acting:
            self.take(newest)

    def take(self, acting: Versioned | None) -> None:
        """Act with this policy; None: go on with the parameters that there are."""
        if acting is not None:
            self._policy.load_state_dict(acting.parameters)
        self.acting = acting

    @torch.no_grad()
    def act(self, observation: FloatArray) -> FloatArray:
        """See `Actor`."""
        size = len(self._policy.log_std)
        if self.acting is None and self._random_at_first:
            return uniform_action(size, self._generator)
        noise = torch.randn(size, generator=self._generator)
        # A copy in torch's memory: how products round may depend on how their operands are aligned.
        action: FloatArray = self._policy(torch.tensor(observation)).sample(noise).numpy()
        return action

    def state_dict(self) -> State:
        """The generator, and the policy, which is the initial one before there is another."""
        return {"generator": self._generator.get_state(), "policy": copy_of(self._policy.state_dict())}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self._generator.set_state(state["generator"])
        self._policy.load_state_dict(state["policy"])


class AdaptedPolicyActor(PolicyActor):
    """Samples, for each trajectory, from one of the newest policies that tasks have adapted; all are alike probable.

    Which one is drawn with the first action: whoever goes on from a state that was taken after `pull` may pull again.
    """

    _begins = True

    def pull(self) -> None:
        """Take the newest policies."""
        super().pull()
        self._begins = True

    def take(self, acting: Versioned | None) -> None:
        """Draw from these at the next trajectory; until then go on with the parameters that there are."""
        self.acting = acting

    def act(self, observation: FloatArray) -> FloatArray:
        """See `Actor`."""
        if self._begins and self.acting is not None:
            policies = adapted_policies(self.acting.parameters)
            chosen = int(torch.randint(len(policies), (), generator=self._generator))
            self._policy.load_state_dict(policies[chosen])
        self._begins = False
        return super().act(observation)

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`; no state is taken within a trajectory."""
        super().load_state_dict(state)
        self._begins = True


class PlanningActor:
    """Plans every action anew, in the model that was the newest when the trajectory began; at random before that.

    Within a trajectory the model stays the same, so that the trace says which one acted in every step.

    Args:
        planner: searches for the plan whose first action is taken.
        ensemble: receives the published model.
        models: where it comes from.
        task: gives reward and termination; the collector's own.
        action_generator: draws the random actions and the candidates.

    Raises:
        ValueError: the planner cannot be used with such an ensemble.
    """

    channel = "model"

    def __init__(
        self,
        *,
        planner: Planner,
        ensemble: Ensemble,
        models: Latest,
        task: Task,
        action_generator: torch.Generator,
    ) -> None:
        planner.require_compatible(ensemble.members)
        self._planner = planner
        self._ensemble = ensemble
        self._predictor = ensemble.predictor()
        self._models = models
        self._task = task
        self._device = ensemble.network.device
        self._generator = action_generator
        self._guess = self._first_guess()
        self.acting: Versioned | None = None

    def pull(self) -> None:
        """Take the newest model, and forget the last trajectory's plan."""
        self._guess = self._first_guess()
        newest = self._models.get()
        if newest is not None and newest is not self.acting:
            self.take(newest)

    def take(self, acting: Versioned | None) -> None:
        """Plan in this model; None: act at random."""
        if acting is not None:
            self._ensemble.load_state_dict(acting.parameters)
            self._predictor = self._ensemble.predictor()
        self.acting = acting

    def act(self, observation: FloatArray) -> FloatArray:
        """See `Actor`."""
        if self.acting is None:
            return uniform_action(self._task.spec.action_size, self._generator)
        start = torch.tensor(observation, device=self._device)
        plan = self._planner.plan(self._predictor, self._task, start, self._guess, self._generator)  # (H, A)
        self._guess = shifted(plan)
        action: FloatArray = plan[0].cpu().numpy()
        return action

    def state_dict(self) -> State:
        """The generator: a plan does not outlast its trajectory."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`; also after a part of a trajectory, which then begins again."""
        self._generator.set_state(state["generator"])
        self._guess = self._first_guess()

    def _first_guess(self) -> Tensor:
        return self._planner.first_guess(self._task.spec.action_size).to(self._device)


def uniform_action(size: int, generator: torch.Generator) -> FloatArray:
    """An action (A,) within [-1, 1]."""
    action: FloatArray = (2 * torch.rand(size, generator=generator) - 1).numpy()
    return action
