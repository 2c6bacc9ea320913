"""What happened in a run, step by step: enough to draw it, to measure staleness, and to run it again.

Workers are deterministic functions of their state, of what they pulled and of their own random generators; so the
seed and the trace determine a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from mbrl_async.types import Metrics

TRACE_FILE = "trace.jsonl"
"""Its name among a run's files and artifacts."""


@dataclass(frozen=True)
class StepRecord:
    """One finished step of one worker; times are seconds on the run's clock."""

    worker: str
    index: int
    """1 for the first step of this worker; also the version of what the step published, if nobody else publishes it."""
    start: float
    finish: float
    pulled: Mapping[str, int]
    """Channel name -> version that the step used (for a stream: items taken so far)."""
    digest: str | None = None
    """Of what the step published (see `mbrl_async.runtime.digest`); None in traces from before it was recorded."""


def name_of(record: StepRecord) -> str:
    """Such as: step 12 of learn_model."""
    return f"step {record.index} of {record.worker}"


@dataclass(frozen=True)
class Counters:
    """How far a run is, in the units that a stop rule may count."""

    trajectories: int = 0
    env_steps: int = 0
    seconds: float = 0.0
    collection_seconds: float = 0.0
    """Control periods of the real system so far: the least time that any run with this data can take. Of several
    systems, the mean."""


class Observer(Protocol):
    """Hears of every finished step, in the worker's own thread: must return at once and never raise."""

    def on_step(self, record: StepRecord, metrics: Metrics, counters: Counters) -> None:
        """`metrics` has the full names of docs/metrics.md; `counters` include this step."""


class Observers:
    """Passes every step on to several observers."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def on_step(self, record: StepRecord, metrics: Metrics, counters: Counters) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.on_step(record, metrics, counters)


def write_trace(path: Path, records: Iterable[StepRecord]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))


def read_trace(path: Path) -> list[StepRecord]:
    """The inverse of `write_trace`."""
    return [StepRecord(**json.loads(line)) for line in path.read_text().splitlines()]
