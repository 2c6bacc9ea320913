"""The pictures of one run. Drawn with matplotlib's objects alone, so that nothing leaks into the next run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl_async.analysis.curves import Array, Curve, RunHistory, moving_mean, read_run
from mbrl_async.analysis.timeline import Timeline, busy_shares, timelines
from mbrl_async.runtime.trace import StepRecord
from mbrl_async.types import WINDOW

if TYPE_CHECKING:
    from mlflow import MlflowClient

SIZE = (7.0, 4.2)
"""Inches."""

DOTS_PER_INCH = 150

BINS = 60
"""Of the timeline of a whole run."""

ROW_HEIGHT = 0.8
"""Of a worker in the timeline, where rows are 1 apart."""

ZOOM_SECONDS = 60.0
"""Length of the part of the timeline in which single steps are drawn."""

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")  # Paul Tol's, safe for colour blindness

LOSSES = {"learn_model/train_loss": "training", "learn_model/validation_loss": "validation"}
"""Metric -> label."""

STALENESS = {"policy": "policy used", "trajectories": "trajectories used", "model": "model used"}
"""Channel -> label."""


def write_figures(client: MlflowClient, run_id: str, directory: Path) -> list[Path]:
    """Draw what the run has data for into `directory`, which is made; returns the PNG files.

    Raises:
        mlflow.exceptions.MlflowException: there is no such run.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in draw_figures(read_run(client, run_id)).items():
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=DOTS_PER_INCH)
    return paths


def draw_figures(history: RunHistory) -> dict[str, Figure]:
    """File name without its ending -> figure, for everything that the run has data for."""
    figures = {}
    if returns := history.curves.get("collect/return"):
        figures["return_against_env_steps"] = draw_return(returns, returns.env_steps, "environment steps")
        figures["return_against_run_time"] = draw_return(returns, returns.seconds / 60, "run time (min)")
    losses = {label: history.curves[name] for name, label in LOSSES.items() if name in history.curves}
    if losses:
        figures["losses"] = draw_losses(losses)
    if history.trace:
        figures["timeline"] = draw_timeline(history.trace)
    if any(f"staleness/{channel}_seconds" in history.curves for channel in STALENESS):
        figures["staleness"] = draw_staleness(history)
    for figure in figures.values():
        figure.suptitle(history.name, fontsize=11)
    return figures


def draw_return(returns: Curve, x: Array, label: str) -> Figure:
    """A dot a trajectory, and the moving mean; `x` are positions with the axis label `label`."""
    figure, axes = figure_with_axes()
    axes.plot(x, returns.values, "o", color=COLOURS[0], alpha=0.4, markersize=4, label="one trajectory")
    mean = moving_mean(returns.values, WINDOW)
    axes.plot(x, mean, color=COLOURS[0], linewidth=2, label=f"mean of the last {WINDOW}")
    axes.set(xlabel=label, ylabel="return (sum of rewards)", xlim=(0, None))
    axes.legend(frameon=False)
    return figure


def draw_losses(losses: Mapping[str, Curve]) -> Figure:
    """Label -> loss, of every epoch against run time; logarithmic unless a loss is negative, as likelihoods may be."""
    figure, axes = figure_with_axes()
    for colour, (label, loss) in zip(COLOURS, losses.items(), strict=False):
        axes.plot(loss.seconds / 60, loss.values, color=colour, linewidth=1.2, label=label)
    scale = "log" if all((loss.values > 0).all() for loss in losses.values()) else "linear"
    axes.set(xlabel="run time (min)", ylabel="loss (mean over members)", yscale=scale, xlim=(0, None))
    axes.legend(frameon=False)
    return figure


def draw_timeline(trace: Sequence[StepRecord]) -> Figure:
    """Who was busy when: single steps in one minute, and of a longer run the busy share over its whole length."""
    rows = timelines(trace)
    end = max(record.finish for record in trace)
    if end <= ZOOM_SECONDS:
        figure, axes = figure_with_axes()
        _draw_steps(axes, rows, 0.0, end)
        return figure
    figure = Figure(figsize=(SIZE[0], 1.3 * SIZE[1]), layout="constrained")
    whole, zoom = figure.subplots(2)
    _draw_busy_shares(whole, rows, end)
    middle = (end - ZOOM_SECONDS) / 2
    _draw_steps(zoom, rows, middle, middle + ZOOM_SECONDS)
    whole.axvspan(middle / 60, (middle + ZOOM_SECONDS) / 60, color="black", alpha=0.12, linewidth=0)
    return figure


def draw_staleness(history: RunHistory) -> Figure:
    """How old the inputs were when the steps that used them ended: above in versions, below in seconds."""
    figure = Figure(figsize=(SIZE[0], 1.3 * SIZE[1]), layout="constrained")
    panels = figure.subplots(2, sharex=True)
    for axes, unit, label in zip(panels, ("versions", "seconds"), ("newer versions", "age (s)"), strict=True):
        for colour, (channel, name) in zip(COLOURS, STALENESS.items(), strict=False):
            if curve := history.curves.get(f"staleness/{channel}_{unit}"):
                axes.plot(curve.seconds / 60, curve.values, ".", color=colour, markersize=4, alpha=0.6, label=name)
        axes.set(ylabel=label, ylim=(0, None), xlim=(0, None))
        _simplify(axes)
    panels[1].set_xlabel("run time (min)")
    figure.legend(
        *panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    return figure


def _draw_busy_shares(axes: Axes, rows: Sequence[Timeline], end: float) -> None:
    edges = np.linspace(0.0, end, BINS + 1)
    for row, timeline in enumerate(rows):
        floor = row + ROW_HEIGHT  # the axis points down, so that the first worker is at the top
        tops = floor - ROW_HEIGHT * busy_shares(timeline, edges)
        axes.stairs(tops, edges / 60, baseline=floor, fill=True, color=COLOURS[row % len(COLOURS)])
    _label_rows(axes, rows)
    axes.set(xlabel="run time (min)", xlim=(0, end / 60))
    axes.set_title("whole run: the height is the share of time spent in steps", fontsize=9)


def _draw_steps(axes: Axes, rows: Sequence[Timeline], start: float, end: float) -> None:
    for row, timeline in enumerate(rows):
        inside = (timeline.finishes > start) & (timeline.starts < end)
        bars = np.column_stack((timeline.starts, timeline.finishes - timeline.starts))[inside]
        colour = COLOURS[row % len(COLOURS)]
        # Steps follow each other without a gap: two shades make them countable.
        axes.broken_barh(bars[0::2].tolist(), (row, ROW_HEIGHT), facecolors=colour)
        axes.broken_barh(bars[1::2].tolist(), (row, ROW_HEIGHT), facecolors=colour, alpha=0.55)
    _label_rows(axes, rows)
    axes.set(xlabel="run time (s)", xlim=(start, end))
    axes.set_title("each bar is one step", fontsize=9)


def _label_rows(axes: Axes, rows: Sequence[Timeline]) -> None:
    axes.set_yticks([row + ROW_HEIGHT / 2 for row in range(len(rows))], [timeline.worker for timeline in rows])
    axes.set_ylim(len(rows), ROW_HEIGHT - 1)
    axes.tick_params(axis="y", length=0)
    _simplify(axes)


def figure_with_axes() -> tuple[Figure, Axes]:
    """An empty figure in the size and style of all others."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    _simplify(axes)
    return figure, axes


def _simplify(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
