"""Every backend runs the same workers by the same schedules: what they must agree on, and what each must do.

Starting processes takes seconds, so most of this is slow for them; `tests/runtime/test_processes.py` has the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from mbrl_async.runtime.backend import Backend
from mbrl_async.runtime.digest import digest
from mbrl_async.runtime.processes import Processes
from mbrl_async.runtime.recovery import Forgetful, Keeper
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL, WORKERS, Schedule
from mbrl_async.runtime.simulated import Simulated
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal
from mbrl_async.runtime.threads import Threads
from mbrl_async.runtime.worker import Worker, WorkerMaker
from mbrl_async.types import Clock, StepReport
from tests.runtime.fakes import (
    PERIOD,
    BrokenPolicyLearner,
    FakePolicyLearner,
    Making,
    MemoryKeeper,
    Recorder,
    Wires,
    fake_makers,
)

ONE_THREAD = dict.fromkeys(WORKERS, 1)
FIXED_COSTS = {LEARN_MODEL: 0.5, IMPROVE_POLICY: 0.25}
BACKENDS: dict[str, Callable[[], Backend]] = {
    "threads": lambda: Threads(torch_threads=ONE_THREAD, learner_niceness=0, hang_seconds=None),
    "processes": lambda: Processes(torch_threads=ONE_THREAD, learner_niceness=0, hang_seconds=None),
    "simulated": lambda: Simulated(torch_threads=ONE_THREAD, costs=FIXED_COSTS),
    "simulated, measured": lambda: Simulated(torch_threads=ONE_THREAD, costs="measured"),
}
SCHEDULES = {
    "sync": Schedule(warm_up=[], cycle=[{COLLECT: 3}, {LEARN_MODEL: 200}, {IMPROVE_POLICY: 4}]),
    "async": Schedule(
        warm_up=[{COLLECT: 1}, {LEARN_MODEL: 1}, {IMPROVE_POLICY: 1}], cycle=[dict.fromkeys(WORKERS, math.inf)]
    ),
    "model and policy": Schedule(
        warm_up=[], cycle=[{COLLECT: 3}, {"repeat": 3, "cycle": [{LEARN_MODEL: 1}, {IMPROVE_POLICY: 2}]}]
    ),
    "data and policy": Schedule(
        warm_up=[], cycle=[{LEARN_MODEL: 200}, {"repeat": 3, "cycle": [{IMPROVE_POLICY: 2}, {COLLECT: 1}]}]
    ),
}
THREE_NUMBERS = {COLLECT: 1, LEARN_MODEL: 3, IMPROVE_POLICY: 2}
REAL_TIME = ("threads", "processes")
REAL_PERIOD = 0.002  # seconds: short, but it makes the workers truly overlap

backends = pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=[pytest.mark.slow] * (name == "processes")) for name in BACKENDS]
)
schedules = pytest.mark.parametrize("schedule", SCHEDULES)


def run(
    backend: str,
    schedule: str,
    wires: Wires,
    *,
    trajectories: int | None = 9,
    seconds: float | None = None,
    **more: object,
) -> tuple[RunSummary, Recorder]:
    recorder = more.pop("recorder", None) or Recorder()
    makers = fake_makers(wires, period=REAL_PERIOD) | more.pop("makers", {})  # type: ignore[operator]
    rule = StopRule(trajectories, None, seconds)
    stop = more.pop("stop", None) or StopSignal()
    return BACKENDS[backend]().run(makers, SCHEDULES[schedule], rule, stop, recorder, Forgetful()), recorder  # type: ignore[arg-type]


def counting_torch_threads(makers: dict[str, WorkerMaker], seen: dict[str, set[int]]) -> dict[str, WorkerMaker]:
    """Makes the same workers, whose steps note with how many threads torch computes."""

    def counting(name: str, make: WorkerMaker) -> WorkerMaker:
        def made(clock: Clock) -> Worker:
            worker = make(clock)
            step = worker.step

            def count() -> StepReport:
                torch.ones(200, 200).sum()
                seen.setdefault(name, set()).add(torch.get_num_threads())
                return step()

            worker.step = count  # type: ignore[method-assign]
            return worker

        return made

    return {name: counting(name, make) for name, make in makers.items()}


@backends
@schedules
def test_no_trajectory_is_lost_repeated_or_reordered(backend, schedule):
    wires = Wires()
    summary, _ = run(backend, schedule, wires)
    assert summary.ending is Ending.FINISHED
    assert wires.trajectories.history == list(range(1, 10))
    assert wires.received.history + wires.trajectories.drain() == list(range(1, 10))
    assert (summary.counters.trajectories, summary.counters.env_steps) == (9, 36)


@backends
@schedules
def test_the_trace_holds_every_step_once_in_order_and_nothing_else(backend, schedule):
    wires = Wires()
    summary, recorder = run(backend, schedule, wires)
    assert [record for record, _, _ in recorder.steps] == summary.records
    for worker in WORKERS:
        steps = [record for record in summary.records if record.worker == worker]
        assert [record.index for record in steps] == list(range(1, len(steps) + 1))
        assert all(before.finish <= after.start for before, after in pairwise(steps))
    published = {"model": wires.models.get(), "policy": wires.policies.get()}
    for channel, worker in (("model", LEARN_MODEL), ("policy", IMPROVE_POLICY)):
        newest = published[channel]
        steps = [record for record in summary.records if record.worker == worker]
        assert (0 if newest is None else newest.version) == len(steps), f"{channel} was published without a record"
    finishes = [record.finish for record in summary.records]
    assert finishes == sorted(finishes)


@backends
@schedules
def test_the_trace_holds_the_digest_of_what_was_published(backend, schedule):
    wires = Wires()
    summary, _ = run(backend, schedule, wires)
    collected = [record.digest for record in summary.records if record.worker == COLLECT]
    assert collected == [digest({"count": torch.tensor(count)}) for count in wires.trajectories.history]
    newest = {record.worker: record.digest for record in summary.records}
    for channel, worker in ((wires.models, LEARN_MODEL), (wires.policies, IMPROVE_POLICY)):
        published = channel.get()
        assert published is None or newest[worker] == digest(published.parameters)


@backends
@schedules
def test_no_step_uses_a_version_from_its_future(backend, schedule):
    summary, _ = run(backend, schedule, Wires())
    published = {"trajectories": 0, "model": 0, "policy": 0}
    produces = {COLLECT: "trajectories", LEARN_MODEL: "model", IMPROVE_POLICY: "policy"}
    for record in summary.records:
        assert all(version <= published[channel] for channel, version in record.pulled.items())
        published[produces[record.worker]] += 1


@backends
def test_sync_is_the_same_run_on_every_backend(backend):
    wires, reference = Wires(), Wires()
    summary, _ = run(backend, "sync", wires)
    expected, _ = run("simulated", "sync", reference)

    def trace(of: RunSummary) -> list[tuple[str, int, dict[str, int]]]:
        return [(record.worker, record.index, dict(record.pulled)) for record in of.records]

    assert trace(summary) == trace(expected)
    mine, other = wires.policies.get(), reference.policies.get()
    assert mine is not None
    assert other is not None
    assert torch.equal(mine.parameters["value"], other.parameters["value"])


@backends
def test_sync_has_no_stale_policy(backend):
    _, recorder = run(backend, "sync", Wires())
    stale = [
        metrics["staleness/policy_versions"]
        for record, metrics, _ in recorder.steps
        if record.worker == COLLECT and record.pulled["policy"] > 0
    ]
    assert stale == [0.0] * 6, "of nine trajectories, the first three are random"


@schedules
def test_simulated_runs_with_fixed_costs_repeat_exactly(schedule):
    first, second = Wires(), Wires()
    one, recorded = run("simulated", schedule, first)
    two, again = run("simulated", schedule, second)
    assert one == two
    assert recorded.steps == again.steps


def test_the_simulated_timeline_is_as_computed_by_hand():
    """Collection lasts 4 x 0.002 s, epochs 0.5 s, updates 0.25 s; warm-up in order, then all at once."""
    summary, recorder = run("simulated", "async", Wires(), trajectories=None, seconds=1.1)
    learning = [(r.worker, round(r.start, 6), round(r.finish, 6)) for r in summary.records if r.worker != COLLECT]
    assert learning == [
        (LEARN_MODEL, 0.008, 0.508),
        (IMPROVE_POLICY, 0.508, 0.758),
        (IMPROVE_POLICY, 0.758, 1.008),
    ], "the second epoch would have ended at 1.258, after the run"
    assert summary.counters.seconds == 1.1, "a run ends when its seconds do, not with the step after them"
    assert summary.counters.trajectories == 1 + math.floor((1.1 - 0.758) / 0.008)
    shares = recorder.steps[-1][1]
    assert shares["share/blocked_collect"] == pytest.approx((0.758 - 0.008) / recorder.steps[-1][2].seconds)


def test_simulated_shares_are_as_computed_by_hand():
    """Trajectories of 1 s from 0 and from 1.75 on, one epoch of 0.5 s for each, updates of 0.25 s from 1.5 on."""
    wires, recorder = Wires(), Recorder()
    makers = fake_makers(wires, period=PERIOD, epochs=1)
    rule = StopRule(3, None, None)
    BACKENDS["simulated"]().run(makers, SCHEDULES["async"], rule, StopSignal(), recorder, Forgetful())
    record, metrics, _ = recorder.steps[-1]
    assert (record.worker, record.finish) == (COLLECT, 3.75)
    seconds = {name.removeprefix("share/"): 3.75 * share for name, share in metrics.items() if "share/" in name}
    assert seconds == pytest.approx(
        {
            "busy_collect": 3.0,
            "idle_collect": 0.0,
            "blocked_collect": 0.75,  # from 1 on, until the warm-up is over
            "busy_learn_model": 1.0,
            "idle_learn_model": 1.5,  # from 1.75 to 2.75, and from 3.25 on
            "blocked_learn_model": 1.25,  # until 1, and from 1.5 to 1.75
            "busy_improve_policy": 2.25,
            "idle_improve_policy": 0.0,
            "blocked_improve_policy": 1.5,
        }
    )


@schedules
def test_a_simulated_step_has_all_that_was_finished_when_it_began(schedule):
    # Four control steps of 0.4 s end together with four updates of 0.4 s, though the floats differ in the last bit.
    backend = Simulated(torch_threads=ONE_THREAD, costs={LEARN_MODEL: 0.8, IMPROVE_POLICY: 0.4})
    makers = fake_makers(Wires(), period=0.4)
    rule = StopRule(20, None, None)
    records = backend.run(makers, SCHEDULES[schedule], rule, StopSignal(), Recorder(), Forgetful()).records
    producers = {"trajectories": COLLECT, "model": LEARN_MODEL, "policy": IMPROVE_POLICY}
    for record in records:
        for channel, version in record.pulled.items():
            finished = [each for each in records if each.worker == producers[channel] and each.finish <= record.start]
            assert version == len(finished), f"{record} began with an older {channel} than there was"


@backends
def test_an_idle_worker_is_not_asked_again_until_something_is_new(backend):
    wires = Wires()
    summary, _ = run(backend, "sync", wires)
    epochs = [record for record in summary.records if record.worker == LEARN_MODEL]
    assert len(epochs) == 3 * 2, "three epochs after each of the two collections that were learned from"


@backends
@pytest.mark.parametrize("phase", ["make", "pull", "step", "push"])
def test_the_first_exception_ends_the_run_and_names_its_worker(backend, phase):
    wires = Wires()
    makers = {IMPROVE_POLICY: Making(BrokenPolicyLearner, wires, (phase,))}
    summary, _ = run(backend, "async", wires, makers=makers)
    assert summary.ending is Ending.FAILED
    assert summary.failure is not None
    assert summary.failure.worker == IMPROVE_POLICY
    assert str(summary.failure.error) == f"broken in {phase}"
    assert summary.unresponsive == ()


@backends
@pytest.mark.parametrize("broken", [False, True])
def test_every_worker_that_was_made_is_closed_once(backend, broken):
    wires = Wires()
    makers = {IMPROVE_POLICY: Making(BrokenPolicyLearner, wires, ("step",))} if broken else {}
    run(backend, "async", wires, makers=makers)
    assert sorted(wires.closed.history) == sorted(WORKERS)


@pytest.mark.parametrize("backend", ["threads", "simulated"])
def test_an_error_after_the_end_is_no_failure(backend):
    """The run is interrupted; the worker that then stumbles over its own end does not change why the run ended."""
    stop = StopSignal()

    class Stumbling(FakePolicyLearner):
        def step(self) -> StepReport:
            stop.interrupt()
            raise ArithmeticError

    wires = Wires()
    makers = {IMPROVE_POLICY: lambda clock: Stumbling(wires, clock)}
    summary, _ = run(backend, "async", wires, makers=makers, stop=stop)
    assert summary.ending is Ending.KILLED
    assert summary.failure is None


@pytest.mark.parametrize(
    "backend",
    [
        Threads(torch_threads=THREE_NUMBERS, learner_niceness=0, hang_seconds=None),
        Simulated(torch_threads=THREE_NUMBERS, costs=FIXED_COSTS),
    ],
    ids=["threads", "simulated"],
)
def test_each_worker_has_its_own_number_of_torch_threads_also_in_steps_that_are_done_again(backend):
    def numbers_in_a_run(wires: Wires, keeper: Keeper) -> dict[str, set[int]]:
        seen: dict[str, set[int]] = {}
        makers = counting_torch_threads(fake_makers(wires, period=REAL_PERIOD), seen)
        backend.run(makers, SCHEDULES["async"], StopRule(9, None, None), StopSignal(), Recorder(), keeper)
        return seen

    wires, again = Wires(), Wires()
    keeper = MemoryKeeper(wires, every=100)  # no snapshot: the learners have to do all of it again
    expected = {worker: {number} for worker, number in THREE_NUMBERS.items()}
    assert numbers_in_a_run(wires, keeper) == expected
    done_again = numbers_in_a_run(again, keeper.resumed(len(keeper.entries), again))
    assert set(done_again) >= {LEARN_MODEL, IMPROVE_POLICY}
    assert done_again.items() <= expected.items()


def test_a_thread_that_asks_the_program_to_exit_ends_the_run():
    def leave(_: object) -> object:
        raise SystemExit(3)

    summary, _ = run("threads", "async", Wires(), makers={IMPROVE_POLICY: leave})
    assert summary.failure is not None
    assert isinstance(summary.failure.error, SystemExit)


@backends
def test_a_run_can_be_interrupted_and_keeps_what_it_has(backend):
    stop = StopSignal()
    recorder = Recorder(lambda record: stop.interrupt() if record.worker == COLLECT and record.index == 4 else None)
    wires = Wires()
    summary, _ = run(backend, "async", wires, stop=stop, recorder=recorder, trajectories=10_000)
    assert summary.ending is Ending.KILLED
    assert summary.unresponsive == ()
    assert 4 <= summary.counters.trajectories < 10_000
    assert wires.trajectories.history == list(range(1, summary.counters.trajectories + 1))


@backends
def test_seconds_end_a_run_within_a_step(backend):
    summary, _ = run(backend, "async", Wires(), trajectories=None, seconds=0.05)
    assert summary.ending is Ending.FINISHED
    assert summary.counters.seconds >= 0.05
    if backend not in REAL_TIME:
        assert summary.counters.seconds == 0.05


@backends
@schedules
def test_run_metrics_come_with_every_trajectory_and_shares_add_up(backend, schedule):
    _, recorder = run(backend, schedule, Wires())
    collected = [(metrics, counters) for record, metrics, counters in recorder.steps if record.worker == COLLECT]
    for metrics, counters in collected:
        assert metrics["run/trajectories"] == counters.trajectories
        assert metrics["run/env_steps"] == counters.env_steps
        assert metrics["run/time_ratio"] >= 1.0 - 1e-9
        for worker in WORKERS:
            total = sum(metrics[f"share/{activity}_{worker}"] for activity in ("busy", "idle", "blocked"))
            assert total == pytest.approx(1.0)


def test_no_thread_is_left_behind():
    import threading

    before = threading.active_count()
    for _ in range(3):
        run("threads", "async", Wires())
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "costs",
    [
        {**FIXED_COSTS, COLLECT: -1.0},
        {**FIXED_COSTS, "dream": 1.0},
        {**FIXED_COSTS, LEARN_MODEL: 0.0},
        {**FIXED_COSTS, LEARN_MODEL: math.nan},
        {**FIXED_COSTS, LEARN_MODEL: math.inf},
        {**FIXED_COSTS, LEARN_MODEL: "fast"},
        "fast",
    ],
)
def test_impossible_costs_are_refused(costs):
    with pytest.raises(
        ValueError,
        match=r"simulated\.costs=.* cannot be used: give each of collect, .* a cost",
    ):
        Simulated(torch_threads=ONE_THREAD, costs=costs)
