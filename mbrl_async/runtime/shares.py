"""How each worker spends the run: busy, idle (nothing new to work on) or blocked (by the schedule)."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Literal

from mbrl_async.runtime.schedule import role_of
from mbrl_async.types import Metrics, State

Activity = Literal["busy", "idle", "blocked"]
ACTIVITIES: tuple[Activity, ...] = ("busy", "idle", "blocked")


class Shares:
    """Adds up the seconds that each worker spent in each activity."""

    def __init__(self, workers: Iterable[str]) -> None:
        self._activity: dict[str, Activity] = dict.fromkeys(workers, "blocked")
        self._seconds = {(activity, worker): 0.0 for activity in ACTIVITIES for worker in self._activity}
        self._now = 0.0

    def advance(self, now: float) -> None:
        """Account for the time up to `now`, in seconds on the run's clock."""
        for worker, activity in self._activity.items():
            self._seconds[activity, worker] += now - self._now
        self._now = now

    def set(self, worker: str, activity: Activity) -> None:
        """What `worker` does from now on."""
        self._activity[worker] = activity

    def busy(self, worker: str) -> bool:
        """Whether `worker` is in a step."""
        return self._activity[worker] == "busy"

    def state_dict(self) -> State:
        """All sums and what each worker does now, as a copy."""
        seconds = {
            activity: {worker: self._seconds[activity, worker] for worker in self._activity} for activity in ACTIVITIES
        }
        return {"activity": dict(self._activity), "seconds": seconds, "now": self._now}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self._activity = dict(state["activity"])
        self._seconds = {
            (activity, worker): state["seconds"][activity][worker]
            for activity in ACTIVITIES
            for worker in self._activity
        }
        self._now = state["now"]

    def metrics(self) -> Metrics:
        """`share/<activity>_<worker>`, of the run so far; the three of a worker add up to 1.

        Of several workers with one role there is also the mean, under the role's name.
        """
        shares: dict[str, list[float]] = {}
        for (activity, worker), seconds in self._seconds.items():
            for name in dict.fromkeys((role_of(worker), worker)):
                share = seconds / self._now if self._now > 0 else 0.0
                shares.setdefault(f"share/{activity}_{name}", []).append(share)
        return {name: fmean(each) for name, each in shares.items()}
