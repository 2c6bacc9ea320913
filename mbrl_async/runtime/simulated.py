"""One thread and a virtual clock: what a run would be with each worker on hardware of its own, without the waiting.

A step pulls and computes at its virtual start and publishes at its virtual finish. It lasts as long as it slept on the
clock (the collector sleeps from deadline to deadline) plus its cost: a given number of seconds, which makes the whole
run repeatable bit for bit, or the computing time that this very step took on this machine. The collector's cost is that
of computing one action: it passes within the step, so an action that takes longer than a control period is late.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from pydantic import PositiveInt

from mbrl_async.runtime.clock import MEASURED, Cost, VirtualClock
from mbrl_async.runtime.digest import digest
from mbrl_async.runtime.recovery import Keeper, Past
from mbrl_async.runtime.redo import go_on
from mbrl_async.runtime.schedule import COLLECT, WORKERS, Schedule, role_of
from mbrl_async.runtime.state import RunState, RunSummary
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal
from mbrl_async.runtime.trace import Observer
from mbrl_async.runtime.worker import Worker, WorkerMaker
from mbrl_async.types import Interrupted, StepReport

DECIMALS = 9
"""Of the second at which a step ends: four updates of 0.4 s and a trajectory of 1.6 s end together, whatever the floats
are that they add up to."""


@dataclass(frozen=True)
class _StepInFlight:
    start: float
    finish: float
    report: StepReport


class Simulated:
    """Runs all workers in one thread, each in its own virtual time.

    Args:
        torch_threads: role -> threads that torch may use within one operation of such a worker.
        costs: seconds that a step of each learner lasts, and that a collector takes to compute an action, or
            `measured`; so is what is not given, and all if this is the word `measured`.

    Raises:
        ValueError: the costs are no such thing.
    """

    def __init__(self, *, torch_threads: Mapping[str, PositiveInt], costs: Mapping[str, Cost] | str) -> None:
        self._torch_threads = torch_threads
        given = costs if isinstance(costs, Mapping) else dict.fromkeys(WORKERS, costs)
        if not set(given) <= set(WORKERS) or not all(_is_cost(worker, cost) for worker, cost in given.items()):
            raise ValueError(
                f"simulated.costs={costs} cannot be used: give each of {', '.join(WORKERS)} a cost, {MEASURED} or a "
                f"number of seconds, which only {COLLECT} may have as 0."
            )
        self._costs = {worker: given.get(worker, MEASURED) for worker in WORKERS}

    @property
    def repeats(self) -> bool:
        """Whether no cost is measured."""
        return MEASURED not in self._costs.values()

    def run(
        self,
        makers: Mapping[str, WorkerMaker],
        schedule: Schedule,
        rule: StopRule,
        stop: StopSignal,
        observer: Observer,
        keeper: Keeper,
    ) -> RunSummary:
        """See `Backend`."""
        clock = VirtualClock(stop, self._costs[COLLECT])
        state = RunState(makers, schedule, rule, stop, observer, keeper)
        simulation = _Simulation(clock, state, stop, rule, self._torch_threads, self._costs)
        simulation.run(makers, keeper)
        return state.summary(simulation.now)


def _is_cost(worker: str, cost: Cost) -> bool:
    if isinstance(cost, str):
        return cost == MEASURED
    return 0 < cost < math.inf or (worker == COLLECT and cost == 0)


class _Simulation:
    """One run of the simulated backend."""

    def __init__(
        self,
        clock: VirtualClock,
        state: RunState,
        stop: StopSignal,
        rule: StopRule,
        torch_threads: Mapping[str, int],
        costs: Mapping[str, Cost],
    ) -> None:
        self._clock = clock
        self._state = state
        self._stop = stop
        self._limit = math.inf if rule.seconds is None else rule.seconds
        self._torch_threads = torch_threads
        self._costs = costs
        self._workers: dict[str, Worker] = {}
        self._in_flight: dict[str, _StepInFlight] = {}
        self.now = 0.0

    def run(self, makers: Mapping[str, WorkerMaker], keeper: Keeper) -> None:
        """Until the run's end is requested."""
        for name, make in makers.items():
            self._attempt(name, self._make, make)
        if self._stop.ending is None:
            self._resume(keeper.past)
        while self._stop.ending is None:
            self._finish_what_is_due()
            self._begin_what_is_allowed()
            self._keep_wanted_states()
            self._go_to_next_finish()
        for name in self._workers:
            self._attempt(name, self._close)

    def _resume(self, past: Past) -> None:
        """Go to where the past ended, with the same steps in flight."""
        if past.entries:
            self.now = past.entries[-1].record.finish
        with suppress(Interrupted):
            again = go_on(self._workers, past, self._state, self._step_again, self._state.fail)
            # Measured once more a step may have taken less, and would end before what ended before it.
            self._in_flight = {name: replace(step, finish=max(step.finish, self.now)) for name, step in again.items()}

    def _step_again(self, name: str, start: float) -> _StepInFlight:
        torch.set_num_threads(self._torch_threads[role_of(name)])
        return self._step(name, start, time.thread_time())

    def _keep_wanted_states(self) -> None:
        for name, worker in self._workers.items():
            if name not in self._in_flight and self._state.state_is_wanted(name):
                self._state.keep_state(name, worker.state_dict())

    def _begin_what_is_allowed(self) -> None:
        for name in self._workers:
            if name not in self._in_flight and self._state.allowed(name) and self._stop.ending is None:
                self._attempt(name, self._begin)

    def _attempt(self, name: str, action: Callable[..., None], *arguments: object) -> None:
        """A worker's exception ends the run, but not the program."""
        torch.set_num_threads(self._torch_threads[role_of(name)])
        try:
            action(name, *arguments)
        except Interrupted:
            pass
        except Exception as error:
            self._state.fail(name, error)

    def _make(self, name: str, make: WorkerMaker) -> None:
        self._workers[name] = make(self._clock)

    def _close(self, name: str) -> None:
        self._workers[name].close()

    def _begin(self, name: str) -> None:
        """Compute a step now, in virtual time; it will be published when its duration is over."""
        worker = self._workers[name]
        self._clock.set(self.now)
        self._state.begin(name, self.now)
        computing_since = time.thread_time()
        if not worker.pull():
            self._state.found_nothing(name, self.now)
            return
        self._state.has_pulled(name, self.now, worker.pulled)
        if self._state.state_is_wanted(name):
            self._state.keep_state(name, worker.state_dict())
        self._in_flight[name] = self._step(name, self.now, computing_since)

    def _step(self, name: str, start: float, computing_since: float) -> _StepInFlight:
        self._clock.set(start)
        report = self._workers[name].step()
        finish = self._clock.now() + self._cost(name, time.thread_time() - computing_since)
        return _StepInFlight(start, round(finish, DECIMALS), report)

    def _cost(self, name: str, computing: float) -> float:
        """Seconds that a step takes besides what passed on its clock, where a collector's computing passed."""
        if role_of(name) == COLLECT:
            return 0.0
        cost = self._costs[name]
        return computing if isinstance(cost, str) else cost

    def _finish_what_is_due(self) -> None:
        """All that ends now, so that a step which begins now has every result of this moment.

        When one of them ends the run, the others stay in flight, where a resumed run finds them.
        """
        for name in [name for name, step in self._in_flight.items() if step.finish <= self.now]:
            if self._stop.ending is None:
                self._attempt(name, self._publish, self._in_flight.pop(name))

    def _go_to_next_finish(self) -> None:
        if not self._in_flight or self._stop.ending is not None:
            return
        self.now = min(step.finish for step in self._in_flight.values())
        if self.now > self._limit:
            self.now = self._limit
            self._stop.request(Ending.FINISHED)

    def _publish(self, name: str, step: _StepInFlight) -> None:
        self._clock.set(step.finish)
        worker = self._workers[name]
        self._state.finish(name, step.start, step.finish, worker, step.report, digest(worker.result()))
