"""What runs are compared by: the return, and what tasks say of a trajectory besides it."""

from __future__ import annotations

from dataclasses import dataclass

from mbrl_async.types import WINDOW


@dataclass(frozen=True)
class Objective:
    """One number a trajectory, of which more or less is better.

    Args:
        name: in settings and names of files.
        metric: what MLflow calls it.
        title: in captions and tables.
        label: of the axis.
        axes: keys of `speedup.AXES`: what it is drawn against.
        smaller_is_better: whether a threshold is reached from above.
        form: how a value is written.
    """

    name: str
    metric: str
    title: str
    label: str
    axes: tuple[str, ...]
    smaller_is_better: bool = False
    form: str = ".1f"

    @property
    def last(self) -> str:
        """What the mean over the last trajectories is called."""
        return f"{self.title}, last {WINDOW}"

    @property
    def sign(self) -> int:
        """What makes larger ones better."""
        return -1 if self.smaller_is_better else 1


RETURN = Objective("return", "collect/return", "return", "return (sum of rewards)", ("env_steps", "seconds"))

OUTCOMES = {
    each.name: each
    for each in (
        Objective(
            "final_distance_cm",
            "collect/final_distance_cm",
            "final distance (cm)",
            "final distance (cm)",
            ("trajectories", "seconds"),
            smaller_is_better=True,
            form=".2f",
        ),
        Objective(
            "success", "collect/success", "success", "share of successes", ("trajectories", "seconds"), form=".2f"
        ),
    )
}
"""What may be compared besides the return, by the names that settings have for it."""
