"""When a worker may step: a cycle of phases. Synchronous and asynchronous runs differ in these numbers alone.

Workers of one phase run concurrently, each up to its budget of steps. A phase ends when every worker in it has used up
its budget or has nothing to do; then the next phase begins, for ever. `warm_up` phases come once, before the cycle.
Several collectors share the budget of `collect`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from mbrl_async.types import State

COLLECT = "collect"
LEARN_MODEL = "learn_model"
IMPROVE_POLICY = "improve_policy"
WORKERS = (COLLECT, LEARN_MODEL, IMPROVE_POLICY)


def collector_names(collectors: int) -> tuple[str, ...]:
    """Of so many collectors: `collect`, or `collect_0`, `collect_1`, ..."""
    return (COLLECT,) if collectors == 1 else tuple(f"{COLLECT}_{number}" for number in range(collectors))


def role_of(worker: str) -> str:
    """What a worker does, be it alone in that or one of several: `collect` of `collect_1`."""
    return re.sub(r"_\d+$", "", worker)


Phase = Mapping[str, float]
"""Worker -> most steps in this phase; infinity for no limit."""


@dataclass(frozen=True)
class Progress:
    """Where in its schedule a run is."""

    phase: int = 0
    """Phases that are over."""
    spent: Mapping[str, int] = field(default_factory=dict)
    """Steps of each worker in the present phase."""
    idle: frozenset[str] = frozenset()
    """Workers that found nothing to do since somebody last published."""

    def state_dict(self) -> State:
        """The progress as what JSON holds."""
        return {"phase": self.phase, "spent": dict(self.spent), "idle": sorted(self.idle)}

    @classmethod
    def from_state_dict(cls, state: State) -> Progress:
        """The inverse of `state_dict`."""
        return cls(state["phase"], state["spent"], frozenset(state["idle"]))


class Schedule:
    """A pure description of when: no clock, no thread. The state of a run is in a `Progress` value.

    Args:
        warm_up: phases that come once.
        cycle: phases that come again and again. An entry is either a phase, as in `{collect: 10}`, or a repeated
            cycle, as in `{repeat: 25, cycle: [{learn_model: 1}, {improve_policy: 2}]}`.

    Raises:
        ValueError: an unknown worker, an impossible budget, or a cycle that never collects.
    """

    def __init__(self, *, warm_up: Sequence[Mapping[str, Any]], cycle: Sequence[Mapping[str, Any]]) -> None:
        self._warm_up = _unroll("schedule.warm_up", warm_up)
        self._cycle = _unroll("schedule.cycle", cycle)
        if not any(COLLECT in phase for phase in self._cycle):
            raise ValueError(
                f"schedule.cycle={list(cycle)} never collects, so the run would not end: "
                f"add a phase such as {{{COLLECT}: 10}}."
            )

    def restricted_to(self, workers: Collection[str]) -> Schedule:
        """The same schedule for a run in which only `workers` take part: the others are left out of every phase.

        Raises:
            ValueError: one of them would never work.
        """
        for worker in workers:
            if not any(worker in phase for phase in self._cycle):
                raise ValueError(
                    f"schedule.cycle never lets {worker} work, which takes part in this algorithm: "
                    f"add a phase such as {{{worker}: 10}}, or choose another schedule."
                )
        return Schedule(warm_up=_without_others(self._warm_up, workers), cycle=_without_others(self._cycle, workers))

    def shared_among(self, collectors: int) -> Schedule:
        """The same schedule for so many collectors, to whom `collect` means all of them.

        They share its budget as equally as whole steps allow, and the first of them do one more than the others; no
        limit is none for each.

        Raises:
            ValueError: one of them would never work.
        """
        most = max(phase.get(COLLECT, 0) for phase in self._cycle)
        if most < collectors:
            raise ValueError(
                f"collectors={collectors} are too many for this schedule: no phase of its cycle collects more than "
                f"{most:g}, so {collector_names(collectors)[-1]} would never work. Use collectors={most:g}, or a phase "
                f"with {COLLECT}: {collectors} (iteration.rollouts={collectors})."
            )
        shared = copy(self)
        shared._warm_up = [_shared(phase, collectors) for phase in self._warm_up]
        shared._cycle = [_shared(phase, collectors) for phase in self._cycle]
        return shared

    @property
    def collects_without_limit(self) -> bool:
        """Whether some phase lets a collector go on for ever."""
        phases = (*self._warm_up, *self._cycle)
        return any(
            math.isinf(budget) and role_of(worker) == COLLECT for phase in phases for worker, budget in phase.items()
        )

    @property
    def improves_without_end(self) -> bool:
        """Whether some phase improves the policy for ever, in the same model, while nobody collects."""
        phases = (*self._warm_up, *self._cycle)
        return any(math.isinf(phase.get(IMPROVE_POLICY, 0)) and COLLECT not in map(role_of, phase) for phase in phases)

    def concurrent(self, *roles: str) -> bool:
        """Whether in some phase workers of all these roles work at the same time."""
        return any(set(roles) <= set(map(role_of, phase)) for phase in (*self._warm_up, *self._cycle))

    @property
    def takes_turns(self) -> bool:
        """Whether no two workers ever work at the same time."""
        return all(len(phase) == 1 for phase in (*self._warm_up, *self._cycle))

    def start(self) -> Progress:
        """Before the first step."""
        return Progress()

    def allowed(self, progress: Progress) -> frozenset[str]:
        """Workers that may be in a step now, those that are in one included."""
        budgets = self._phase(progress.phase)
        return frozenset(
            worker
            for worker, budget in budgets.items()
            if progress.spent.get(worker, 0) < budget and worker not in progress.idle
        )

    def after(self, progress: Progress, worker: str, *, idle: bool) -> Progress:
        """The progress after `worker` ended a step, or found nothing to do.

        A finished step published something, so whoever was idle gets another chance.
        """
        if idle:
            progress = Progress(progress.phase, progress.spent, progress.idle | {worker})
        else:
            spent = {**progress.spent, worker: progress.spent.get(worker, 0) + 1}
            progress = Progress(progress.phase, spent, frozenset())
        return progress if self.allowed(progress) else Progress(progress.phase + 1)

    def _phase(self, number: int) -> Phase:
        if number < len(self._warm_up):
            return self._warm_up[number]
        return self._cycle[(number - len(self._warm_up)) % len(self._cycle)]


def _unroll(key: str, entries: Sequence[Mapping[str, Any]]) -> list[Phase]:
    """Nested repeats as a flat list of phases."""
    phases: list[Phase] = []
    for entry in entries:
        if "repeat" in entry:
            phases += _repeated(key, entry)
        else:
            phases.append(_checked_phase(key, entry))
    return phases


def _without_others(phases: Sequence[Phase], workers: Collection[str]) -> list[Phase]:
    restricted = [{worker: budget for worker, budget in phase.items() if worker in workers} for phase in phases]
    return [phase for phase in restricted if phase]


def _shared(phase: Phase, collectors: int) -> Phase:
    """The phase, in which the budget of the collectors is divided among them; who gets nothing is left out."""
    shared: dict[str, float] = {}
    for worker, budget in phase.items():
        if worker == COLLECT:
            shared |= dict(zip(collector_names(collectors), _divided(budget, collectors), strict=True))
        else:
            shared[worker] = budget
    return {worker: budget for worker, budget in shared.items() if budget}


def _divided(budget: float, among: int) -> list[float]:
    """Whole numbers that add up to the budget and differ by one at most, the larger ones first."""
    if math.isinf(budget):
        return [budget] * among
    least, rest = divmod(budget, among)
    return [least + (number < rest) for number in range(among)]


def _repeated(key: str, entry: Mapping[str, Any]) -> list[Phase]:
    times = entry["repeat"]
    if set(entry) != {"repeat", "cycle"} or not isinstance(times, int) or times < 1:
        raise ValueError(f"{key}: {dict(entry)} is no repeated cycle: write {{repeat: 10, cycle: [...]}}.")
    return _unroll(key, entry["cycle"]) * times


def _checked_phase(key: str, phase: Mapping[str, Any]) -> Phase:
    if not phase:
        raise ValueError(f"{key} has an empty phase: name a worker in it, or remove it.")
    for worker, budget in phase.items():
        if worker not in WORKERS:
            raise ValueError(f"{key}: {worker}={budget} names no worker: use {', '.join(WORKERS)} or repeat.")
        if not _is_budget(budget):
            raise ValueError(f"{key}: {worker}={budget} is no number of steps: use 1, 2, ... or .inf.")
    return dict(phase)


def _is_budget(budget: Any) -> bool:
    if isinstance(budget, bool) or not isinstance(budget, (int, float)):
        return False
    return budget >= 1 and (math.isinf(budget) or float(budget).is_integer())
