"""Model-based meta-policy optimisation (Clavera et al. 2018, arXiv:1809.05214): one meta update."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mbrl_async.algorithms.adaptation import Adaptation, split, thin
from mbrl_async.algorithms.advantages import AdvantageEstimator
from mbrl_async.algorithms.flat import assign, flatten
from mbrl_async.algorithms.imagination import (
    ImaginedTask,
    Model,
    Rollouts,
    StartObservations,
    require_equal_shares,
)
from mbrl_async.algorithms.meta_objective import MetaObjective
from mbrl_async.algorithms.task_imagination import imagine_tasks
from mbrl_async.algorithms.trust_region import TrustRegion
from mbrl_async.policies.adapted import with_adapted
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.policies.stack import PolicyStack
from mbrl_async.types import Metrics, Parameters, State, require_finite


class MBMPO:
    """Learns parameters from which one gradient step makes a good policy for each member of the ensemble.

    Every task is one member. Its rollouts with the common parameters are adapted on, and those with the adapted ones
    say what the common parameters are worth.

    Args:
        tasks: J; a multiple of the ensemble's members.
        rollouts: R, of each task, before and again after its adaptation.
        horizon: most steps of each; None: as many as a real trajectory has.
        adaptation_rate: alpha, the length of the gradient step by which a task adapts.
        advantages: turns rollouts into advantages, for each task alone.
        trust_region: of the outer step, in the KL between adapted policies; its curvature is estimated from every so
            manieth time step.
    """

    def __init__(
        self,
        *,
        tasks: PositiveInt,
        rollouts: PositiveInt,
        horizon: PositiveInt | None,
        adaptation_rate: PositiveFloat,
        advantages: AdvantageEstimator,
        trust_region: TrustRegion,
    ) -> None:
        self._tasks = tasks
        self._rollouts = rollouts
        self._horizon = horizon
        self._rate = adaptation_rate
        self._advantages = advantages
        self._trust_region = trust_region
        self._adapted: dict[str, Tensor] = {}

    def require_compatible(self, members: int) -> None:
        """Refuse, before a run starts, an ensemble whose members would not get equally many tasks.

        Raises:
            ValueError: the number of tasks is not a multiple of the members.
        """
        require_equal_shares(self._tasks, members, "tasks")

    def improve(
        self,
        policy: GaussianMLP,
        model: Model,
        task: ImaginedTask,
        starts: StartObservations,
        generator: torch.Generator,
        check_interrupted: Callable[[], None],
    ) -> Metrics:
        """Improve the common parameters in place by one meta update.

        Raises:
            Interrupted: from `check_interrupted`; the policy is then as it was.
            NonFiniteError: an imagined value, the gradient or a parameter is not finite.
        """
        stack, start = PolicyStack(policy), flatten(list(policy.parameters())).detach()  # (P,)

        def imagine(parameters: Tensor) -> tuple[Rollouts, Tensor]:
            """Rollouts (T, J, R) with each task's own parameters (J, P), and their advantages."""
            begin = starts(self._tasks * self._rollouts).view(self._tasks, self._rollouts, -1)  # (J, R, O)
            horizon = self._horizon or task.spec.horizon
            rollouts = imagine_tasks(stack, parameters, model, task, begin, horizon, generator, check_interrupted)
            return rollouts, self._advantages.estimate(rollouts.observations, rollouts.rewards, rollouts.ends)

        interval = self._trust_region.curvature_interval
        before, before_advantages = imagine(start.expand(self._tasks, -1))
        adaptation = Adaptation(stack, split(before, before_advantages), self._rate, check_interrupted)
        adapted = adaptation.adapted(start)  # (J, P)
        after, after_advantages = imagine(adapted)
        objective = MetaObjective(
            stack=stack,
            start=start,
            adaptation=adaptation,
            adapted=adapted,
            samples=split(after, after_advantages),
            thinned=(thin(before, before_advantages, interval), thin(after, after_advantages, interval)),
            check_interrupted=check_interrupted,
        )
        maximum = self._trust_region.maximise(objective)
        require_finite(maximum.parameters, "A policy parameter after the update")
        assign(list(policy.parameters()), maximum.parameters)
        policy.lift_to_floor()
        self._adapted = stack.named(objective.adapted if maximum.accepted else adapted)
        return maximum.metrics | {
            "imagined_return": float(before.undiscounted_returns.mean()),
            "adapted_imagined_return": float(after.undiscounted_returns.mean()),
            "log_std": float(policy.log_std.detach().mean()),
        }

    def published(self, policy: GaussianMLP) -> Parameters:
        """The common parameters and, for those who act, what the tasks made of them in the last update."""
        return with_adapted(policy.state_dict(), self._adapted)

    def state_dict(self) -> State:
        """The adapted parameters of the last update, as a copy."""
        return {"adapted": {name: tensor.clone() for name, tensor in self._adapted.items()}}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self._adapted = dict(state["adapted"])
