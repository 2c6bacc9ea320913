"""How far apart a recorded run and one that was made like it are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from mbrl_async.recorded import RecordedRun
from mbrl_async.results import MODEL_FILE, POLICY_FILE, TRAJECTORIES_FILE, read_trajectories
from mbrl_async.runtime.digest import digest
from mbrl_async.runtime.trace import TRACE_FILE, StepRecord, name_of, read_trace


@dataclass(frozen=True)
class CurveDistance:
    """Between the returns of two runs, where they have as many environment steps."""

    points: int
    maximum: float
    """Largest absolute difference; NaN without common points."""
    mean: float
    """Mean absolute difference; NaN without common points."""


@dataclass(frozen=True)
class Distance:
    """Between two runs."""

    steps: int
    """Steps that both have."""
    first_difference: str | None
    """The first step that differs, in words; None: there is none."""
    returns: CurveDistance
    parameters: Mapping[str, bool]
    """File of final parameters that both left -> whether they are bit-identical."""

    @property
    def identical(self) -> bool:
        """Whether every step and every final parameter is the same."""
        return self.steps > 0 and self.first_difference is None and all(self.parameters.values())


def and_in(parameters: Collection[str]) -> str:
    """The end of a sentence on what is identical: files of final parameters, if there are any."""
    return f", and in {' and '.join(parameters)}" if parameters else ""


def distance(recorded: RecordedRun, output: Path) -> Distance:
    """Between a recorded run and the one whose files are in `output`.

    A run that was recorded before its stop rule was reached is compared as far as it goes; its last parameters are
    then those of another moment, and are not compared.
    """
    ended = recorded.status == "FINISHED"
    then = read_trace(recorded.fetch(TRACE_FILE)) if recorded.has(TRACE_FILE) else []
    now = read_trace(output / TRACE_FILE)
    return Distance(
        steps=min(len(then), len(now)),
        first_difference=first_difference(then, now) or _different_length(then, now, ended),
        returns=curve_distance(_returns(recorded.fetch(TRAJECTORIES_FILE)), _returns(output / TRAJECTORIES_FILE))
        if recorded.has(TRAJECTORIES_FILE)
        else curve_distance({}, {}),
        parameters={name: same_parameters(recorded, output, name) for name in final_parameters(recorded) if ended},
    )


def final_parameters(recorded: RecordedRun) -> list[str]:
    """The files of final parameters that a run left."""
    return [name for name in (POLICY_FILE, MODEL_FILE) if recorded.has(name)]


def same_parameters(recorded: RecordedRun, output: Path, name: str) -> bool:
    """Whether the tensors of a file are bit-identical to those of the recorded one."""
    own = output / name
    return own.exists() and digest(load_file(own)) == digest(load_file(recorded.fetch(name)))


def first_difference(then: Sequence[StepRecord], now: Sequence[StepRecord]) -> str | None:
    """The first step that is not the same in both traces, times aside; None: there is none as far as both go."""
    for position, (old, new) in enumerate(zip(then, now, strict=False), start=1):
        where = f"{name_of(old)} (record {position} of the trace)"
        if (old.worker, old.index) != (new.worker, new.index):
            return f"{where} came first, {name_of(new)} now"
        if dict(old.pulled) != dict(new.pulled):
            return f"{where} used {dict(old.pulled)} first, {dict(new.pulled)} now"
        if old.digest != new.digest:
            return f"{where} has another result now"
    return None


def _different_length(then: Sequence[StepRecord], now: Sequence[StepRecord], ended: bool) -> str | None:
    if len(now) < len(then) or (ended and len(now) > len(then)):
        return f"there were {len(then)} steps, there are {len(now)} now"
    return None


def curve_distance(then: Mapping[int, float], now: Mapping[int, float]) -> CurveDistance:
    """Between two curves, environment steps -> return."""
    common = sorted(then.keys() & now.keys())
    apart = np.array([abs(then[steps] - now[steps]) for steps in common])  # (N,)
    if not common:
        return CurveDistance(0, float("nan"), float("nan"))
    return CurveDistance(len(common), float(apart.max()), float(apart.mean()))


def _returns(path: Path) -> dict[int, float]:
    """Environment steps at the end of each trajectory -> its return."""
    trajectories = read_trajectories(path) if path.exists() else []
    ends = accumulate(trajectory.length for trajectory in trajectories)
    return {end: trajectory.undiscounted_return for end, trajectory in zip(ends, trajectories, strict=True)}
