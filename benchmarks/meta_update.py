"""How long a meta update of MB-MPO takes, against the matrix products of what it imagines.

HalfCheetah's sizes and the paper's: 20 tasks on 5 models of 3 x 512, a policy of 2 x 64, and for each task 20 (sync) or
25 (async) rollouts of 200 steps before and again after it has adapted.
"""

from __future__ import annotations

from benchmarks.measurement import Measurement, median_seconds, torch_threads
from benchmarks.paper_ensemble import MEMBERS, prediction_products
from benchmarks.policy_step import HORIZON, PolicyStep
from mbrl_async.algorithms.mb_mpo import MBMPO
from mbrl_async.algorithms.trust_region import TrustRegion
from mbrl_async.dynamics.precision import DTYPES, Precision

TASKS = 20
ROLLOUTS = (20, 25)


def measure(threads: int, repetitions: int) -> list[Measurement]:
    """Medians with this many torch threads."""
    with torch_threads(threads):
        return [_update(precision, rollouts, threads, repetitions) for precision in DTYPES for rollouts in ROLLOUTS]


def make_mb_mpo(step: PolicyStep, rollouts: int) -> MBMPO:
    """With the paper's settings."""
    return MBMPO(
        tasks=TASKS,
        rollouts=rollouts,
        horizon=HORIZON,
        adaptation_rate=1e-3,
        advantages=step.estimator,
        trust_region=TrustRegion(
            step_size=0.01,
            conjugate_gradient_iterations=10,
            curvature_interval=10,
            damping=1e-5,
            backtrack_ratio=0.8,
            backtracks=15,
        ),
    )


def _update(precision: Precision, rollouts: int, threads: int, repetitions: int) -> Measurement:
    step = PolicyStep(precision)
    improvement = make_mb_mpo(step, rollouts)
    products = prediction_products(TASKS * rollouts // MEMBERS, precision)

    def products_of_both_imaginations() -> None:
        for _ in range(2 * HORIZON):
            products()

    seconds, least = median_seconds(repetitions, lambda: step.improve(improvement), products_of_both_imaginations)
    name = f"MB-MPO update, {TASKS} tasks x {rollouts} rollouts, {precision}"
    return Measurement(name, seconds, "s", threads, least / seconds)
