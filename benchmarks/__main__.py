"""All figures: `python -m benchmarks`; in under a minute, with fewer repetitions: `python -m benchmarks --quick`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from omegaconf import OmegaConf
from rich.console import Console

from benchmarks import dynamics, policy_step, whole_run
from benchmarks.measurement import Measurement
from benchmarks.report import machine, table, write_json
from mbrl_async.tracking.environment import describe_environment

PARTS = ("whole_run", "dynamics", "policy_step")


@dataclass(frozen=True)
class Effort:
    """How much of everything."""

    repetitions: int
    starts: int
    trajectories: int
    pace: float
    """Of the run: 1 is real time."""
    threads: Sequence[int]
    many_rollouts: Sequence[int]
    """Imagined at once, besides the paper's 50."""


FULL = Effort(
    repetitions=5,
    starts=3,
    trajectories=4,
    pace=1.0,
    threads=sorted({1, torch.get_num_threads()}),
    many_rollouts=(250, 1000),
)
QUICK = Effort(repetitions=1, starts=1, trajectories=2, pace=0.25, threads=(1,), many_rollouts=())


def main() -> None:
    """Measure, print and, if asked to, write."""
    arguments = parse()
    # As in a run.
    torch.set_float32_matmul_precision(OmegaConf.load(whole_run.REPOSITORY / "conf" / "config.yaml").matmul_precision)
    console = Console()
    console.print(
        machine(describe_environment(source=whole_run.REPOSITORY, device=torch.device("cpu"))), soft_wrap=True
    )
    measurements = []
    for title, rows in measured(arguments.parts or PARTS, QUICK if arguments.quick else FULL):
        console.print("", table(title, rows))
        measurements += rows
    if arguments.json is not None:
        write_json(arguments.json, measurements)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; refuses, with the usage, what it does not know."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what the README reports.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="in under a minute: fewer repetitions, one torch thread")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parsed = parser.parse_args(arguments)
    for part in parsed.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part}: choose from {', '.join(PARTS)}")
    if parsed.json is not None and not parsed.json.parent.is_dir():
        parser.error(f"--json {parsed.json}: make the folder {parsed.json.parent} first")
    return parsed


def measured(parts: Sequence[str], effort: Effort) -> Iterator[tuple[str, list[Measurement]]]:
    """Title and figures of each part.

    Whole runs come first: what a child process seems to have used of memory is no less than what its parent has.
    """
    if "whole_run" in parts:
        title = f"asynchronous HalfCheetah, {effort.trajectories} trajectories, pace.factor={effort.pace:g}"
        yield title, whole_run.measure(effort.trajectories, effort.pace, effort.starts)
    if "dynamics" in parts:
        rows = (dynamics.measure(threads, effort.repetitions) for threads in effort.threads)
        yield "the ensemble, full buffer of 10 000 transitions", list(chain.from_iterable(rows))
    if "policy_step" in parts:
        rows = (policy_step.measure(threads, effort.repetitions, effort.many_rollouts) for threads in effort.threads)
        yield "policy improvement, 50 x 200 imagined transitions", list(chain.from_iterable(rows))


if __name__ == "__main__":
    main()
