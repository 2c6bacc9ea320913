"""Compare runs over their seeds: `python -m mbrl_async.compare experiment=NAME`; settings: conf/compare.yaml."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from pydantic import BaseModel, Field, NonNegativeInt
from rich.console import Console
from rich.table import Table as ScreenTable

from mbrl_async.analysis.comparison import NothingToCompareError, compare, read_compared_runs
from mbrl_async.analysis.kept_runs import UnreadableRunsError, read_runs
from mbrl_async.analysis.objectives import OUTCOMES, Objective
from mbrl_async.analysis.report import RUNS_FILE, make_tables, write_report
from mbrl_async.analysis.series import ComparedRun
from mbrl_async.analysis.statistics import Resampling
from mbrl_async.commands import Tracking, command_settings
from mbrl_async.config import STRICT, ConfigError, alternatives
from mbrl_async.tracking.run import KIND_TAG, SWEEP_KIND
from mbrl_async.tracking.store import TrackingError, open_store

ARTIFACT_FOLDER = "comparison"

SWEEPS = f"tags.{KIND_TAG} = '{SWEEP_KIND}'"
FINISHED = "attributes.status = 'FINISHED'"


class Settings(BaseModel):
    """What `conf/compare.yaml` holds."""

    model_config = STRICT
    experiment: str | None
    sweep: str | None
    files: list[str]
    tracking: Tracking
    output: str | None
    baselines: list[str]
    thresholds: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]
    outcomes: dict[str, Annotated[list[float], Field(min_length=1)]]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    seed: NonNegativeInt


@dataclass(frozen=True)
class _Selection:
    """The runs that are compared, and where the report belongs."""

    name: str
    runs: Sequence[ComparedRun]
    parent: str | None
    """The sweep's run; None for a whole experiment, and for files."""


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
        ConfigError: there is no such experiment or sweep.
        UnreadableRunsError: a file is missing or none of a comparison.
        NothingToCompareError: no run of it is finished.
    """
    outcomes: Mapping[Objective, list[float]] = {OUTCOMES[name]: each for name, each in settings.outcomes.items()}
    selection = _select(settings, outcomes)
    comparison = compare(
        selection.name,
        selection.runs,
        baselines=settings.baselines,
        fractions=settings.thresholds,
        outcomes=outcomes,
        resampling=Resampling(settings.confidence, settings.resamples, np.random.default_rng(settings.seed)),
    )
    directory = Path(settings.output) if settings.output else Path("comparisons") / selection.name
    page = write_report(comparison, directory)[0]
    if selection.parent is not None:
        open_store(settings.tracking.uri).log_artifacts(selection.parent, str(directory), ARTIFACT_FOLDER)
    for flag in comparison.flags:
        console.print(f"! {flag}", markup=False, highlight=False)
    for table in make_tables(comparison)[:-1]:  # what explains them, the last one, is too wide
        _print(console, table.title, table.header, table.rows)
    console.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    return page


def _select(settings: Settings, outcomes: Collection[Objective]) -> _Selection:
    kept = [run for file in settings.files for run in read_runs(Path(file))]
    if settings.files and settings.experiment is None and settings.sweep is None:
        return _Selection(_name(Path(settings.files[0])), kept, None)
    client = open_store(settings.tracking.uri)
    name, runs, parent = _recorded(client, settings)
    stored = read_compared_runs(client, runs, outcomes)
    known = {run.run_id for run in stored}
    return _Selection(name, [*stored, *(run for run in kept if run.run_id not in known)], parent)


def _name(file: Path) -> str:
    return file.resolve().parent.name if file.name == RUNS_FILE else file.stem


def _recorded(client: MlflowClient, settings: Settings) -> tuple[str, list[Run], str | None]:
    """What MLflow has: name and runs of an experiment or a sweep, and the sweep's run."""
    if settings.experiment is not None:
        experiment = client.get_experiment_by_name(settings.experiment)
        if experiment is None:
            known = ", ".join(each.name for each in client.search_experiments())
            raise ConfigError(f"experiment={settings.experiment} is not in {settings.tracking.uri}: there are {known}.")
        return settings.experiment, _finished(client, [experiment.experiment_id]), None
    parent = _newest_sweep(client) if settings.sweep is None else _sweep(client, settings.sweep)
    children = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}'"
    return parent.data.tags["sweep"], _finished(client, _experiments(client), children), parent.info.run_id


def _finished(client: MlflowClient, experiments: Sequence[str], condition: str = "") -> list[Run]:
    """Finished runs, but no sweeps."""
    conditions = " and ".join(filter(None, (FINISHED, condition)))
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(list(experiments), conditions, order_by=["start_time ASC"], page_token=token)
        runs.extend(run for run in page if run.data.tags.get(KIND_TAG) != SWEEP_KIND)
        token = page.token
        if not token:
            return runs


def _newest_sweep(client: MlflowClient) -> Run:
    sweeps = client.search_runs(_experiments(client), SWEEPS, max_results=1, order_by=["start_time DESC"])
    if not sweeps:
        raise ConfigError("There is no sweep yet: make one with `python main.py -m ...`, or name an experiment=NAME.")
    return sweeps[0]


def _sweep(client: MlflowClient, name_or_id: str) -> Run:
    quoted = name_or_id.replace("'", "")
    named = client.search_runs(_experiments(client), f"{SWEEPS} and tags.sweep = '{quoted}'", max_results=1)
    if named:
        return named[0]
    try:
        run = client.get_run(name_or_id)
    except MlflowException as error:
        raise ConfigError(f"sweep={name_or_id} is neither the name of a sweep nor the id of its run.") from error
    if "sweep" not in run.data.tags:
        raise ConfigError(f"sweep={name_or_id} is a run, but that of no sweep: look for runs named sweep in mlflow ui.")
    return run


def _experiments(client: MlflowClient) -> list[str]:
    return [experiment.experiment_id for experiment in client.search_experiments()]


def _print(console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = ScreenTable(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in header:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def main() -> int:
    """Compare what the command line names; the exit status: 0, or 2 if that cannot be done."""
    try:
        compare_and_print(read_settings(sys.argv[1:]), Console())
    except (ConfigError, TrackingError, NothingToCompareError, UnreadableRunsError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
