from __future__ import annotations

import math

import pytest

from mbrl_async.runtime.schedule import (
    COLLECT,
    IMPROVE_POLICY,
    LEARN_MODEL,
    Progress,
    Schedule,
    collector_names,
    role_of,
)

ENDLESS = {COLLECT: math.inf, LEARN_MODEL: math.inf, IMPROVE_POLICY: math.inf}


def order(schedule: Schedule, steps: int, idle_after: dict[str, int] | None = None) -> list[str]:
    """Workers in the order of their steps, one at a time; `idle_after`: steps in a row before a worker is idle."""
    progress = schedule.start()
    taken: list[str] = []
    in_a_row: dict[str, int] = {}
    while len(taken) < steps:
        worker = min(schedule.allowed(progress))
        if in_a_row.get(worker, 0) == (idle_after or {}).get(worker, -1):
            in_a_row[worker] = 0
            progress = schedule.after(progress, worker, idle=True)
        else:
            in_a_row[worker] = in_a_row.get(worker, 0) + 1
            taken.append(worker)
            progress = schedule.after(progress, worker, idle=False)
    return taken


def test_phases_follow_each_other_for_ever():
    schedule = Schedule(warm_up=[{COLLECT: 1}], cycle=[{COLLECT: 2}, {LEARN_MODEL: 1}, {IMPROVE_POLICY: 1}])
    cycle = [COLLECT, COLLECT, LEARN_MODEL, IMPROVE_POLICY]
    assert order(schedule, 9) == [COLLECT, *cycle, *cycle]


def test_an_idle_worker_ends_its_phase_before_its_budget():
    schedule = Schedule(warm_up=[], cycle=[{COLLECT: 1}, {LEARN_MODEL: 200}])
    assert order(schedule, 8, {LEARN_MODEL: 3}) == [COLLECT, LEARN_MODEL, LEARN_MODEL, LEARN_MODEL] * 2


def test_repeats_nest():
    inner = {"repeat": 2, "cycle": [{LEARN_MODEL: 1}, {IMPROVE_POLICY: 2}]}
    schedule = Schedule(warm_up=[], cycle=[{COLLECT: 1}, {"repeat": 2, "cycle": [inner]}])
    turn = [LEARN_MODEL, IMPROVE_POLICY, IMPROVE_POLICY]
    assert order(schedule, 14) == [COLLECT, *turn * 4, COLLECT]


def test_an_endless_phase_lets_all_work_and_never_ends():
    schedule = Schedule(warm_up=[], cycle=[ENDLESS])
    progress = schedule.start()
    for worker in [COLLECT, LEARN_MODEL, IMPROVE_POLICY] * 100:
        assert schedule.allowed(progress) == set(ENDLESS)
        progress = schedule.after(progress, worker, idle=False)
    assert progress.phase == 0


def test_an_idle_worker_of_an_endless_phase_waits_until_somebody_publishes():
    schedule = Schedule(warm_up=[], cycle=[ENDLESS])
    progress = schedule.after(schedule.start(), LEARN_MODEL, idle=True)
    assert schedule.allowed(progress) == {COLLECT, IMPROVE_POLICY}
    progress = schedule.after(progress, COLLECT, idle=False)
    assert schedule.allowed(progress) == set(ENDLESS)


def test_a_phase_waits_for_its_slower_worker():
    schedule = Schedule(warm_up=[], cycle=[{COLLECT: 1, LEARN_MODEL: 1}, {IMPROVE_POLICY: 1}])
    progress = schedule.after(schedule.start(), COLLECT, idle=False)
    assert schedule.allowed(progress) == {LEARN_MODEL}
    progress = schedule.after(progress, LEARN_MODEL, idle=False)
    assert schedule.allowed(progress) == {IMPROVE_POLICY}


def test_progress_is_a_value_that_after_does_not_change():
    schedule = Schedule(warm_up=[], cycle=[ENDLESS])
    before = schedule.start()
    schedule.after(before, COLLECT, idle=False)
    assert before == schedule.start()


def test_collects_without_limit_tells_endless_collection():
    assert Schedule(warm_up=[], cycle=[ENDLESS]).collects_without_limit
    assert not Schedule(warm_up=[], cycle=[{COLLECT: 10}, {LEARN_MODEL: math.inf}]).collects_without_limit


@pytest.mark.parametrize(
    ("cycle", "complaint"),
    [
        ([{LEARN_MODEL: 1}], "never collects"),
        ([], "never collects"),
        ([{"colect": 10}], "colect=10 names no worker"),
        ([{COLLECT: 0}], "collect=0 is no number of steps"),
        ([{COLLECT: -3}], "collect=-3 is no number of steps"),
        ([{COLLECT: 1.5}], "collect=1.5 is no number of steps"),
        ([{COLLECT: math.nan}], "collect=nan is no number of steps"),
        ([{COLLECT: True}], "collect=True is no number of steps"),
        ([{COLLECT: "ten"}], "collect=ten is no number of steps"),
        ([{}], "empty phase"),
        ([{"repeat": 0, "cycle": [{COLLECT: 1}]}], "is no repeated cycle"),
        ([{"repeat": 2}], "is no repeated cycle"),
        ([{"repeat": 2, "cycle": [{COLLECT: 1}], COLLECT: 1}], "is no repeated cycle"),
    ],
)
def test_an_impossible_schedule_is_refused_with_its_key_and_value(cycle, complaint):
    with pytest.raises(ValueError, match=complaint) as refusal:
        Schedule(warm_up=[], cycle=cycle)
    assert "schedule.cycle" in str(refusal.value)


def test_a_schedule_for_three_workers_serves_two():
    nested = {"repeat": 2, "cycle": [{LEARN_MODEL: 1}, {IMPROVE_POLICY: 2}]}
    schedule = Schedule(warm_up=[{LEARN_MODEL: 1}, {COLLECT: 1, LEARN_MODEL: 1}], cycle=[{COLLECT: 3}, nested])
    without_model = schedule.restricted_to([COLLECT, IMPROVE_POLICY])
    assert order(without_model, 9) == [COLLECT, *[COLLECT] * 3, *[IMPROVE_POLICY] * 4, COLLECT]
    without_policy = schedule.restricted_to([COLLECT, LEARN_MODEL])
    assert order(without_policy, 9) == [LEARN_MODEL, COLLECT, LEARN_MODEL, *[COLLECT] * 3, *[LEARN_MODEL] * 2, COLLECT]


def test_a_schedule_that_forgets_somebody_who_takes_part_is_refused():
    schedule = Schedule(warm_up=[{LEARN_MODEL: 1}], cycle=[{COLLECT: 1}, {IMPROVE_POLICY: 1}])
    with pytest.raises(ValueError, match=r"never lets learn_model work.*learn_model: 10"):
        schedule.restricted_to([COLLECT, LEARN_MODEL, IMPROVE_POLICY])


def test_concurrent_tells_who_may_work_at_the_same_time():
    schedule = Schedule(warm_up=[{COLLECT: 1, LEARN_MODEL: 1}], cycle=[{COLLECT: 1}, {IMPROVE_POLICY: 1}])
    assert schedule.concurrent(COLLECT, LEARN_MODEL)
    assert not schedule.concurrent(COLLECT, IMPROVE_POLICY)


def phase_of(schedule: Schedule, phase: int) -> dict[str, int]:
    """Worker -> steps in a phase in which everybody has something to do."""
    steps: dict[str, int] = {}
    progress = Progress(phase)
    while progress.phase == phase:
        worker = min(schedule.allowed(progress))
        steps[worker] = steps.get(worker, 0) + 1
        progress = schedule.after(progress, worker, idle=False)
    return steps


@pytest.mark.parametrize(
    ("budget", "shares"),
    [
        (3, {"collect_0": 1, "collect_1": 1, "collect_2": 1}),
        (10, {"collect_0": 4, "collect_1": 3, "collect_2": 3}),
        (2, {"collect_0": 1, "collect_1": 1}),
    ],
)
def test_collectors_share_the_budget_of_a_phase_to_the_last_step(budget, shares):
    schedule = Schedule(warm_up=[{COLLECT: budget}], cycle=[{COLLECT: 3, LEARN_MODEL: 2}]).shared_among(3)
    assert phase_of(schedule, 0) == shares
    assert phase_of(schedule, 1) == {"collect_0": 1, "collect_1": 1, "collect_2": 1, LEARN_MODEL: 2}


def test_without_a_limit_there_is_none_for_any_collector():
    schedule = Schedule(warm_up=[{COLLECT: 1}], cycle=[ENDLESS]).shared_among(2)
    assert schedule.allowed(schedule.start()) == {"collect_0"}, "one trajectory is one collector's"
    endless = {"collect_0", "collect_1", LEARN_MODEL, IMPROVE_POLICY}
    assert schedule.allowed(Progress(1)) == endless
    assert schedule.allowed(Progress(1, dict.fromkeys(endless, 1000))) == endless
    assert schedule.collects_without_limit
    assert schedule.concurrent(COLLECT, IMPROVE_POLICY)


def test_several_collectors_do_not_take_turns():
    alone = Schedule(warm_up=[], cycle=[{COLLECT: 4}, {LEARN_MODEL: 1}])
    assert alone.takes_turns
    assert alone.shared_among(1).takes_turns
    assert not alone.shared_among(2).takes_turns
    assert not alone.shared_among(2).collects_without_limit


def test_more_collectors_than_a_phase_has_trajectories_are_refused():
    schedule = Schedule(warm_up=[{COLLECT: 9}], cycle=[{COLLECT: 2}, {LEARN_MODEL: 1}])
    with pytest.raises(ValueError, match=r"collectors=3 are too many .* more than 2, so collect_2 would never work"):
        schedule.shared_among(3)


@pytest.mark.parametrize(
    ("worker", "role"),
    [(COLLECT, COLLECT), ("collect_0", COLLECT), ("collect_12", COLLECT), (LEARN_MODEL, LEARN_MODEL)],
)
def test_a_worker_has_the_role_that_its_name_begins_with(worker, role):
    assert role_of(worker) == role


def test_collectors_are_numbered_unless_there_is_one():
    assert collector_names(1) == (COLLECT,)
    assert collector_names(3) == ("collect_0", "collect_1", "collect_2")
