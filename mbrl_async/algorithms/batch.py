"""What a policy-gradient update learns from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from mbrl_async.policies.gaussian import Gaussian


@dataclass(frozen=True)
class Batch:
    """N actions that the old policy took, and how much better than expected each was."""

    observations: Tensor  # (N, O)
    actions: Tensor  # (N, A), as sampled
    advantages: Tensor  # (N,)
    old: Gaussian  # the distribution (N, A) that they were sampled from

    def __post_init__(self) -> None:
        """Refuse shapes that broadcasting would let pass.

        Raises:
            ValueError: the rows do not belong together.
        """
        rows = len(self.observations)
        if self.actions.shape != self.old.mean.shape or self.advantages.shape != (rows,):
            raise ValueError(
                f"actions {tuple(self.actions.shape)} and advantages {tuple(self.advantages.shape)} do not fit: "
                f"give {tuple(self.old.mean.shape)} and ({rows},), one row an observation."
            )

    def ratio(self, new: Gaussian) -> Tensor:
        """How much likelier each action is now, (N,)."""
        return (new.log_probability(self.actions) - self._old_log_probability).exp()

    @cached_property
    def _old_log_probability(self) -> Tensor:
        """Of each action, (N,): asked for again and again."""
        return self.old.log_probability(self.actions)

    def surrogate(self, new: Gaussian) -> Tensor:
        """Mean of ratio x advantage: what the new policy is expected to gain."""
        return (self.ratio(new) * self.advantages).mean()


def probability_ratio(actions: Tensor, old: Gaussian, new: Gaussian) -> Tensor:
    """How much likelier than the old distribution (..., A) the new one makes each action (..., A): (...)."""
    return (new.log_probability(actions) - old.log_probability(actions)).exp()
