"""How long a meta update of MB-MPO takes, against the matrix products of what it imagines.

HalfCheetah's sizes and the paper's: 20 tasks on 5 models of 3 x 512, a policy of 2 x 64, and for each task 20 (sync) or
25 (async) rollouts of 200 steps before and again after it has adapted.
"""

from __future__ import annotations

from benchmarks.measurement import Measurement, median_seconds, torch_threads
from benchmarks.paper_ensemble import MEMBERS, prediction_products
from benchmarks.policy_step import HORIZON, PolicyStep
from benchmarks.program_settings import settings
from mbrl_async.algorithms.mb_mpo import MBMPO
from mbrl_async.config import build
from mbrl_async.dynamics.precision import DTYPES, Precision

SCHEDULES = ("sync", "async")


def measure(threads: int, repetitions: int) -> list[Measurement]:
    """Medians with this many torch threads."""
    with torch_threads(threads):
        return [_update(precision, schedule, threads, repetitions) for precision in DTYPES for schedule in SCHEDULES]


def _update(precision: Precision, schedule: str, threads: int, repetitions: int) -> Measurement:
    step = PolicyStep(precision)
    cfg = settings("algorithm=mb_mpo", f"schedule={schedule}").algorithm.improvement
    improvement: MBMPO = build(cfg)
    products = prediction_products(cfg.tasks * cfg.rollouts // MEMBERS, precision)

    def products_of_both_imaginations() -> None:
        for _ in range(2 * HORIZON):
            products()

    seconds, least = median_seconds(repetitions, lambda: step.improve(improvement), products_of_both_imaginations)
    name = f"MB-MPO update, {cfg.tasks} tasks x {cfg.rollouts} rollouts, {precision}"
    return Measurement(name, seconds, "s", threads, least / seconds)
