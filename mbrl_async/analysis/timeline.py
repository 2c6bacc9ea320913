"""Who was busy when, from a run's trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mbrl_async.analysis.curves import Array
from mbrl_async.runtime.trace import StepRecord


@dataclass(frozen=True)
class Timeline:
    """The N steps of one worker, in seconds on the run's clock."""

    worker: str
    starts: Array  # (N,)
    finishes: Array  # (N,)


def timelines(trace: Sequence[StepRecord]) -> list[Timeline]:
    """One a worker, in the order in which the workers first began."""
    workers = dict.fromkeys(record.worker for record in sorted(trace, key=lambda record: record.start))
    return [_timeline(worker, [record for record in trace if record.worker == worker]) for worker in workers]


def busy_shares(timeline: Timeline, edges: Array) -> Array:
    """How much of each of the B bins between B + 1 ascending `edges` (seconds) the worker was in a step."""
    # Overlaps of steps and bins, without a table of both: the busy time up to each edge, then its differences.
    durations = np.concatenate(([0.0], np.cumsum(timeline.finishes - timeline.starts)))  # (N + 1,)
    begun = np.searchsorted(timeline.starts, edges, side="right")  # (B + 1,), steps begun by then
    unfinished = np.zeros_like(edges)
    any_begun = begun > 0
    unfinished[any_begun] = np.maximum(timeline.finishes[begun[any_begun] - 1] - edges[any_begun], 0.0)
    return np.diff(durations[begun] - unfinished) / np.diff(edges)  # (B,)


def _timeline(worker: str, records: Sequence[StepRecord]) -> Timeline:
    ordered = sorted(records, key=lambda record: record.start)
    starts = np.array([record.start for record in ordered])
    finishes = np.array([record.finish for record in ordered])
    return Timeline(worker, starts, finishes)
