"""A run that is cut off anywhere goes on as if nothing had happened, on every backend and by every schedule."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mbrl_async.runtime.digest import digest
from mbrl_async.runtime.recovery import Past
from mbrl_async.runtime.redo import RedoError
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal
from mbrl_async.runtime.worker import Worker, WorkerMaker
from mbrl_async.types import Clock
from tests.contracts.test_backends import BACKENDS, REAL_PERIOD, SCHEDULES
from tests.runtime.fakes import PERIOD, MemoryKeeper, Recorder, Wires, fake_makers

TRAJECTORIES = 9
ONE_AT_A_TIME = [name for name in SCHEDULES if name != "async"]
CUTS = {"threads": 20, "processes": 4}

in_real_time = pytest.mark.parametrize("backend", ["threads", pytest.param("processes", marks=pytest.mark.slow)])


def run(
    backend: str, schedule: str, wires: Wires, keeper: MemoryKeeper, trajectories: int = TRAJECTORIES, **more: object
) -> RunSummary:
    makers = fake_makers(wires, period=PERIOD if backend == "simulated" else REAL_PERIOD)
    rule, stop = StopRule(trajectories, None, None), more.get("stop") or StopSignal()
    observer = more.get("observer") or Recorder()
    return BACKENDS[backend]().run(makers, SCHEDULES[schedule], rule, stop, observer, keeper)  # type: ignore[arg-type]


def published(wires: Wires) -> list[object]:
    newest = [channel.get() for channel in (wires.models, wires.policies)]
    tensors = [None if each is None else (each.version, *each.parameters.values()) for each in newest]
    return [wires.trajectories.history, *tensors]


def steps(summary: RunSummary) -> list[tuple[str, int, dict[str, int], str | None]]:
    """The trace without times."""
    return [(each.worker, each.index, dict(each.pulled), each.digest) for each in summary.records]


@pytest.fixture(params=SCHEDULES)
def simulated(request) -> tuple[str, RunSummary, MemoryKeeper, Wires]:
    wires = Wires()
    keeper = MemoryKeeper(wires)
    return request.param, run("simulated", request.param, wires, keeper), keeper, wires


def test_a_simulated_run_that_is_cut_off_after_any_step_ends_as_if_it_had_not_been(simulated):
    schedule, expected, keeper, uninterrupted = simulated
    assert len(keeper.snapshots) >= 2, "some of the pasts must have a snapshot with steps after it"
    for length in range(1, len(expected.records) + 1):
        wires = Wires()
        summary = run("simulated", schedule, wires, keeper.resumed(length, wires))
        assert summary == expected, f"cut off after {length} steps"
        assert published(wires) == published(uninterrupted), f"cut off after {length} steps"


def test_a_finished_simulated_run_that_is_extended_ends_like_a_longer_one(simulated):
    schedule, _, keeper, _ = simulated
    longer, extended = Wires(), Wires()
    expected = run("simulated", schedule, longer, MemoryKeeper(longer), trajectories=2 * TRAJECTORIES)
    past = keeper.resumed(len(keeper.entries), extended)
    assert run("simulated", schedule, extended, past, trajectories=2 * TRAJECTORIES) == expected
    assert published(extended) == published(longer)


def test_metrics_of_a_resumed_run_follow_without_a_gap_or_a_repetition():
    wires = Wires()
    keeper, whole = MemoryKeeper(wires), Recorder()
    run("simulated", "async", wires, keeper, observer=whole)
    for length in (1, 20, len(whole.steps) - 1):
        wires, rest = Wires(), Recorder()
        run("simulated", "async", wires, keeper.resumed(length, wires), observer=rest)
        assert rest.steps == whole.steps[length:]


@pytest.mark.parametrize("schedule", ONE_AT_A_TIME)
@in_real_time
def test_a_run_in_real_time_whose_workers_take_turns_ends_as_if_it_had_not_been_cut_off(backend, schedule):
    wires = Wires()
    keeper = MemoryKeeper(wires)
    expected = run(backend, schedule, wires, keeper)
    assert keeper.snapshots
    for length in (1, len(expected.records) // 2, len(expected.records) - 1):
        resumed = Wires()
        summary = run(backend, schedule, resumed, keeper.resumed(length, resumed))
        assert steps(summary) == steps(expected)
        assert published(resumed) == published(wires)
        finishes = [record.finish for record in summary.records]
        assert finishes == sorted(finishes), "the clock goes on where it was"


@in_real_time
def test_a_run_in_real_time_loses_no_step_wherever_it_is_cut_off(backend):
    """Also while all work at once: what is done again has the inputs that it had."""
    wires = Wires()
    keeper = MemoryKeeper(wires)
    expected = run(backend, "async", wires, keeper, trajectories=30)
    assert len(keeper.snapshots) >= 3
    for length in range(1, len(expected.records), len(expected.records) // CUTS[backend]):
        resumed = Wires()
        past = keeper.resumed(length, resumed)
        done = past.past.entries[-1].books.counters.trajectories
        summary = run(backend, "async", resumed, past, trajectories=done + 3)
        assert steps(summary)[:length] == steps(expected)[:length]
        assert resumed.trajectories.history == list(range(1, done + 4))
        assert resumed.received.history + resumed.trajectories.drain() == list(range(1, done + 4))


def test_what_is_done_again_is_what_was_published(caplog):
    wires = Wires()
    keeper = MemoryKeeper(wires)
    expected = run("threads", "async", wires, keeper, trajectories=30)
    for snapshots in (0, 1, len(keeper.snapshots)):  # from the start, from the first, from the last
        resumed, shortened = Wires(), MemoryKeeper(wires)
        shortened.entries, shortened.snapshots = keeper.entries, keeper.snapshots[:snapshots]
        summary = run("threads", "async", resumed, shortened.resumed(len(keeper.entries), resumed), trajectories=30)
        assert summary.ending is Ending.FINISHED
        assert steps(summary)[: len(expected.records)] == steps(expected)
        models = [record.digest for record in summary.records if record.worker == LEARN_MODEL]
        newest = resumed.models.get()
        assert newest is not None
        assert (newest.version, digest(newest.parameters)) == (len(models), models[-1])
    assert "came out differently" not in caplog.text


@pytest.mark.parametrize("backend", ["threads", "simulated"])
def test_a_run_can_be_interrupted_while_it_does_its_past_again(backend):
    wires = Wires()
    keeper = MemoryKeeper(wires)
    run("simulated", "sync", wires, keeper)
    resumed, stop = Wires(), StopSignal()
    stop.interrupt()
    summary = run(backend, "sync", resumed, keeper.resumed(len(keeper.entries) - 1, resumed), stop=stop)
    assert summary.ending is Ending.KILLED
    assert not summary.caught_up


def test_a_step_that_comes_out_differently_is_named_and_the_run_goes_on(caplog):
    wires = Wires()
    keeper = MemoryKeeper(wires, every=1000)
    expected = run("simulated", "sync", wires, keeper)
    resumed = Wires()
    past = keeper.resumed(len(keeper.entries) - 1, resumed)
    makers = fake_makers(resumed)

    def differing(clock):
        worker = fake_makers(resumed)[LEARN_MODEL](clock)
        worker.total += 1e-3
        return worker

    rule = StopRule(TRAJECTORIES, None, None)
    backend = BACKENDS["simulated"]()
    summary = backend.run(makers | {LEARN_MODEL: differing}, SCHEDULES["sync"], rule, StopSignal(), Recorder(), past)
    assert summary.ending is Ending.FINISHED
    assert len(summary.records) == len(expected.records)
    assert caplog.text.count("came out differently") == 1
    assert f"{LEARN_MODEL}'s step 1 came out differently" in caplog.text


def test_a_snapshot_of_another_run_is_refused():
    wires = Wires()
    keeper = MemoryKeeper(wires)
    run("simulated", "sync", wires, keeper)
    snapshot, _ = keeper.snapshots[-1]
    other = Wires()
    run("simulated", "data and policy", other, foreign := MemoryKeeper(other))
    resumed = Wires()
    summary = run("simulated", "sync", resumed, MemoryKeeper(resumed, Past(foreign.entries, snapshot)))
    assert summary.ending is Ending.FAILED
    assert summary.failure is not None
    assert isinstance(summary.failure.error, RedoError)
    assert not summary.caught_up


def failing_in(method: str, worker: str, wires: Wires, closed: list[str], after: int = 0) -> Mapping[str, WorkerMaker]:
    """Makers of workers of which one cannot do something, `after` so many times; all tell when they are closed."""

    def wrapped(name: str, make: WorkerMaker) -> WorkerMaker:
        def made(clock: Clock) -> Worker:
            made = make(clock)
            made.close = lambda: closed.append(name)  # type: ignore[method-assign]
            if name == worker:
                works, count = getattr(made, method), iter(range(after))
                setattr(made, method, lambda *given: works(*given) if next(count, None) is not None else {}["missing"])
            return made

        return made

    return {name: wrapped(name, make) for name, make in fake_makers(wires).items()}


@pytest.mark.parametrize("backend", ["threads", "simulated"])
@pytest.mark.parametrize(
    ("method", "worker"),
    [("load_state_dict", COLLECT), ("load_state_dict", LEARN_MODEL), ("push", IMPROVE_POLICY), ("pull", LEARN_MODEL)],
)
def test_a_worker_that_cannot_do_its_past_again_fails_the_run_and_everybody_goes_home(backend, method, worker):
    wires = Wires()
    keeper = MemoryKeeper(wires)
    run("simulated", "sync", wires, keeper)
    del keeper.snapshots[1:]  # many steps are behind it
    resumed, closed = Wires(), []
    past = keeper.resumed(len(keeper.entries), resumed)
    makers = failing_in(method, worker, resumed, closed)
    rule = StopRule(2 * TRAJECTORIES, None, None)
    summary = BACKENDS[backend]().run(makers, SCHEDULES["sync"], rule, StopSignal(), Recorder(), past)
    assert summary.ending is Ending.FAILED
    assert summary.failure is not None
    assert (summary.failure.worker, repr(summary.failure.error)) == (worker, "KeyError('missing')")
    assert sorted(closed) == sorted(makers)
    assert not summary.caught_up, "results that were there before are the better ones"


@pytest.mark.parametrize("method", ["result", "push"])
def test_a_worker_that_cannot_publish_what_was_in_flight_fails_the_run_and_everybody_goes_home(method):
    wires = Wires()
    keeper = MemoryKeeper(wires)
    run("simulated", "async", wires, keeper)  # repeats, and so does what is in flight
    with_learner = [number for number, entry in enumerate(keeper.entries, 1) if LEARN_MODEL in entry.books.in_flight]
    resumed, closed = Wires(), []
    past = keeper.resumed(with_learner[-1], resumed)
    redone = [entry for entry in past.past.entries[past.past.snapshot.position :] if entry.record.worker == LEARN_MODEL]
    makers = dict(failing_in(method, LEARN_MODEL, resumed, closed, after=len(redone)))
    summary = BACKENDS["threads"]().run(
        makers, SCHEDULES["async"], StopRule(2 * TRAJECTORIES, None, None), StopSignal(), Recorder(), past
    )
    assert summary.ending is Ending.FAILED
    assert summary.failure is not None
    assert (summary.failure.worker, repr(summary.failure.error)) == (LEARN_MODEL, "KeyError('missing')")
    assert sorted(closed) == sorted(makers)


def test_a_worker_whose_step_is_done_again_may_fail_again():
    wires = Wires()
    keeper = MemoryKeeper(wires)
    run("simulated", "async", wires, keeper)
    resumed = Wires()
    past = keeper.resumed(len(keeper.entries), resumed)

    def failing(clock):
        worker = fake_makers(resumed)[IMPROVE_POLICY](clock)
        worker.step = lambda: (_ for _ in ()).throw(ArithmeticError("again"))
        return worker

    makers = fake_makers(resumed) | {IMPROVE_POLICY: failing}
    rule = StopRule(2 * TRAJECTORIES, None, None)
    summary = BACKENDS["simulated"]().run(makers, SCHEDULES["async"], rule, StopSignal(), Recorder(), past)
    assert summary.ending is Ending.FAILED
    assert summary.failure is not None
    assert (summary.failure.worker, str(summary.failure.error)) == (IMPROVE_POLICY, "again")
    assert COLLECT in {record.worker for record in summary.records}, "what was kept is not lost"
