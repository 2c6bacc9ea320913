"""Runs that differ in their seed alone, put together and drawn on one axis."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mbrl_async.analysis.curves import Array, Curve, moving_mean
from mbrl_async.types import WINDOW

POINTS = 201
"""Of a curve that is drawn."""

NO_VARIANT = (
    "seed",
    "device",
    "devices.",
    "matmul_precision",
    "tracking.",
    "sweep.",
    "checkpoint.",
    "resume",
    "torch_threads.",
    "backend.",
)
"""Parameters, or beginnings of their names, that make no other series: names, and what `flags.py` compares."""


@dataclass(frozen=True)
class ComparedRun:
    """What a comparison needs of one run."""

    run_id: str
    started: int
    """Milliseconds since 1970."""
    tags: Mapping[str, str]
    parameters: Mapping[str, str]
    curves: Mapping[str, Curve]
    """Metric -> its curve, with a value for each real trajectory."""
    measures: Mapping[str, float]
    """What explains the result: `measures.py`."""

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.tags["seed"])


@dataclass(frozen=True)
class Series:
    """Runs with different seeds and otherwise one configuration."""

    task: str
    algorithm: str
    schedule: str
    backend: str
    variant: str
    """Where several series have all of the above in common: in which parameters this one differs from the others."""
    runs: Sequence[ComparedRun]
    one_of_several_backends: bool = False
    """Whether its task was run on others, too."""

    @property
    def label(self) -> str:
        """What tells it from the other series of its task."""
        backend = self.backend if self.one_of_several_backends else ""
        return " ".join(filter(None, (self.algorithm, self.schedule, backend, self.variant)))

    @property
    def parameters(self) -> Mapping[str, str]:
        """What all of its runs have, and the seed of the first."""
        return self.runs[0].parameters

    def has(self, metric: str) -> bool:
        """Whether all runs have it."""
        return all(metric in run.curves for run in self.runs)

    def aligned(self, metric: str, axis: str) -> AlignedCurves:
        """The moving means of a metric of all runs at the same positions; `axis` is a field of `Curve`.

        They begin where every run has a full window, and end where the first run ends; the window of runs that are
        shorter than two of the usual ones is half of the shortest.
        """
        smoothed = self._smoothed(metric, axis)
        first = max(x[0] for x, _ in smoothed)
        # A run may end before another has its first window: then they have one position in common.
        grid = np.linspace(first, max(first, min(x[-1] for x, _ in smoothed)), POINTS)
        return AlignedCurves(grid, np.stack([np.interp(grid, x, y) for x, y in smoothed]))

    def held(self, metric: str, axis: str) -> AlignedCurves:
        """The same means where a trajectory of any run ends, to where the last run ends: nothing is drawn in between.

        Each run has the value of its last trajectory so far, so that a threshold is reached when it was measured.
        """
        smoothed = self._smoothed(metric, axis)
        first = max(x[0] for x, _ in smoothed)
        ends = np.unique(np.concatenate([x for x, _ in smoothed]))
        grid = ends[ends >= first]
        return AlignedCurves(grid, np.stack([y[np.searchsorted(x, grid, side="right") - 1] for x, y in smoothed]))

    def _smoothed(self, metric: str, axis: str) -> list[tuple[Array, Array]]:
        """Positions and moving means of each run."""
        curves = [run.curves[metric] for run in self.runs]
        window = max(1, min(WINDOW, *(len(curve) // 2 for curve in curves)))
        return [
            (getattr(curve, axis)[window - 1 :], moving_mean(curve.values, window)[window - 1 :]) for curve in curves
        ]

    def first(self, metric: str) -> Array:
        """What each run's first trajectory had, with random actions, (N, 1)."""
        return np.array([[run.curves[metric].values[0]] for run in self.runs])

    def last(self, metric: str) -> Array:
        """The mean over the last `WINDOW` trajectories of each run, (N, 1)."""
        return np.array([[run.curves[metric].values[-WINDOW:].mean()] for run in self.runs])


@dataclass(frozen=True)
class AlignedCurves:
    """A metric of N runs at G positions."""

    x: Array  # (G,)
    values: Array  # (N, G)


def make_series(runs: Iterable[ComparedRun]) -> tuple[list[Series], list[str]]:
    """The series in a fixed order; and a sentence for every run that was left out."""
    choices: dict[tuple[str, str, str, str], list[ComparedRun]] = defaultdict(list)
    for run in runs:
        tags = run.tags
        choices[tags["env"], tags["algorithm"], tags["schedule"], tags["backend"]].append(run)
    backends = {task: {choice[-1] for choice in choices if choice[0] == task} for task, *_ in choices}
    series, left_out = [], []
    for choice in sorted(choices):
        for variant, same in sorted(_variants(choices[choice]).items()):
            newest = {run.seed: run for run in sorted(same, key=lambda run: run.started)}
            several = len(backends[choice[0]]) > 1
            series.append(Series(*choice, variant, [newest[seed] for seed in sorted(newest)], several))
            if len(newest) < len(same):
                left_out.append(f"{series[-1].label}: of {len(same)} runs with {len(newest)} seeds the newest count.")
    return series, left_out


def differing_parameters(runs: Sequence[ComparedRun]) -> list[str]:
    """Parameters that make series and differ between runs; of those that always agree with each other the shortest.

    A parameter that is interpolated from another one has its value in every run.
    """
    names = {name for run in runs for name in run.parameters if not name.startswith(NO_VARIANT)}
    by_values: dict[tuple[str | None, ...], str] = {}
    for name in sorted(names, key=lambda name: (name.count("."), name)):
        values = tuple(run.parameters.get(name) for run in runs)
        if len(set(values)) > 1:
            by_values.setdefault(values, name)
    return sorted(by_values.values())


def _variants(runs: Sequence[ComparedRun]) -> dict[str, list[ComparedRun]]:
    """The runs by those of their parameters that are not the same in all of them."""
    differing = differing_parameters(runs)
    variants = defaultdict(list)
    for run in runs:
        own = ((".".join(name.split(".")[-2:]), run.parameters.get(name)) for name in differing)
        variants[" ".join(f"{name}={value}" for name, value in own if value is not None)].append(run)
    return variants
