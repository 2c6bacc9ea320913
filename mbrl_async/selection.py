"""Which runs a comparison is of: those of an experiment or a sweep in MLflow, and of files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mbrl_async.analysis.comparison import read_compared_runs
from mbrl_async.analysis.kept_runs import NAMING_TAGS, read_runs
from mbrl_async.analysis.objectives import RETURN, Objective
from mbrl_async.analysis.report import RUNS_FILE
from mbrl_async.analysis.series import NO_VARIANT, ComparedRun
from mbrl_async.config import ConfigError
from mbrl_async.tracking.run import KIND_TAG, REPLAYS_TAG, SWEEP_KIND
from mbrl_async.tracking.store import all_experiments, all_runs, open_store

SWEEPS = f"tags.{KIND_TAG} = '{SWEEP_KIND}'"

TOLD = 6
"""So many runs that are left out are told by their names."""


@dataclass(frozen=True)
class Selection:
    """The runs that are compared, and where the report belongs."""

    name: str
    runs: Sequence[ComparedRun]
    parent: str | None = None
    """The sweep's run; None for a whole experiment, and for files."""
    notes: Sequence[str] = ()
    """Sentences about runs that are not among them, although they belong to it."""


def select(
    uri: str, experiment: str | None, sweep: str | None, files: Sequence[Path], outcomes: Collection[Objective]
) -> Selection:
    """The runs of an experiment, of a sweep or, where neither is named, of the newest sweep; and those of the files.

    Args:
        uri: of the MLflow store; not opened for files alone.
        experiment: its name.
        sweep: its name, or the id of its run.
        files: `runs.json` of other comparisons.
        outcomes: what is read besides the return.

    Raises:
        TrackingError: MLflow cannot be used as configured.
        ConfigError: there is no such experiment or sweep.
        UnreadableRunsError: a file is missing or none of a comparison.
        NothingToCompareError: no run of it is finished.
    """
    kept = {run.run_id: run for file in files for run in read_runs(file)}
    if files and experiment is None and sweep is None:
        return Selection("+".join(dict.fromkeys(map(_name, files))), list(kept.values()))
    client = open_store(uri, create=False)
    name, runs, parent = _recorded(client, uri, experiment, sweep)
    first_made = [run for run in runs if REPLAYS_TAG not in run.data.tags]
    finished = [run for run in first_made if run.info.status == "FINISHED"]
    stored = {run.run_id: run for run in read_compared_runs(client, finished, outcomes)}
    notes = [*_unfinished(first_made, finished), *_empty(finished), *_replays(len(runs) - len(first_made))]
    return Selection(name, list((kept | stored).values()), parent, notes)


def _name(file: Path) -> str:
    return file.resolve().parent.name if file.name == RUNS_FILE else file.stem


def _recorded(
    client: MlflowClient, uri: str, experiment: str | None, sweep: str | None
) -> tuple[str, list[Run], str | None]:
    """What MLflow has: name and runs of an experiment or a sweep, and the sweep's run."""
    if experiment is not None:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            known = ", ".join(each.name for each in all_experiments(client))
            raise ConfigError(f"experiment={experiment} is not in {uri}: there are {known}.")
        return experiment, _runs(client, [found.experiment_id]), None
    parent = _newest_sweep(client) if sweep is None else _sweep(client, sweep)
    children = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}'"
    return parent.data.tags["sweep"], _runs(client, _experiments(client), children), parent.info.run_id


def _runs(client: MlflowClient, experiments: list[str], condition: str = "") -> list[Run]:
    """Runs of any status, but no sweeps."""
    found = all_runs(client, experiments, condition)
    return [run for run in found if run.data.tags.get(KIND_TAG) != SWEEP_KIND]


def _unfinished(runs: Sequence[Run], finished: Sequence[Run]) -> list[str]:
    """One sentence, if there are such runs: to leave out those that failed makes a mean look better than it is."""
    done = [_configuration(run) for run in finished]
    missing = [run for run in runs if run.info.status != "FINISHED" and _configuration(run) not in done]
    if not missing:
        return []
    number = "1 run that is not finished is" if len(missing) == 1 else f"{len(missing)} runs that are not finished are"
    return [f"{number} left out: {_told([f'{run.info.run_name} ({run.info.status})' for run in missing])}."]


def _empty(finished: Sequence[Run]) -> list[str]:
    """One sentence, if there are runs whose time was over before their first trajectory was."""
    empty = [str(run.info.run_name) for run in finished if RETURN.metric not in run.data.metrics]
    if not empty:
        return []
    number = (
        "1 finished run has no trajectory and is"
        if len(empty) == 1
        else f"{len(empty)} finished runs have no trajectory and are"
    )
    return [f"{number} left out: {_told(empty)}."]


def _replays(number: int) -> list[str]:
    """One sentence, if there are any: they are runs that take part already."""
    return (
        []
        if number == 0
        else [f"Left out, because they only repeat others: {number} replay{'s' if number > 1 else ''}."]
    )


def _told(names: Sequence[str]) -> str:
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return f"{', '.join(names[:TOLD])}{more}"


def _configuration(run: Run) -> tuple[object, ...]:
    """What another try at the same run has in common with it."""
    parameters = {name: value for name, value in run.data.params.items() if not name.startswith(NO_VARIANT)}
    return tuple(run.data.tags.get(name) for name in NAMING_TAGS), parameters


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
    if run.data.tags.get(KIND_TAG) != SWEEP_KIND:
        raise ConfigError(f"sweep={name_or_id} is a run, but that of no sweep: look for runs named sweep in mlflow ui.")
    return run


def _experiments(client: MlflowClient) -> list[str]:
    return [experiment.experiment_id for experiment in all_experiments(client)]
