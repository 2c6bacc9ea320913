from __future__ import annotations

import csv

import pytest

from mbrl_async.analysis.paper_curves import FILE, paper_curve

ASYNC = {"task": "half_cheetah", "algorithm": "me_trpo", "schedule": "async"}


def test_the_curve_of_the_same_setting_is_found_in_seconds_and_in_steps():
    by_time = paper_curve(**ASYNC, variant="", axis="seconds")
    assert by_time is not None
    assert (by_time.figure, by_time.x.tolist()) == ("wall_clock", [900, 1800, 2700, 3480])
    assert by_time.returns[0] == 429
    by_samples = paper_curve(**ASYNC, variant="", axis="env_steps")
    assert by_samples is not None
    assert (by_samples.figure, by_samples.x[0]) == ("samples", 50_000)


def test_an_ablation_has_its_own_curve():
    curve = paper_curve(**ASYNC, variant="early_stopping.weight=0.9", axis="env_steps")
    assert curve is not None
    assert curve.figure == "early_stopping_weight"


def test_model_free_runs_have_no_schedule():
    assert paper_curve(task="hopper", algorithm="ppo", schedule="anything", variant="", axis="seconds") is not None


@pytest.mark.parametrize("other", [{"task": "reacher"}, {"variant": "hidden=[16]"}, {"algorithm": "mb_mpc"}])
def test_what_the_authors_do_not_show_has_none(other):
    assert paper_curve(**{**ASYNC, "variant": "", **other}, axis="env_steps") is None


def test_no_point_is_there_twice():
    with FILE.open() as file:
        rows = [tuple(row.values())[:-1] for row in csv.DictReader(file)]
    assert len(rows) == len(set(rows)) == 191
