"""Which series is measured by which."""

from __future__ import annotations

import numpy as np

from mbrl_async.analysis.baselines import baseline_of, settings_besides_the_schedule, without_baseline
from mbrl_async.analysis.series import Series
from tests.analysis.synthetic import run, series


def one(schedule: str, task: str = "hopper", **parameters: str) -> Series:
    named = {name.replace("__", "."): value for name, value in parameters.items()}
    return series(run(0, np.cos, tags={"schedule": schedule, "env": task}, parameters=named))


def test_it_is_of_the_same_setting():
    asynchronous, sync, other_task = one("async"), one("sync"), one("sync", "ant")
    assert baseline_of(asynchronous, [asynchronous, sync, other_task], ["sync"]) is sync
    assert baseline_of(sync, [asynchronous, sync], ["sync"]) is None
    assert baseline_of(asynchronous, [asynchronous, other_task], ["sync"]) is None
    in_order = one("in_order")
    assert baseline_of(asynchronous, [asynchronous, in_order], ["sync", "in_order"]) is in_order


def test_an_ablation_is_measured_by_its_own_counterpart_whatever_else_was_run():
    others = [one("sync"), one("in_order_model_policy"), one("in_order_data_policy")]
    schedules = ["sync", "in_order_model_policy", "in_order_data_policy"]
    assert baseline_of(one("interleaved_data_policy"), others, schedules) is others[2]
    assert baseline_of(one("interleaved_model_policy"), others, schedules) is others[1]
    assert baseline_of(one("interleaved_data_policy"), others[:1], schedules) is others[0]


def test_tasks_of_one_name_with_other_settings_are_others():
    pendulum, hopper = one("async", env__id="Pendulum-v1"), one("sync", env__id="Hopper-v5")
    assert baseline_of(pendulum, [pendulum, hopper], ["sync"]) is None
    same = one("sync", env__id="Pendulum-v1")
    assert baseline_of(pendulum, [hopper, same], ["sync"]) is same
    newer = one("async", env__id="Pendulum-v1", env__more="1")
    assert baseline_of(newer, [same], ["sync"]) is same, "a setting that the older program did not have"


def test_of_several_it_is_the_one_with_the_same_settings_and_never_the_best():
    """Other parameters may differ: async has none of sync's."""
    variants = [one("sync", dynamics__weight=weight, iteration__rollouts="5") for weight in ("0.4", "0.9")]
    assert baseline_of(one("async", dynamics__weight="0.9"), variants, ["sync"]) is variants[1]
    assert baseline_of(one("async", dynamics__weight="0.5"), variants, ["sync"]) is None
    assert baseline_of(one("async"), variants, ["sync", "in_order"]) is None


def test_who_has_none_is_told_why():
    variants = [one("sync", dynamics__weight=weight) for weight in ("0.4", "0.9")]
    has, ambiguous, alone = one("async", dynamics__weight="0.4"), one("async"), one("async", "ant")
    assert without_baseline([has, ambiguous, alone, *variants], ["sync"]) == [
        "hopper: me_trpo async has no baseline: none of 2 sync series has its settings.",
        "ant: me_trpo async has no baseline: no run of its task, algorithm and backend has the schedule sync.",
    ]
    assert without_baseline([has, alone], ["sync", "in_order"]) == [
        "No run has the schedule sync or in_order: there is no speed-up."
    ]
    assert without_baseline(variants, ["sync"]) == []


def test_settings_besides_the_schedule_are_told_with_both_values():
    asynchronous = one("async", collectors="2", schedule__cycle="a", torch_threads__collect="2", own="1")
    sync = one("sync", collectors="1", schedule__cycle="b")
    assert settings_besides_the_schedule(asynchronous, sync) == {"collectors": ("2", "1")}
