"""The numbers of a run as a person reads them: pure functions from a snapshot to text and tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mbrl_async.tracking.progress import Limits, Snapshot
from mbrl_async.types import WINDOW

RATES = {"policy updates": "improve_policy/updates", "model epochs": "learn_model/epochs"}
"""What is counted per trajectory -> the cumulative metric."""

UNKNOWN = "–"

PROGRESS_BAR_WIDTH = 30
BUSY_BAR_WIDTH = 12


def live_view(title: str, snapshot: Snapshot, limits: Limits, remaining: float | None) -> RenderableType:
    """The screen of a run that goes on; `remaining` is in seconds."""
    return Group(
        Text(title, style="bold"),
        _progress_bar(snapshot, limits, remaining),
        Text(),
        _worker_table(snapshot),
        Text(),
        Text(_results(snapshot)),
    )


def plain_line(snapshot: Snapshot, limits: Limits) -> str:
    """The same in one line, at the end of the newest trajectory."""
    return f"{_position(snapshot, limits)} · {_results(snapshot)}"


def summary_view(title: str, ending: str, snapshot: Snapshot, figures: Sequence[Path]) -> RenderableType:
    """What remains on the screen when all is done."""
    counters = snapshot.counters
    table = Table.grid(padding=(0, 2))
    table.add_row("trajectories", f"{counters.trajectories}")
    table.add_row("environment steps", f"{counters.env_steps}")
    table.add_row(f"return, mean of the last {len(snapshot.returns) or WINDOW}", _number(snapshot.mean_return, ".1f"))
    table.add_row("run time", f"{counters.seconds:.1f} s")
    table.add_row("collection time", f"{counters.collection_seconds:.1f} s")
    table.add_row("run / collection time", _number(snapshot.time_ratio, ".3f"))
    for name, rate in _rates(snapshot).items():
        table.add_row(f"{name} per trajectory", rate)
    for index, figure in enumerate(figures):
        table.add_row("" if index else "figures", Text(str(figure), overflow="fold"))
    return Group(Text(f"\n{title}: the run {ending}.", style="bold"), table)


def _progress_bar(snapshot: Snapshot, limits: Limits, remaining: float | None) -> RenderableType:
    row = Table.grid(padding=(0, 2, 0, 0))
    left = UNKNOWN if remaining is None else str(timedelta(seconds=round(remaining)))
    row.add_row(
        _bar(limits.share_done(snapshot.counters), PROGRESS_BAR_WIDTH), _position(snapshot, limits), f"{left} left"
    )
    return row


def _position(snapshot: Snapshot, limits: Limits) -> str:
    counters = snapshot.counters
    return " · ".join(
        (
            f"{_of(str(counters.trajectories), limits.trajectories)} trajectories",
            f"{_of(str(counters.env_steps), limits.env_steps)} env steps",
            f"{_of(f'{counters.seconds:.0f}', limits.seconds)} s",
        )
    )


def _bar(share: float, width: int) -> ProgressBar:
    return ProgressBar(total=1.0, completed=share, width=width, complete_style="green", finished_style="green")


def _of(done: str, limit: float | None) -> str:
    return done if limit is None else f"{done}/{limit:g}"


def _worker_table(snapshot: Snapshot) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("worker")
    table.add_column("steps", justify="right")
    table.add_column("busy", justify="right")
    table.add_column()
    table.add_column("used")
    table.add_column("newer versions", justify="right")
    table.add_column("age", justify="right")
    for worker, channels in snapshot.inputs.items():
        for channel in channels:
            table.add_row(*_worker_row(snapshot, worker, channel))
    return table


def _worker_row(snapshot: Snapshot, worker: str, channel: str) -> tuple[RenderableType, ...]:
    busy = snapshot.metrics.get(f"share/busy_{worker}")
    return (
        worker,
        str(snapshot.steps[worker]),
        _number(busy, ".0%"),
        _bar(busy or 0.0, BUSY_BAR_WIDTH),
        channel,
        _number(_staleness(snapshot, worker, channel, "versions"), ".0f"),
        _number(_staleness(snapshot, worker, channel, "seconds"), ".1f", " s"),
    )


def _staleness(snapshot: Snapshot, worker: str, channel: str, unit: str) -> float | None:
    """Of what the worker used last: its own, where others use such versions as well."""
    name = f"staleness/{channel}_{unit}"
    return snapshot.metrics.get(f"{name}_{worker}", snapshot.metrics.get(name))


def _results(snapshot: Snapshot) -> str:
    newest = snapshot.returns[-1] if snapshot.returns else None
    results = [
        f"return {_number(newest, '.1f')}",
        f"mean of last {WINDOW} {_number(snapshot.mean_return, '.1f')}",
        f"run/collection {_number(snapshot.time_ratio, '.3f')}",
    ]
    if rates := _rates(snapshot):
        results.append("per trajectory " + ", ".join(f"{rate} {name}" for name, rate in rates.items()))
    return " · ".join(results)


def _rates(snapshot: Snapshot) -> dict[str, str]:
    """What each learner that has worked did per trajectory."""
    return {
        name: _number(snapshot.per_trajectory(metric), ".3g")
        for name, metric in RATES.items()
        if metric in snapshot.metrics
    }


def _number(value: float | None, form: str, unit: str = "") -> str:
    return UNKNOWN if value is None else f"{value:{form}}{unit}"
