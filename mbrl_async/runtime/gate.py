"""The schedule behind a lock, for workers that run concurrently."""

from __future__ import annotations

import threading

from mbrl_async.runtime.digest import digest
from mbrl_async.runtime.state import RunState
from mbrl_async.runtime.stop import StopSignal
from mbrl_async.runtime.worker import Worker
from mbrl_async.types import Clock, StepReport


class Gate:
    """Lets each worker begin a step when the schedule allows it, and takes in what it did."""

    def __init__(self, state: RunState, clock: Clock, stop: StopSignal) -> None:
        self._state = state
        self._clock = clock
        self._stop = stop
        self._changed = threading.Condition()
        self._open = False
        self._finished = 0
        self._finished_at_entry: dict[str, int] = {}

    def open(self) -> None:
        """Let the first steps begin."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def close(self) -> None:
        """Send everybody home who waits, after the run's end was requested."""
        with self._changed:
            self._changed.notify_all()

    def enter(self, name: str, worker: Worker) -> bool:
        """Wait until `worker` may begin a step; False: the run is over."""
        while self._wait_for_news(name):
            self._keep_state(name, worker)
        with self._changed:
            if self._stop.ending is not None:
                return False
            self._finished_at_entry[name] = self._finished
            self._state.begin(name, self._clock.now())
            return True

    def has_pulled(self, name: str, start: float, worker: Worker) -> None:
        """The step that `worker` began at `start` has its inputs."""
        with self._changed:
            self._state.has_pulled(name, start, worker.pulled)
            wanted = self._state.state_is_wanted(name)
        if wanted:
            self._keep_state(name, worker)

    def finish(self, worker: str, start: float, step: Worker, report: StepReport) -> None:
        """Publish and record a step.

        Publishing belongs under the lock: it makes the trace's order the order of publication, and nothing is
        published that the trace does not hold.
        """
        published = digest(step.result())
        with self._changed:
            self._state.finish(worker, start, self._clock.now(), step, report, published)
            self._finished += 1
            self._changed.notify_all()

    def found_nothing(self, worker: str) -> None:
        """`worker` had nothing to do; it tries again at once if somebody published while it looked."""
        with self._changed:
            if self._finished_at_entry[worker] == self._finished:
                self._state.found_nothing(worker, self._clock.now())
                self._changed.notify_all()

    def _wait_for_news(self, name: str) -> bool:
        """Wait until a worker may begin a step or the run is over; True: its state is wanted before that."""
        with self._changed:
            self._changed.wait_for(lambda: self._may_go(name) or (self._open and self._state.state_is_wanted(name)))
            return not self._may_go(name)

    def _may_go(self, name: str) -> bool:
        return self._stop.ending is not None or (self._open and self._state.allowed(name))

    def _keep_state(self, name: str, worker: Worker) -> None:
        """Copy the state in the worker's own thread, which nobody waits for meanwhile."""
        state = worker.state_dict()
        with self._changed:
            self._state.keep_state(name, state)

    def begun(self, name: str) -> float | None:
        """When a worker began the step that it is in; None between two steps."""
        with self._changed:
            return self._state.begun(name)

    def fail(self, worker: str, error: BaseException) -> None:
        """`worker` raised `error`."""
        with self._changed:
            self._state.fail(worker, error)
            self._changed.notify_all()
