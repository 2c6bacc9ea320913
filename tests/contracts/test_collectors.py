"""Several collectors fill one stream: nothing is lost, repeated or reordered, on any backend, in any resumption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.replay import Replay
from mbrl_async.runtime.schedule import COLLECT, LEARN_MODEL, WORKERS, collector_names, role_of
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal
from mbrl_async.runtime.threads import Threads
from mbrl_async.runtime.trace import write_trace
from mbrl_async.runtime.worker import Worker, WorkerMaker
from mbrl_async.types import Clock, StepReport
from tests.contracts.test_backends import BACKENDS, ONE_THREAD, REAL_PERIOD, SCHEDULES, backends, schedules
from tests.runtime.fakes import (
    OF_EACH,
    PERIOD,
    STEPS,
    FakeCollector,
    Making,
    MemoryKeeper,
    Recorder,
    Wires,
    fake_makers,
)

COLLECTORS = 2
NAMES = collector_names(COLLECTORS)
TRAJECTORIES = 9
SHARED = {name: schedule for name, schedule in SCHEDULES.items() if name != "data and policy"}
"""Where more than one trajectory is collected at once."""

shared_schedules = pytest.mark.parametrize("schedule", SHARED)


def makers_of(wires: Wires, backend: str, collectors: int = COLLECTORS) -> dict[str, WorkerMaker]:
    """The second collector is slower than the first, by what makes no two finish at the same time for long."""
    period = PERIOD if backend == "simulated" else REAL_PERIOD
    slower = {NAMES[1]: Making(FakeCollector, wires, (1.25 * period, NAMES[1], OF_EACH))} if collectors > 1 else {}
    return fake_makers(wires, period=period, collectors=collectors) | slower


def run(
    backend: str,
    schedule: str,
    wires: Wires,
    *,
    trajectories: int = TRAJECTORIES,
    keeper: MemoryKeeper | Forgetful | None = None,
    makers: dict[str, WorkerMaker] | None = None,
) -> tuple[RunSummary, Recorder]:
    recorder = Recorder()
    shared = SHARED[schedule].shared_among(COLLECTORS)
    summary = BACKENDS[backend]().run(
        makers or makers_of(wires, backend),
        shared,
        StopRule(trajectories, None, None),
        StopSignal(),
        recorder,
        keeper or Forgetful(),
    )
    return summary, recorder


def require_in_order(collected: Sequence[int], total: int) -> None:
    """All that each collector collected, from its first on, in order; `total` in all."""
    assert len(collected) == total
    for number in range(COLLECTORS):
        own = [each for each in collected if each // OF_EACH == number]
        assert own == list(range(OF_EACH * number + 1, OF_EACH * number + 1 + len(own)))


@backends
@shared_schedules
def test_no_trajectory_of_any_collector_is_lost_repeated_or_reordered(backend, schedule):
    wires = Wires()
    summary, recorder = run(backend, schedule, wires)
    assert summary.ending is Ending.FINISHED
    require_in_order(wires.trajectories.history, TRAJECTORIES)
    assert wires.received.history + wires.trajectories.drain() == wires.trajectories.history
    assert (summary.counters.trajectories, summary.counters.env_steps) == (TRAJECTORIES, STEPS * TRAJECTORIES)
    assert [record for record, _, _ in recorder.steps] == summary.records
    of_whom = [record.worker for record in summary.records if role_of(record.worker) == COLLECT]
    assert of_whom == [NAMES[number // OF_EACH] for number in wires.trajectories.history], "the trace has this order"
    assert set(of_whom) == set(NAMES)
    assert sorted(wires.closed.history) == sorted([*NAMES, *WORKERS[1:]])


@backends
def test_a_phase_of_three_trajectories_is_two_and_one(backend):
    summary, _ = run(backend, "sync", Wires())
    phases: list[list[str]] = [[]]
    for record in summary.records:
        if role_of(record.worker) == COLLECT:
            phases[-1].append(record.worker)
        elif phases[-1]:
            phases.append([])
    assert [sorted(phase) for phase in phases] == [[NAMES[0], NAMES[0], NAMES[1]]] * 3


@backends
def test_the_schedules_collectors_never_use_a_policy_from_their_future(backend):
    summary, _ = run(backend, "async", Wires())
    published = dict.fromkeys(WORKERS, 0)
    for record in summary.records:
        seen = {
            "policy": published["improve_policy"],
            "model": published[LEARN_MODEL],
            "trajectories": published[COLLECT],
        }
        assert all(version <= seen[channel] for channel, version in record.pulled.items())
        published[role_of(record.worker)] += 1


@shared_schedules
def test_simulated_runs_with_fixed_costs_repeat_exactly(schedule):
    (one, recorded), (two, again) = run("simulated", schedule, Wires()), run("simulated", schedule, Wires())
    assert one == two
    assert recorded.steps == again.steps


@shared_schedules
@pytest.mark.parametrize("every", [2, 1000])
def test_a_simulated_run_that_is_cut_off_after_any_step_ends_as_if_it_had_not_been(schedule, every):
    whole = Wires()
    keeper = MemoryKeeper(whole, every=every)
    expected, _ = run("simulated", schedule, whole, keeper=keeper)
    longer, _ = run("simulated", schedule, Wires(), trajectories=2 * TRAJECTORIES)
    for length in range(1, len(expected.records) + 1):
        wires = Wires()
        summary, _ = run("simulated", schedule, wires, keeper=keeper.resumed(length, wires))
        assert summary == expected, f"cut off after {length} steps"
        assert wires.trajectories.history == whole.trajectories.history
    extended = Wires()
    past = keeper.resumed(len(expected.records), extended)
    assert run("simulated", schedule, extended, keeper=past, trajectories=2 * TRAJECTORIES)[0] == longer


@pytest.mark.parametrize("backend", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_a_run_in_real_time_loses_no_step_wherever_it_is_cut_off(backend):
    wires = Wires()
    keeper = MemoryKeeper(wires)
    expected, _ = run(backend, "async", wires, trajectories=20, keeper=keeper)
    for length in range(1, len(expected.records), len(expected.records) // (4 if backend == "processes" else 10)):
        resumed = Wires()
        past = keeper.resumed(length, resumed)
        done = past.past.entries[-1].books.counters.trajectories
        summary, _ = run(backend, "async", resumed, trajectories=done + 3, keeper=past)
        assert [record.digest for record in summary.records][:length] == [
            record.digest for record in expected.records[:length]
        ]
        assert resumed.trajectories.history[:done] == wires.trajectories.history[:done]
        require_in_order(resumed.trajectories.history, done + 3)
        assert resumed.received.history + resumed.trajectories.drain() == resumed.trajectories.history


@pytest.mark.parametrize("backend", ["threads", "simulated"])
@shared_schedules
def test_a_replay_is_the_recorded_run(backend, schedule, tmp_path: Path):
    wires, again = Wires(), Wires()
    recorded, _ = run(backend, schedule, wires)
    write_trace(tmp_path / "trace.jsonl", recorded.records)
    replay = Replay(torch_threads=ONE_THREAD, trace=str(tmp_path / "trace.jsonl"), until=None)
    rule = StopRule(TRAJECTORIES, None, None)
    shared = SHARED[schedule].shared_among(COLLECTORS)
    replayed = replay.run(makers_of(again, backend), shared, rule, StopSignal(), Recorder(), Forgetful())
    assert replayed.failure is None
    assert replayed.records == recorded.records
    assert again.trajectories.history == wires.trajectories.history
    mine, other = wires.policies.get(), again.policies.get()
    assert mine is not None
    assert other is not None
    assert torch.equal(mine.parameters["value"], other.parameters["value"])


@backends
@shared_schedules
def test_metrics_are_told_of_all_collectors_together_and_of_each(backend, schedule):
    _, recorder = run(backend, schedule, Wires())
    period = PERIOD if backend == "simulated" else REAL_PERIOD
    seconds = 0.0
    for record, metrics, counters in recorder.steps:
        if role_of(record.worker) != COLLECT:
            continue
        other = NAMES[1 - NAMES.index(record.worker)]
        assert metrics["collect/return"] == metrics[f"{record.worker}/return"]
        assert f"{other}/return" not in metrics
        for unit in ("versions", "seconds"):
            name = f"staleness/policy_{unit}"
            assert metrics.get(name) == metrics.get(f"{name}_{record.worker}")
            assert f"{name}_{other}" not in metrics
        for activity in ("busy", "idle", "blocked"):
            each = [metrics[f"share/{activity}_{name}"] for name in NAMES]
            assert metrics[f"share/{activity}_{COLLECT}"] == pytest.approx(sum(each) / 2)
        for name in (*NAMES, *WORKERS):
            assert sum(metrics[f"share/{each}_{name}"] for each in ("busy", "idle", "blocked")) == pytest.approx(1.0)
        seconds += STEPS * period * (1.25 if record.worker == NAMES[1] else 1.0) / COLLECTORS
        assert metrics["run/collection_seconds"] == counters.collection_seconds == pytest.approx(seconds)
        assert metrics["run/time_ratio"] >= 1.0 - 1e-9


@backends
def test_a_collector_that_fails_ends_the_run_and_is_named(backend):
    wires = Wires()
    makers = makers_of(wires, backend) | {NAMES[1]: _broken}
    summary, _ = run(backend, "async", wires, makers=makers)
    assert summary.ending is Ending.FAILED
    assert summary.failure is not None
    assert (summary.failure.worker, str(summary.failure.error)) == (NAMES[1], "no arm")


def _broken(_: Clock) -> Worker:
    raise ArithmeticError("no arm")


def test_every_collector_has_the_collectors_torch_threads_and_priority(monkeypatch):
    seen: dict[str, int] = {}
    lowered: list[str] = []

    def counting(name: str, make: WorkerMaker) -> WorkerMaker:
        def made(clock: Clock) -> Worker:
            worker = make(clock)
            step = worker.step

            def count() -> StepReport:
                seen[name] = torch.get_num_threads()
                return step()

            worker.step = count  # type: ignore[method-assign]
            return worker

        return made

    import threading

    monkeypatch.setattr(
        "mbrl_async.runtime.concurrent.lower_priority", lambda _: lowered.append(threading.current_thread().name)
    )
    makers = {name: counting(name, make) for name, make in makers_of(Wires(), "threads").items()}
    backend = Threads(
        torch_threads={COLLECT: 2, LEARN_MODEL: 3, "improve_policy": 1}, learner_niceness=5, hang_seconds=None
    )
    shared = SHARED["async"].shared_among(COLLECTORS)
    backend.run(makers, shared, StopRule(TRAJECTORIES, None, None), StopSignal(), Recorder(), Forgetful())
    assert seen == {NAMES[0]: 2, NAMES[1]: 2, LEARN_MODEL: 3, "improve_policy": 1}
    assert sorted(lowered) == ["improve_policy", LEARN_MODEL]


@schedules
def test_one_collector_has_the_schedule_as_it_is(schedule):
    one = [
        BACKENDS["simulated"]().run(
            makers_of(Wires(), "simulated", collectors=1),
            each,
            StopRule(TRAJECTORIES, None, None),
            StopSignal(),
            Recorder(),
            Forgetful(),
        )
        for each in (SCHEDULES[schedule], SCHEDULES[schedule].shared_among(1))
    ]
    assert one[0] == one[1]
    assert {record.worker for record in one[0].records} == set(WORKERS)
