"""One MLflow run a job."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run

from mbrl_async.runtime.trace import Counters, StepRecord
from mbrl_async.tracking.errors import reason
from mbrl_async.tracking.writer import MetricWriter
from mbrl_async.types import Metrics

Status = Literal["FINISHED", "FAILED", "KILLED"]

KIND_TAG = "kind"
SWEEP_KIND = "sweep"
"""What the tag `kind` says of the parent run of a sweep; the runs of jobs have no such tag."""

REPLAYS_TAG, REPRODUCES_TAG = "replays", "reproduces"
"""Of a run that was made like another one: the id of that one."""

CHANGED_TAG = "changed."
"""Beginning of the name of a tag that tells what a parameter is since a resumption: MLflow lets none be changed."""

THEN = ", then "
"""Between what a tag says of one process of a run and of the next, which resumed it."""

Step = tuple[StepRecord, Metrics, Counters]
"""What an `Observer` hears of."""

PATIENCE: Mapping[Status, float] = {"FINISHED": 30.0, "FAILED": 30.0, "KILLED": 0.7}
"""Seconds that the last metrics, and then the status, may take; an interrupted run has to end within five in all."""

ARTIFACTS_PATIENCE = 60.0
"""Seconds that artifacts may take by default."""

PARAMETERS_IN_A_BATCH = 100
"""MLflow's limit."""

LONGEST_PARAMETER = 500
"""Characters of a parameter's value: the lowest limit of MLflow's servers, and more than its table shows."""

log = logging.getLogger(__name__)


class MlflowRun:
    """Records one run; an `Observer`, whose metrics are written in the background.

    Metrics have true environment steps as MLflow's step, and the run's start plus the run's clock as MLflow's
    timestamp: so its relative time is the run's, for simulated runs too, counted from each metric's first value.

    Args:
        client: of the store that `mbrl_async.tracking.store.open_store` opened.
        experiment_id: where the run belongs.
        name: what MLflow's table shows.
        tags: what runs are searched by: task, algorithm, schedule, seed, ...
        resumed: the run to go on with, whose name and experiment stay as they are; None: a new one.
        now: seconds since 1970.
        patience: seconds that `finish` waits for a store that does not answer, by status.
    """

    def __init__(
        self,
        *,
        client: MlflowClient,
        experiment_id: str,
        name: str,
        tags: Mapping[str, str],
        resumed: str | None = None,
        now: Callable[[], float] = time.time,
        patience: Mapping[Status, float] = PATIENCE,
    ) -> None:
        self._client = client
        self._now = now
        self._patience = patience
        if resumed is None:
            info = client.create_run(experiment_id, round(now() * 1000), dict(tags), name).info
        else:
            info = client.get_run(resumed).info
            client.update_run(resumed, status="RUNNING")
        self.run_id: str = info.run_id
        self.experiment_id: str = info.experiment_id
        self._started: int = info.start_time  # milliseconds
        self._writer = MetricWriter(lambda batch: client.log_batch(self.run_id, metrics=batch, synchronous=True))
        self._finished = False

    def log_parameters(self, config: Mapping[str, object]) -> None:
        """Log a nested configuration, one parameter a leaf: `{"stop": {"seconds": 3}}` is `stop.seconds=3`."""
        parameters = [Param(key, shorten(str(value))) for key, value in flatten(config)]
        for first in range(0, len(parameters), PARAMETERS_IN_A_BATCH):
            self._client.log_batch(
                self.run_id, params=parameters[first : first + PARAMETERS_IN_A_BATCH], synchronous=True
            )

    def on_step(self, record: StepRecord, metrics: Metrics, counters: Counters) -> None:
        """Leave the metrics of a step to the writer."""
        self._writer.put(self._metrics(record, metrics, counters))

    def catch_up(self, steps: Iterable[Step]) -> None:
        """Leave to the writer what MLflow lacks of the steps before a resumption."""
        names = self._client.get_run(self.run_id).data.metrics
        known = {
            name: {(metric.timestamp, metric.value) for metric in self._client.get_metric_history(self.run_id, name)}
            for name in names
        }
        for step in steps:
            metrics = self._metrics(*step)
            self._writer.put(
                [each for each in metrics if (each.timestamp, each.value) not in known.get(each.key, set())]
            )

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, whatever they said before."""
        for name, value in tags.items():
            self._client.set_tag(self.run_id, name, value)

    def add_to_tags(self, tags: Mapping[str, str]) -> None:
        """Add to what tags say what they do not say last."""
        said = self._client.get_run(self.run_id).data.tags
        for name, value in tags.items():
            values = said[name].split(THEN) if name in said else []
            if values[-1:] != [value]:
                self._client.set_tag(self.run_id, name, THEN.join([*values, value]))

    def count(self, tag: str) -> None:
        """Add 1 to a tag that counts; without it, there was none so far."""
        so_far = int(self._client.get_run(self.run_id).data.tags.get(tag, 0))
        self._client.set_tag(self.run_id, tag, str(so_far + 1))

    def log_artifacts(
        self,
        directory: Path,
        names: Collection[str],
        below: str | None = None,
        patience: float = ARTIFACTS_PATIENCE,
    ) -> None:
        """Copy files and folders of `directory` to the artifacts, in the folder `below`.

        Waits for at most `patience` seconds. Those of the `names` that are not there are left out.

        Does not raise, because the files are safe where they are: says so if MLflow does not take them.
        """

        def copy() -> None:
            for name in names:
                if (directory / name).exists():
                    self._client.log_artifact(self.run_id, str(directory / name), below)

        failure = _attempt(copy, patience)
        if failure is not None:
            log.error("MLflow run %s: its files are in %s, but not in MLflow (%s).", self.run_id, directory, failure)

    def finish(self, status: Status) -> bool:
        """Write what is left and end the run; the first call counts. Says what was lost, if something was.

        Returns:
            Whether MLflow took everything.
        """
        if self._finished:
            return True
        self._finished = True
        patience = self._patience[status]
        lost = self._writer.close(patience)
        if lost:
            failure = self._writer.failure or _no_answer(patience)
            log.error("MLflow run %s: its last %d metrics are lost (%s).", self.run_id, lost, failure)
        return self._terminate(status, patience) and not lost

    def _metrics(self, record: StepRecord, metrics: Metrics, counters: Counters) -> list[Metric]:
        timestamp = self._started + round(record.finish * 1000)
        return [Metric(name, value, timestamp, counters.env_steps) for name, value in metrics.items()]

    def _terminate(self, status: Status, patience: float) -> bool:
        ended = round(self._now() * 1000)
        failure = _attempt(lambda: self._client.set_terminated(self.run_id, status, ended), patience)
        if failure is not None:
            log.error("MLflow run %s ended as %s, but MLflow shows it as RUNNING (%s).", self.run_id, status, failure)
        return failure is None


def changed_tags(config: Mapping[str, object]) -> dict[str, str]:
    """Tags that tell what parameters are from now on, named as `MlflowRun.log_parameters` does."""
    return {f"{CHANGED_TAG}{name}": shorten(str(value)) for name, value in flatten(config)}


def current_parameters(run: Run) -> dict[str, str]:
    """The run's parameters, as they are since it was resumed."""
    changed = {
        name.removeprefix(CHANGED_TAG): value for name, value in run.data.tags.items() if name.startswith(CHANGED_TAG)
    }
    return {**run.data.params, **changed}


def flatten(config: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """The leaves of a nested configuration with dotted names; items of a list of groups are numbered from 0."""
    for key, value in config.items():
        for below, leaf in _leaves(value):
            yield f"{key}{below}", leaf


def _leaves(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        yield from ((f".{name}", leaf) for name, leaf in flatten(value))
    elif isinstance(value, Sequence) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from ((f".{index}{below}", leaf) for below, leaf in _leaves(item))
    else:
        yield "", value


def shorten(text: str) -> str:
    """At most `LONGEST_PARAMETER` characters; a shortened text says so, and how long it was."""
    if len(text) <= LONGEST_PARAMETER:
        return text
    note = f" ... [{len(text)} characters]"
    return text[: LONGEST_PARAMETER - len(note)] + note


def _no_answer(patience: float) -> str:
    return f"no answer in {patience:.0f} s"


def _attempt(action: Callable[[], object], patience: float) -> str | None:
    """Do it within `patience` seconds; returns why it failed, or None."""
    outcome: list[str | None] = [_no_answer(patience)]

    def run() -> None:
        try:
            action()
            outcome.append(None)
        except Exception as error:  # whatever a database driver raises must not hide how the run ended
            outcome.append(reason(error))

    thread = threading.Thread(target=run, name="mlflow-end", daemon=True)
    thread.start()
    thread.join(patience)
    return outcome[-1]
