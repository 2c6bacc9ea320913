"""A comparison as files: CSV, tables in Markdown, pictures, and all but the CSV in one HTML file by itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader

from mbrl_async.analysis.baselines import settings_besides_the_schedule
from mbrl_async.analysis.comparison import Comparison, SeriesSummary
from mbrl_async.analysis.csv_files import final_title, write_numbers, write_trajectories
from mbrl_async.analysis.kept_runs import write_runs
from mbrl_async.analysis.measures import MEASURES
from mbrl_async.analysis.objectives import RETURN, Objective
from mbrl_async.analysis.panels import draw_panels
from mbrl_async.analysis.series import Series
from mbrl_async.analysis.speedup import AXES
from mbrl_async.analysis.statistics import Estimate
from mbrl_async.types import WINDOW

HTML_FILE = "comparison.html"
MARKDOWN_FILE = "comparison.md"
NUMBERS_FILE = "comparison.csv"
TRAJECTORIES_FILE = "trajectories.csv"
RUNS_FILE = "runs.json"

ONE_SEED = "one seed"
"""Where an interval would be."""


@dataclass(frozen=True)
class Table:
    """Of text, for people."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


EXPLANATIONS = "What explains it"
"""The title of the table that is too wide for a terminal."""


def write_report(comparison: Comparison, directory: Path) -> list[Path]:
    """Write all files into `directory`, which is made; returns them, the HTML first."""
    directory.mkdir(parents=True, exist_ok=True)
    panels = draw_panels(comparison)
    tables = make_tables(comparison)
    paths = [directory / name for name in (HTML_FILE, MARKDOWN_FILE, NUMBERS_FILE, TRAJECTORIES_FILE, RUNS_FILE)]
    paths[0].write_text(_html(comparison, tables, [(panel.caption, _data_uri(panel.svg)) for panel in panels]))
    paths[1].write_text(_markdown(comparison, tables))
    write_numbers(comparison, paths[2])
    write_trajectories(comparison, paths[3])
    write_runs((run for summary in comparison.summaries for run in summary.series.runs), paths[4])
    for panel in panels:
        paths.append(directory / f"{panel.name}.svg")
        paths[-1].write_text(panel.svg)
    return paths


def make_tables(comparison: Comparison) -> list[Table]:
    """Final returns and outcomes, speed-ups, what explains them, other settings; without those that would be empty."""
    others = [each for each in comparison.objectives if each != RETURN]
    tables = [
        _final_values(comparison, RETURN),
        _speedups(comparison),
        _overall(comparison),
        *(table(comparison, each) for each in others for table in (_final_values, _reaches)),
        _explanations(comparison),
        _settings(comparison),
    ]
    return [table for table in tables if table.rows]


def format_estimate(estimate: Estimate, form: str = ".1f", infinity: str = "not reached") -> str:
    """A number and its interval, as `12.3 [10.1, 15.0]`."""
    value = _number(float(estimate.value[0]), form, infinity)
    if estimate.interval is None:
        return f"{value} [{ONE_SEED}]"
    low, high = (_number(float(end[0]), form, infinity) for end in estimate.interval)
    return f"{value} [{low}, {high}]"


def _number(value: float, form: str, infinity: str) -> str:
    return infinity if np.isinf(value) else f"{value:{form}}"


def _final_values(comparison: Comparison, objective: Objective) -> Table:
    lengths = ("env_steps", "seconds")
    having = [each for each in comparison.summaries if objective in each.final]
    rows = [
        (
            summary.series.task,
            summary.series.label,
            str(len(summary.series.runs)),
            *(format_estimate(estimate, objective.form) for estimate in summary.final[objective].values()),
            *(f"{_shortest(summary.series, objective, axis):.0f}" for axis in lengths),
        )
        for summary in having
    ]
    header = ("task", "series", "seeds", "mean", "interquartile mean", *(AXES[axis] for axis in lengths))
    better = "; less is better" if objective.smaller_is_better else ""
    note = (
        f"Mean {objective.title} of each run's last {WINDOW} trajectories{better}; "
        "steps and time are those of the shortest run."
    )
    return Table(final_title(objective).capitalize(), note, header, rows)


def _shortest(series: Series, objective: Objective, axis: str) -> float:
    return min(float(getattr(run.curves[objective.metric], axis)[-1]) for run in series.runs)


def _speedups(comparison: Comparison) -> Table:
    rows = [
        (
            each.series.task,
            each.series.label,
            each.baseline.label,
            AXES[each.axis],
            f"{each.fraction:.0%}: {format_estimate(each.threshold)}",
            format_estimate(each.baseline_needs, ".0f"),
            format_estimate(each.series_needs, ".0f"),
            format_estimate(each.ratio, ".2f"),
        )
        for each in comparison.speedups
    ]
    header = ("task", "series", "baseline", "in", "return to reach", "baseline needs", "series needs", "speed-up")
    note = (
        "When the mean curves reach the return that lies so far on the way from random actions to the baseline's final "
        f"return, with {comparison.confidence:.0%} intervals. A speed-up of 0: the series did not get "
        "there within its runs. A run that ends before others keeps its last value."
    )
    return Table("Time and samples to a threshold", note, header, rows)


def _reaches(comparison: Comparison, objective: Objective) -> Table:
    rows = [
        (
            each.series.task,
            each.series.label,
            f"{each.threshold:g}",
            AXES[each.axis],
            format_estimate(each.needs, ".0f"),
            "–" if each.baseline is None else each.baseline.label,
            "–" if each.baseline_needs is None else format_estimate(each.baseline_needs, ".0f"),
            "–" if each.ratio is None else format_estimate(each.ratio, ".2f", "∞"),
        )
        for each in comparison.reaches
        if each.objective == objective
    ]
    header = ("task", "series", "to reach", "in", "needs", "baseline", "baseline needs", "speed-up")
    side = "at or below" if objective.smaller_is_better else "at or above"
    note = (
        f"When the mean curve is {side} the value for the first time, with {comparison.confidence:.0%} intervals. "
        "A speed-up of 0: not reached within the run; ∞: only the baseline does not reach it."
    )
    return Table(f"Time and trajectories to a {objective.title}", note, header, rows)


def _overall(comparison: Comparison) -> Table:
    rows = [
        (
            f"{each.algorithm} {each.schedule}",
            ", ".join(each.tasks),
            AXES[each.axis],
            f"{each.fraction:.0%}",
            format_estimate(each.ratio, ".2f"),
        )
        for each in comparison.overall
    ]
    header = ("series", "tasks", "in", "threshold", "speed-up")
    return Table("Speed-up over all tasks", "Geometric mean, seeds resampled within each task.", header, rows)


def _explanations(comparison: Comparison) -> Table:
    known = [name for name in MEASURES if any(name in summary.measures for summary in comparison.summaries)]
    rows = [
        (summary.series.task, summary.series.label, *(_measure(summary, name) for name in known))
        for summary in comparison.summaries
    ]
    note = "Means over the seeds; staleness is the median over a run's steps, shares are of the whole run."
    return Table(EXPLANATIONS, note, ("task", "series", *known), rows)


def _settings(comparison: Comparison) -> Table:
    rows = [
        (series.task, series.label, baseline.label, name, *values)
        for series, baseline in comparison.pairs
        for name, values in settings_besides_the_schedule(series, baseline).items()
    ]
    header = ("task", "series", "baseline", "setting", "series' value", "baseline's value")
    note = "Where a series and its baseline differ in more than the schedule, as the paper's settings do."
    return Table("Settings besides the schedule", note, header, rows)


def _measure(summary: SeriesSummary, name: str) -> str:
    return f"{summary.measures[name]:.2f}" if name in summary.measures else "–"


def _html(comparison: Comparison, tables: Sequence[Table], pictures: Sequence[tuple[str, str]]) -> str:
    environment = Environment(loader=PackageLoader("mbrl_async", "analysis"), autoescape=True, trim_blocks=True)
    template = environment.get_template("report.html")
    return template.render(comparison=comparison, tables=tables, pictures=pictures)


def _data_uri(svg: str) -> str:
    """A picture by itself, so that names within one cannot meet those of another."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _markdown(comparison: Comparison, tables: Sequence[Table]) -> str:
    parts = [f"# {comparison.title}", "\n".join(f"- {flag}" for flag in comparison.flags)]
    for table in tables:
        lines = [table.header, ["---"] * len(table.header), *table.rows]
        text = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        parts.append(f"## {table.title}\n\n{table.note}\n\n{text}")
    return "\n\n".join(part for part in parts if part) + "\n"
