"""What makes a comparison unfair, or at least has to be known by who reads it."""

from __future__ import annotations

from collections.abc import Sequence

from mbrl_async.analysis.series import ComparedRun, Series
from mbrl_async.tracking.run import THEN

COMPARED = {
    "machines": ("tag", "cpu"),
    "numbers of cores": ("tag", "cores"),
    "devices": ("tag", "device"),
    "backends": ("tag", "backend"),
    "commits": ("tag", "git_commit"),
    "pace factors": ("parameter", "pace.factor"),
    "threads of collect": ("parameter", "torch_threads.collect"),
    "threads of learn_model": ("parameter", "torch_threads.learn_model"),
    "threads of improve_policy": ("parameter", "torch_threads.improve_policy"),
    "matmul precisions": ("parameter", "matmul_precision"),
}
"""What should be the same in all runs -> where it is written."""

FEW_SEEDS = 5
"""Below it, percentile bootstrap intervals are clearly too narrow: docs/experiments.md has the measured coverage."""


def flags(series: Sequence[Series]) -> list[str]:
    """A sentence for each."""
    runs = [run for each in series for run in each.runs]
    return [*_mixtures(runs), *_uncommitted(runs), *_seeds(series)]


def _mixtures(runs: Sequence[ComparedRun]) -> list[str]:
    sentences = []
    for what, (kind, name) in COMPARED.items():
        told = [(run.tags if kind == "tag" else run.parameters).get(name, "unknown") for run in runs]
        values = {value for each in told for value in each.split(THEN)}
        if len(values) > 1:
            sentences.append(f"Different {what} in one comparison: {', '.join(sorted(values))}.")
    return sentences


def _uncommitted(runs: Sequence[ComparedRun]) -> list[str]:
    changed = sum(run.tags.get("git_dirty") != "false" for run in runs)
    return [f"{changed} of {len(runs)} runs were made with code that no commit holds."] if changed else []


def _seeds(series: Sequence[Series]) -> list[str]:
    sentences = []
    single = sum(len(each.runs) == 1 for each in series)
    if single:
        sentences.append(f"{single} of {len(series)} curves have one seed: an interval is not possible.")
    few = sorted({len(each.runs) for each in series if 1 < len(each.runs) < FEW_SEEDS})
    if few:
        numbers = ", ".join(map(str, few))
        sentences.append(f"Intervals over {numbers} seeds are narrower than they should be: read them as a hint.")
    counts = {len(each.runs) for each in series}
    if len(counts) > 1:
        sentences.append(f"The curves have different numbers of seeds: {', '.join(map(str, sorted(counts)))}.")
    return sentences
