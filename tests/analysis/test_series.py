from __future__ import annotations

import numpy as np

from mbrl_async.analysis.flags import flags
from mbrl_async.analysis.objectives import RETURN
from mbrl_async.analysis.series import make_series
from tests.analysis.synthetic import DISTANCE, run, series


def test_runs_that_differ_in_their_seed_alone_are_a_series():
    made, left_out = make_series([run(2, np.cos), run(0, np.cos), run(1, np.cos, tags={"schedule": "sync"})])
    assert [(each.label, [member.seed for member in each.runs]) for each in made] == [
        ("me_trpo async", [0, 2]),
        ("me_trpo sync", [1]),
    ]
    assert left_out == []


def test_a_series_is_called_by_the_parameters_that_tell_it_from_others():
    def weighted(seed: int, weight: str):
        machine = {"torch_threads.collect": str(seed + 1), "device": f"cuda:{seed}", "tracking.experiment": weight}
        return run(seed, np.cos, parameters={"dynamics.early_stopping.weight": weight, **machine})

    made, _ = make_series([weighted(0, "0.1"), weighted(1, "0.1"), weighted(0, "0.9")])
    assert [each.label for each in made] == [
        "me_trpo async early_stopping.weight=0.1",
        "me_trpo async early_stopping.weight=0.9",
    ]
    assert [len(each.runs) for each in made] == [2, 1]


def test_a_short_trial_does_not_join_the_series_of_long_runs():
    long = [run(seed, np.cos, parameters={"stop.trajectories": "50"}) for seed in (0, 1)]
    trial = run(1, np.cos, trajectories=12, parameters={"stop.trajectories": "12"}, started=5)
    made, left_out = make_series([*long, trial])
    assert [(each.label, len(each.runs)) for each in made] == [
        ("me_trpo async stop.trajectories=12", 1),
        ("me_trpo async stop.trajectories=50", 2),
    ]
    assert left_out == []


def test_series_are_called_by_their_backend_where_a_task_has_several():
    ant = {"env": "ant"}
    made, _ = make_series([run(0, np.cos), run(0, np.cos, tags={"backend": "simulated"}), run(0, np.cos, tags=ant)])
    assert [each.label for each in made] == ["me_trpo async", "me_trpo async simulated", "me_trpo async threads"]


def test_a_parameter_that_is_taken_from_another_is_not_named_twice():
    def precise(seed: int, precision: str, rate: str = "0.1"):
        own = {"dynamics.precision": precision, "dynamics.ensemble.precision": precision, "dynamics.rate": rate}
        return run(seed, np.cos, parameters=own)

    made, _ = make_series([precise(0, "bf16"), precise(0, "float32"), precise(0, "float32", "0.2")])
    assert [each.label for each in made] == [
        "me_trpo async dynamics.precision=bf16 dynamics.rate=0.1",
        "me_trpo async dynamics.precision=float32 dynamics.rate=0.1",
        "me_trpo async dynamics.precision=float32 dynamics.rate=0.2",
    ]


def test_of_two_runs_with_one_seed_the_newest_counts_and_that_is_said():
    made, left_out = make_series([run(0, np.cos, started=2), run(0, np.cos, started=1), run(1, np.cos)])
    assert [member.started for member in made[0].runs] == [2, 0]
    assert left_out == ["me_trpo async: of 3 runs with 2 seeds the newest count."]


def test_curves_are_aligned_where_all_runs_have_a_full_window():
    """Returns are the numbers of the trajectories, so that a mean of ten is 4.5 below the newest."""
    aligned = series(run(0, lambda n: n, trajectories=50), run(1, lambda n: n, trajectories=30)).aligned(
        RETURN.metric, "env_steps"
    )
    assert (aligned.x[0], aligned.x[-1]) == (10 * 200, 30 * 200)
    np.testing.assert_allclose(aligned.values, np.tile(aligned.x / 200 - 4.5, (2, 1)), rtol=1e-12)  # rounding
    by_time = series(run(0, lambda n: n, seconds=1.6)).aligned(RETURN.metric, "seconds")
    assert (by_time.x[0], by_time.x[-1]) == (16, 80)


def test_held_curves_go_on_to_the_end_of_the_longest_run():
    held = series(run(0, lambda n: n, trajectories=50), run(1, lambda n: n, trajectories=30)).held(
        RETURN.metric, "env_steps"
    )
    assert (held.x[0], held.x[-1]) == (10 * 200, 50 * 200)
    np.testing.assert_allclose(held.values[0], held.x / 200 - 4.5, rtol=1e-12)  # rounding
    np.testing.assert_allclose(held.values[1], np.minimum(held.x / 200 - 4.5, 25.5), rtol=1e-12)


def test_runs_that_have_no_time_in_common_have_one_position():
    slow, quick = run(0, lambda n: n, seconds=100.0), run(1, lambda n: n, seconds=1.0)
    aligned = series(slow, quick).aligned(RETURN.metric, "seconds")
    assert set(aligned.x) == {1000.0}, "the first window of the slow one; the quick one ended after 50 s"
    assert aligned.values[:, 0].tolist() == [5.5, 45.5]


def test_short_runs_are_averaged_over_half_of_what_they_have():
    aligned = series(run(0, lambda n: n, trajectories=4), run(1, lambda n: n, trajectories=9)).aligned(
        RETURN.metric, "seconds"
    )
    assert (aligned.x[0], aligned.x[-1]) == (20, 40)
    assert aligned.values[:, 0].tolist() == [1.5, 1.5]
    single = series(run(0, lambda n: n, trajectories=1)).aligned(RETURN.metric, "seconds")
    assert single.values[0, 0] == 1


def test_against_trajectories_every_one_counts_however_long():
    aligned = series(run(0, lambda n: n, seconds=3.0, distances=lambda n: 2 * n)).aligned(
        DISTANCE.metric, "trajectories"
    )
    assert (aligned.x[0], aligned.x[-1]) == (10, 50)
    np.testing.assert_allclose(aligned.values[0], 2 * (aligned.x - 4.5), rtol=1e-12)  # rounding


def test_a_series_has_what_all_of_its_runs_have():
    both = series(run(0, lambda n: n, distances=lambda n: n), run(1, lambda n: n))
    assert both.has(RETURN.metric)
    assert not both.has(DISTANCE.metric)


def test_first_and_last_returns():
    both = series(run(0, lambda n: n), run(1, lambda n: 2 * n))
    assert both.first(RETURN.metric).tolist() == [[1.0], [2.0]]
    assert both.last(RETURN.metric).tolist() == [[45.5], [91.0]]


def test_a_clean_comparison_of_enough_seeds_has_no_flag():
    assert flags([series(*(run(seed, np.cos) for seed in range(5)))]) == []


def test_what_is_mixed_is_flagged():
    runs = [
        run(0, np.cos, tags={"cpu": "slide rule", "git_commit": "bad"}),
        run(1, np.cos, parameters={"pace.factor": "0.5", "torch_threads.collect": "2"}, tags={"git_dirty": "true"}),
    ]
    sentences = flags([series(*runs), series(run(0, np.cos))])
    assert sentences == [
        "Different machines in one comparison: abacus, slide rule.",
        "Different commits in one comparison: bad, c0ffee.",
        "Different pace factors in one comparison: 0.5, 1.0.",
        "Different threads of collect in one comparison: 1, 2.",
        "1 of 3 runs were made with code that no commit holds.",
        "1 of 2 curves have one seed: an interval is not possible.",
        "Intervals over 2 seeds are narrower than they should be: read them as a hint.",
        "The curves have different numbers of seeds: 1, 2.",
    ]
