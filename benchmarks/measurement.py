"""What every benchmark reports."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Measurement:
    """One figure."""

    name: str
    value: float
    unit: str


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


def print_table(measurements: Iterable[Measurement]) -> None:
    """One line a figure."""
    for measurement in measurements:
        print(f"{measurement.name:<60} {measurement.value:>12.4g} {measurement.unit}")


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
