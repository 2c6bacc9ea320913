"""What less precise products cost in accuracy: ensembles trained on the same real trajectories in every precision.

    python -m benchmarks.precision RUN_FOLDER/trajectories.safetensors --seeds 10 --epochs 40

Each seed has initial weights, splits and minibatches of its own, which are the same in all precisions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from benchmarks.dynamics import learner_of
from benchmarks.paper_ensemble import MEMBERS
from mbrl_async.dynamics.precision import DTYPES, Precision
from mbrl_async.results import read_trajectories
from mbrl_async.types import Trajectory, transitions_of

CONFIDENCE = 0.95


def main() -> None:
    """Train, compare in pairs, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description="Compare prediction errors.")
    parser.add_argument("trajectories", type=Path, help="the file of a run")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trajectories = read_trajectories(arguments.trajectories)
    losses = {
        name: [final_loss(trajectories, name, seed, arguments.epochs) for seed in range(arguments.seeds)]
        for name in DTYPES
    }
    Console().print(table(losses))


def final_loss(trajectories: Sequence[Trajectory], precision: Precision, seed: int, epochs: int) -> float:
    """Mean validation loss of the members, evaluated in the same precision."""
    generator = torch.Generator().manual_seed(seed)
    learner = learner_of([transitions_of(trajectory) for trajectory in trajectories], generator, precision)
    for _ in range(epochs):
        learner.epoch(MEMBERS)
    return float(learner.trainer.validation_losses(learner.buffer).mean())


def table(losses: dict[Precision, list[float]]) -> Table:
    """Means over seeds, and the mean of the paired ratios to float32 with its interval."""
    exact = np.array(losses["float32"])
    rows = Table("precision", "validation loss", "ratio to float32", "95 % interval", box=None)
    for name, values in losses.items():
        ratios = np.array(values) / exact
        half = student.ppf((1 + CONFIDENCE) / 2, len(ratios) - 1) * ratios.std(ddof=1) / np.sqrt(len(ratios))
        interval = "" if name == "float32" else f"{ratios.mean() - half:.4f} to {ratios.mean() + half:.4f}"
        rows.add_row(name, f"{np.mean(values):.5f}", f"{ratios.mean():.4f}", interval)
    return rows


if __name__ == "__main__":
    main()
