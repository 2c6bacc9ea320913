"""Compare runs over their seeds: `python -m mbrl_async.compare experiment=NAME`; settings: conf/compare.yaml."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, NonNegativeInt
from rich.console import Console
from rich.table import Table as ScreenTable
from rich.text import Text

from mbrl_async.analysis.comparison import Comparison, NothingToCompareError, compare
from mbrl_async.analysis.kept_runs import UnreadableRunsError, read_runs
from mbrl_async.analysis.objectives import OUTCOMES, Objective
from mbrl_async.analysis.report import EXPLANATIONS, RUNS_FILE, make_tables, write_report
from mbrl_async.analysis.series import ComparedRun
from mbrl_async.analysis.statistics import Resampling
from mbrl_async.commands import CONFIG_DIRECTORY, Tracking, command_settings, help_wanted, output_folder
from mbrl_async.config import ConfigError, alternatives
from mbrl_async.selection import Selection, select
from mbrl_async.settings import STRICT, Name
from mbrl_async.tracking.store import TrackingError, open_store

ARTIFACT_FOLDER = "comparison"

SCHEDULES = CONFIG_DIRECTORY / "schedule"


class Settings(BaseModel):
    """What `conf/compare.yaml` holds."""

    model_config = STRICT
    experiment: Name | None
    sweep: Name | None
    files: list[str]
    tracking: Tracking
    output: str | None
    baselines: list[str]
    thresholds: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]
    outcomes: dict[str, Annotated[list[float], Field(min_length=1)]]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    seed: NonNegativeInt


def read_settings(arguments: Sequence[str]) -> Settings:
    """Of a command line.

    Raises:
        ConfigError: it cannot be used.
    """
    settings = command_settings("compare", arguments, Settings)
    if settings.experiment is not None and settings.sweep is not None:
        raise ConfigError(
            f"experiment={settings.experiment} and sweep={settings.sweep} name two things: give one of them."
        )
    for name, thresholds in settings.outcomes.items():
        if name not in OUTCOMES:
            known = alternatives(name, list(OUTCOMES))
            raise ConfigError(f"outcomes.{name}={thresholds} is no outcome that can be compared: {known}")
    return settings


def compare_and_print(settings: Settings, console: Console) -> Path:
    """Compare, write the report to files and to the sweep's run, and print its tables; returns the HTML file.

    Raises:
        TrackingError: MLflow cannot be used as configured.
        ConfigError: there is no such experiment, sweep or schedule, or the folder cannot be used.
        UnreadableRunsError: a file is missing or none of a comparison.
        NothingToCompareError: no run of it is finished.
    """
    outcomes: Mapping[Objective, list[float]] = {OUTCOMES[name]: each for name, each in settings.outcomes.items()}
    files = [Path(file) for file in settings.files]
    selection = select(settings.tracking.uri, settings.experiment, settings.sweep, files, outcomes)
    _require_schedules(settings.baselines, selection.runs)
    directory = output_folder(settings.output or str(Path("comparisons") / selection.name))
    _require_unharmed(files, directory, selection)
    comparison = compare(
        selection.name,
        selection.runs,
        baselines=settings.baselines,
        fractions=settings.thresholds,
        outcomes=outcomes,
        resampling=Resampling(settings.confidence, settings.resamples, np.random.default_rng(settings.seed)),
        notes=selection.notes,
    )
    paths = write_report(comparison, directory)
    if selection.parent is not None:
        client = open_store(settings.tracking.uri)
        for path in paths:  # not the folder, which may hold what is not ours
            client.log_artifact(selection.parent, str(path), ARTIFACT_FOLDER)
    _print_comparison(comparison, paths[0], console)
    return paths[0]


def _require_schedules(names: Sequence[str], runs: Sequence[ComparedRun]) -> None:
    known = {path.stem for path in SCHEDULES.glob("*.yaml")} | {run.tags["schedule"] for run in runs}
    for name in names:
        if name not in known:
            raise ConfigError(f"baselines: {name} is no schedule: {alternatives(name, sorted(known))}")


def _require_unharmed(files: Sequence[Path], directory: Path, selection: Selection) -> None:
    """Runs that are read must not be overwritten by a comparison of others with them."""
    compared = {run.run_id for run in selection.runs}
    for file in files:
        if file.resolve() == (directory / RUNS_FILE).resolve() and compared != {run.run_id for run in read_runs(file)}:
            raise ConfigError(f"{file} would be overwritten by this comparison: choose another folder with output=...")


def _print_comparison(comparison: Comparison, page: Path, console: Console) -> None:
    for flag in comparison.flags:
        console.print(f"! {flag}", markup=False, highlight=False)
    for table in make_tables(comparison):
        if table.title != EXPLANATIONS:
            _print(console, table.title, table.header, table.rows)
    console.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)


def _print(console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = ScreenTable(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in header:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # brackets would be markup
    console.print(table)


def main() -> int:
    """Compare what the command line names; the exit status: 0, or 2 if that cannot be done."""
    if help_wanted("compare", sys.argv[1:]):
        return 0
    try:
        compare_and_print(read_settings(sys.argv[1:]), Console())
    except (ConfigError, TrackingError, NothingToCompareError, UnreadableRunsError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
