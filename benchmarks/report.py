"""Measurements for readers and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from benchmarks.measurement import Measurement
from mbrl_async.tracking.environment import Environment


def machine(environment: Environment) -> str:
    """The line without which no figure means anything."""
    return (
        f"{environment.cpu}, {environment.usable_cores or environment.cores} cores, Python {environment.python}, "
        f"torch {environment.packages['torch']}, {environment.matmul_precision} precision of float32 matrix products"
    )


def table(title: str, measurements: Iterable[Measurement]) -> Table:
    """One row a figure."""
    rows = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    rows.add_column("figure", overflow="fold", min_width=40)
    for column in ("value", "unit", "threads", "of ceiling", "of peer"):
        rows.add_column(column, justify="left" if column == "unit" else "right")
    for each in measurements:
        ratios = (_percentage(ratio) for ratio in (each.ratio_to_ceiling, each.ratio_to_peer))
        rows.add_row(each.name, _number(each.value), each.unit, str(each.threads), *ratios)
    return rows


def write_json(path: Path, measurements: Sequence[Measurement]) -> None:
    """A list of {name, value, unit, threads, ratio_to_ceiling, ratio_to_peer}; a ratio is null where there is none."""
    path.write_text(json.dumps([asdict(each) for each in measurements], indent=2) + "\n")


def _number(value: float) -> str:
    """Three significant digits, and thousands in full."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"


def _percentage(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.0%}"
