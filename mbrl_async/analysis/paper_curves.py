"""The authors' curves, read off their figures (arXiv:1910.12453): `paper_curves.md` says what they are."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mbrl_async.analysis.curves import Array

FILE = Path(__file__).with_suffix(".csv")

WALL_CLOCK = "wall_clock"
"""The figure against minutes of run time; all others are against environment steps."""

SECONDS_PER_MINUTE = 60


@dataclass(frozen=True)
class PaperCurve:
    """One curve of one figure."""

    figure: str
    x: Array  # (N,), seconds of run time or environment steps
    returns: Array  # (N,), means over the authors' seeds


def paper_curve(*, task: str, algorithm: str, schedule: str, variant: str, axis: str) -> PaperCurve | None:
    """The authors' curve of these, with their settings, if they show one; `axis` is `seconds` or `env_steps`."""
    wanted = {"task": task, "algorithm": algorithm, "variant": variant}
    with FILE.open() as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if wanted.items() <= row.items()
            and row["schedule"] in (schedule, "")  # their model-free runs have no schedule
            and (row["figure"] == WALL_CLOCK) == (axis == "seconds")
        ]
    if not rows:
        return None
    points = np.array([(float(row["x"]), float(row["mean_return"])) for row in rows])  # (N, 2)
    scale = SECONDS_PER_MINUTE if axis == "seconds" else 1
    return PaperCurve(rows[0]["figure"], points[:, 0] * scale, points[:, 1])
