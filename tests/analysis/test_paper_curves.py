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


@pytest.mark.parametrize(
    ("variant", "figure"),
    [
        *((f"early_stopping.weight={weight}", "early_stopping_weight") for weight in (0.1, 0.4, 0.9, 0.99)),
        *((f"pace.factor={factor}", "sampling_speed") for factor in (0.5, 1.0, 2.0)),
    ],
)
def test_an_ablation_has_its_own_curve(variant, figure):
    """Written as MLflow shows the parameter."""
    curve = paper_curve(**ASYNC, variant=variant, axis="env_steps")
    assert curve is not None
    assert curve.figure == figure


@pytest.mark.parametrize("order", ["in_order", "interleaved"])
@pytest.mark.parametrize(("what", "figure"), [("model_policy", "regularisation"), ("data_policy", "exploration")])
def test_partly_asynchronous_schedules_are_called_as_ours(order, what, figure):
    curve = paper_curve(**{**ASYNC, "schedule": f"{order}_{what}"}, variant="", axis="env_steps")
    assert curve is not None
    assert curve.figure == figure


def test_model_free_runs_have_no_schedule():
    assert paper_curve(task="hopper", algorithm="ppo", schedule="anything", variant="", axis="seconds") is not None


@pytest.mark.parametrize("other", [{"task": "reacher"}, {"variant": "hidden=[16]"}, {"algorithm": "mb_mpc"}])
def test_what_the_authors_do_not_show_has_none(other):
    assert paper_curve(**{**ASYNC, "variant": "", **other}, axis="env_steps") is None


def test_no_point_is_there_twice():
    with FILE.open() as file:
        rows = [tuple(row.values())[:-1] for row in csv.DictReader(file)]
    assert len(rows) == len(set(rows)) == 191
