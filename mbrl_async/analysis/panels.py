"""The pictures of a comparison: one a task and an axis, every series in it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl_async.analysis.comparison import Comparison, SeriesCurve
from mbrl_async.analysis.figures import COLOURS, SIZE, figure_with_axes
from mbrl_async.analysis.objectives import RETURN, Objective
from mbrl_async.analysis.statistics import Estimate

FOOTNOTE_SIZE = 7
"""Points."""

SCALES = {
    "seconds": (60.0, "run time (min)"),
    "env_steps": (1.0, "environment steps"),
    "trajectories": (1.0, "trajectories"),
}
"""Axis -> what its values are divided by, and its label."""

SERIES_COLOURS = (*COLOURS, "#332288", "#117733", "#882255", "#999933", "#44aa99", "#aa4499")  # Paul Tol's, too

LEGEND_WITHIN = 4
"""So many curves have their legend within the axes, if their names are short."""

LONG_LABEL = 45
"""Characters."""

WRAPPED = 95
"""Characters of a line of the legend above the axes."""

LINES = {"mean": "-", "interquartile mean": "--"}
"""Statistic -> its line."""


@dataclass(frozen=True)
class Panel:
    """One picture."""

    name: str
    """Of its file, without the ending."""
    caption: str
    svg: str


def draw_panels(comparison: Comparison) -> list[Panel]:
    """Of each task, every objective against each of its axes; the return comes first."""
    panels = []
    for task in comparison.tasks:
        of_task = [each for each in comparison.curves if each.series.task == task]
        for objective, axis in dict.fromkeys((each.objective, each.axis) for each in of_task):
            curves = [each for each in of_task if (each.objective, each.axis) == (objective, axis)]
            figure = draw_curves(curves, axis, comparison.flags, comparison.thresholds(objective))
            caption = f"{task}: {objective.title} against {SCALES[axis][1]}"
            panels.append(Panel(_name(task, objective, axis), caption, _svg(figure)))
    return panels


def _name(task: str, objective: Objective, axis: str) -> str:
    safe = re.sub(r"[^\w.-]", "_", task)  # a task in a folder of `conf/env/` has a slash in its name
    return "_".join([safe, *([] if objective == RETURN else [objective.name]), axis])


def draw_curves(
    curves: Sequence[SeriesCurve], axis: str, flags: Sequence[str], thresholds: Sequence[float] = ()
) -> Figure:
    """Mean (drawn through, with its interval), interquartile mean (dashed) and the authors' curve (dotted) of each.

    Args:
        curves: of one objective and one axis.
        axis: a key of `SCALES`.
        flags: written below.
        thresholds: drawn as thin lines.
    """
    figure, axes = figure_with_axes()
    for threshold in thresholds:
        axes.axhline(threshold, color="#999999", linewidth=0.6)
    divisor, label = SCALES[axis]
    for index, curve in enumerate(curves):
        _draw_curve(axes, curve, SERIES_COLOURS[index % len(SERIES_COLOURS)], divisor)
    axes.set(xlabel=label, ylabel=curves[0].objective.label, xlim=(0, _end(curves) / divisor))
    _add_legend(figure, axes)
    if flags:
        figure.supxlabel("\n".join(flags), fontsize=FOOTNOTE_SIZE, color="#aa3377", x=0.02, ha="left")
    return figure


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Within the axes, or above them, where there is room for any number of long names, a line each."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) <= LEGEND_WITHIN and max(map(len, labels)) <= LONG_LABEL:
        axes.legend(frameon=False, fontsize=8)
        return
    lines = ["\n".join(wrap(each, WRAPPED)) for each in labels]
    height = 0.16 * sum(each.count("\n") + 1 for each in lines)
    figure.set_size_inches(SIZE[0], SIZE[1] + height)
    figure.legend(handles, lines, loc="outside upper left", frameon=False, fontsize=8)


def _draw_curve(axes: Axes, curve: SeriesCurve, colour: str, divisor: float) -> None:
    x = curve.x / divisor
    for name, line in LINES.items():
        seeds = len(curve.series.runs)
        label = f"{curve.series.label} ({seeds} seed{'s' if seeds > 1 else ''})" if name == "mean" else None
        axes.plot(x, curve.estimates[name].value, line, color=colour, linewidth=1.8, label=label)
    _shade(axes, x, curve.estimates["mean"], colour)
    if curve.paper is not None:
        label = f"{curve.series.label}, the authors' (their settings)"
        axes.plot(curve.paper.x / divisor, curve.paper.returns, ":", color=colour, linewidth=1.5, label=label)


def _shade(axes: Axes, x: object, estimate: Estimate, colour: str) -> None:
    if estimate.interval is not None:
        axes.fill_between(x, *estimate.interval, color=colour, alpha=0.18, linewidth=0)  # type: ignore[arg-type]


def _end(curves: Sequence[SeriesCurve]) -> float:
    """Where ours end: the authors' may go on much further."""
    return max(float(curve.x[-1]) for curve in curves)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    # Without a date and with a fixed salt, the same numbers make the same file.
    with rc_context({"svg.hashsalt": "mbrl-async"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
