"""What every benchmark reports."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Measurement:
    """One figure."""

    name: str
    value: float
    unit: str
    threads: int
    """That torch could use within one operation; in a run, of each worker."""
    ratio_to_ceiling: float | None = None
    """Speed as a share of what bounds it, for which 1 is the most: of computing, the same matrix products with nothing
    between them; of a run, collecting alone. None: no such bound is known."""
    ratio_to_peer: float | None = None
    """Speed as a multiple of mbrl-lib's at its best, measured in turn with it. None: it was not, or cannot be."""


def median_seconds(repetitions: int, *actions: Callable[[], object]) -> list[float]:
    """Median wall-clock time of each action, after one that does not count.

    The actions take turns, so that a machine that is busy at times slows all of them alike.
    """
    for action in actions:
        action()
    rounds = [[_seconds(action) for action in actions] for _ in range(repetitions)]
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """So many threads for torch's computations inside; the former number afterwards."""
    former = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(former)


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
