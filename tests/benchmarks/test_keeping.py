import ctypes
import time

import pytest

from benchmarks.checkpoint import longest_stop
from benchmarks.keeping import Outcome, comparison, outcome
from benchmarks.stopwatch import Stopwatch
from mbrl_async.runtime.trace import StepRecord


def steps(worker, finishes, **metrics):
    return [(StepRecord(worker, n, finish - 1.0, finish, {}), metrics) for n, finish in enumerate(finishes, 1)]


def test_rates_and_lateness_begin_with_the_first_learned_policy():
    heard = [
        *steps("collect", [10.0], **{"collect/policy_version": 0.0, "collect/lateness_p99_ms": 90.0}),
        *steps("learn_model", [11.0, 12.0]),
        *steps("improve_policy", [15.0]),
        *steps("collect", [26.0], **{"collect/policy_version": 1.0, "collect/lateness_p99_ms": 3.0}),
        *steps("learn_model", [27.0, 29.0, 31.0]),
        *steps("improve_policy", [28.0, 28.5]),
    ]
    assert outcome(heard) == Outcome({"learn_model": 0.5, "improve_policy": 2.0}, [3.0])


def test_the_comparison_is_of_pairs_and_names_its_range():
    def runs(rates, late):
        return [Outcome({"learn_model": rate, "improve_policy": rate}, late) for rate in rates]

    rows = comparison(runs([0.9, 2.0, 3.3], [4.0, 6.0]), runs([1.0, 2.0, 3.0], [3.0, 4.5]))
    assert [row.value for row in rows] == pytest.approx([1.0, 0.9, 1.1, 3.75, 1.25])


def test_what_is_timed_within_something_else_counts_only_there():
    watch = Stopwatch()

    def work(seconds):
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    inner = watch.timed("inner", work)

    def both():
        work(0.01)
        inner(0.03)
        inner(0.03)

    watch.timed("outer", both)()
    assert watch.seconds["inner"] >= 0.06
    assert 0.01 <= watch.seconds["outer"] < 0.06, "the inner work is not counted twice"
    assert watch.threads["MainThread"] >= 0.07


def test_what_keeps_the_interpreter_to_itself_is_seen():
    assert longest_stop(lambda: ctypes.PyDLL(None).usleep(50_000)) > 0.03  # PyDLL does not let go of it
