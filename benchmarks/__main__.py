"""All figures: `python -m benchmarks`; in under a minute, with fewer repetitions: `python -m benchmarks --quick`.

A quick round leaves out the parts that compare runs in real time, backends and keeping, unless they are named.
Beside mbrl-lib, if a folder holds it: `python -m benchmarks --mbrl-lib FOLDER` (see `benchmarks/mbrl_lib.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from omegaconf import OmegaConf
from rich.console import Console

from benchmarks import (
    backends,
    checkpoint,
    collection,
    dynamics,
    keeping,
    mbrl_lib,
    meta_update,
    policy_step,
    tracking,
    whole_run,
)
from benchmarks.measurement import Measurement
from benchmarks.report import machine, table, write_json
from mbrl_async.tracking.environment import describe_environment

PARTS = (
    "whole_run",
    "backends",
    "keeping",
    "dynamics",
    "policy_step",
    "meta_update",
    "collection",
    "tracking",
    "checkpoint",
    "peer",
)
MANY_MINUTES = {"backends", "keeping"}
"""What compares runs in real time."""
KEPT_TRAJECTORIES = 5


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
    logging_seconds: float
    backend_seconds: float
    """Of each of the four runs that compare backends."""
    pairs: int
    """Of real-time runs, with checkpoints and without."""


FULL = Effort(
    repetitions=5,
    starts=3,
    trajectories=4,
    pace=1.0,
    threads=sorted({1, torch.get_num_threads()}),
    many_rollouts=(250, 1000),
    logging_seconds=20.0,
    backend_seconds=60.0,
    pairs=3,
)
QUICK = Effort(
    repetitions=1,
    starts=1,
    trajectories=2,
    pace=0.25,
    threads=(1,),
    many_rollouts=(),
    logging_seconds=5.0,
    backend_seconds=15.0,
    pairs=1,
)


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
    for title, rows in measured(_parts(arguments), QUICK if arguments.quick else FULL):
        console.print("", table(title, rows))
        measurements += rows
    if arguments.json is not None:
        write_json(arguments.json, measurements)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; refuses, with the usage, what it does not know."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what the README reports.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="in under a minute: fewer repetitions, one torch thread")
    parser.add_argument("--mbrl-lib", type=Path, metavar="FOLDER", help="where mbrl-lib is, for the part peer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parsed = parser.parse_args(arguments)
    for part in parsed.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part}: choose from {', '.join(PARTS)}")
    if parsed.mbrl_lib is None and "peer" in parsed.parts:
        parser.error("the part peer measures mbrl-lib: say where it is, --mbrl-lib FOLDER")
    if parsed.mbrl_lib is not None:
        try:
            mbrl_lib.load(parsed.mbrl_lib)
        except FileNotFoundError as error:
            parser.error(str(error))
    if parsed.json is not None and not parsed.json.parent.is_dir():
        parser.error(f"--json {parsed.json}: make the folder {parsed.json.parent} first")
    return parsed


def _parts(arguments: argparse.Namespace) -> Sequence[str]:
    """Those that were named; else all that can be measured, in a quick round without what takes many minutes."""
    if arguments.parts:
        return list(arguments.parts)
    left_out = {"peer"} if arguments.mbrl_lib is None else set()
    return [part for part in PARTS if part not in left_out | (MANY_MINUTES if arguments.quick else set())]


def measured(parts: Sequence[str], effort: Effort) -> Iterator[tuple[str, list[Measurement]]]:
    """Title and figures of each part.

    Whole runs come first: what a child process seems to have used of memory is no less than what its parent has.
    """
    if "whole_run" in parts:
        title = f"asynchronous HalfCheetah, {effort.trajectories} trajectories, pace.factor={effort.pace:g}"
        yield title, whole_run.measure(effort.trajectories, effort.pace, effort.starts)
    if "backends" in parts:
        title = f"threads against processes, both learners always busy, {effort.backend_seconds:g} s a run"
        yield title, backends.measure(effort.backend_seconds)
    if "dynamics" in parts:
        rows = (dynamics.measure(threads, effort.repetitions) for threads in effort.threads)
        yield "the ensemble, full buffer of 10 000 transitions", list(chain.from_iterable(rows))
    if "policy_step" in parts:
        rows = (policy_step.measure(threads, effort.repetitions, effort.many_rollouts) for threads in effort.threads)
        yield "policy improvement, 50 x 200 imagined transitions", list(chain.from_iterable(rows))
    if "meta_update" in parts:
        rows = (meta_update.measure(threads, effort.repetitions) for threads in effort.threads)
        yield "meta update of MB-MPO, 2 x 80 000 and 2 x 100 000 imagined transitions", list(chain.from_iterable(rows))
    if "collection" in parts:
        yield "collection, HalfCheetah", collection.measure(effort.repetitions)
    if "tracking" in parts:
        yield f"tracking, {effort.logging_seconds:g} s", tracking.measure(effort.logging_seconds)
    if "checkpoint" in parts:
        yield "checkpoints, HalfCheetah, full buffer", checkpoint.measure(effort.repetitions)
    if "keeping" in parts:
        title = (
            f"checkpoints and recording in real time, {effort.pairs} x 2 + 1 runs of {KEPT_TRAJECTORIES} trajectories"
        )
        yield title, keeping.measure(effort.pairs, KEPT_TRAJECTORIES)
    if "peer" in parts:
        rollouts = (policy_step.ROLLOUTS, *effort.many_rollouts)
        rows = (mbrl_lib.measure(threads, effort.repetitions, rollouts) for threads in effort.threads)
        yield "beside mbrl-lib", list(chain.from_iterable(rows))


if __name__ == "__main__":
    main()
