"""From a snapshot to the end of the journal: the steps in between are done again, each with the inputs that it had.

Workers are deterministic functions of their state, of what they pulled and of their own random generators, so this
ends in the very state that was lost, also of a run whose workers worked at the same time. Steps in the real system are
not done again: the journal has their results.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from mbrl_async.runtime.digest import digest
from mbrl_async.runtime.recovery import Entry, InFlight, Past
from mbrl_async.runtime.state import RunState
from mbrl_async.runtime.worker import Worker
from mbrl_async.types import Interrupted, State

log = logging.getLogger(__name__)


class RedoError(Exception):
    """Journal and snapshot do not belong together."""


class Computed(Protocol):
    """A step that is computed, but not published."""

    @property
    def start(self) -> float:
        """In seconds on the run's clock."""


Step = TypeVar("Step", bound=Computed)

Fail = Callable[[str, BaseException], None]
"""A worker, and the exception with which it ends the run."""


def go_on(
    workers: Mapping[str, Worker],
    past: Past,
    state: RunState,
    step: Callable[[str, float], Step],
    fail: Fail,
    dropped: Collection[str] = (),
) -> dict[str, Step]:
    """Bring workers, channels and books to the end of a past, if there is one; see `Redo`.

    Raises:
        Interrupted: the run is over; it may have failed just now.
    """
    if not past.entries:
        return {}
    state.resume(past, {name: worker.publishes for name, worker in workers.items()})
    in_flight = Redo(workers, past, step, fail, dropped).run()
    for name, begun in in_flight.items():
        state.begin(name, past.entries[-1].record.finish)
        state.has_pulled(name, begun.start, workers[name].pulled)
    state.has_caught_up()
    state.end_if_reached()
    return in_flight


class Redo(Generic[Step]):
    """Does the steps of a past again.

    Args:
        workers: just made, with the channels of the snapshot.
        past: where they were, and what followed.
        step: computes a step of the worker so named, which has pulled, as if it began at so many seconds of the run.
        fail: is told whose exception ends the run.
        dropped: workers whose step in flight at the end of the journal is given up.
    """

    def __init__(
        self,
        workers: Mapping[str, Worker],
        past: Past,
        step: Callable[[str, float], Step],
        fail: Fail,
        dropped: Collection[str],
    ) -> None:
        self._workers = workers
        self._past = past
        self._step = step
        self._fail = fail
        position = past.snapshot.position
        self._before, self._tail = past.entries[:position], past.entries[position:]
        self._published = Counter(workers[entry.record.worker].publishes for entry in self._before)
        self._steps = {worker: self._steps_of(worker, worker not in dropped) for worker in workers}
        self._begun: dict[str, Step] = {}
        self._differed = False

    def run(self) -> dict[str, Step]:
        """Bring all workers and channels to the end of the journal.

        Returns:
            The steps in flight, in the order in which they began.

        Raises:
            Interrupted: the run is over, perhaps by a worker's failure, or by a `RedoError`: inputs are not there.
        """
        self._restore()
        for entry in self._tail:
            self._begin_what_can()
            self._finish(entry)
        self._begin_what_can()
        order = [*self._last_in_flight, *self._past.snapshot.in_flight]
        return {worker: self._begun[worker] for worker in dict.fromkeys(order) if worker in self._begun}

    @property
    def _last_in_flight(self) -> Mapping[str, InFlight]:
        return self._past.entries[-1].books.in_flight

    def _steps_of(self, worker: str, unfinished: bool) -> deque[Entry | InFlight]:
        """What `worker` did after the snapshot, in order."""
        steps: deque[Entry | InFlight] = deque(entry for entry in self._tail if entry.record.worker == worker)
        if unfinished and worker in self._last_in_flight:
            steps.append(self._last_in_flight[worker])
        elif unfinished and not steps and worker in self._past.snapshot.in_flight:
            steps.append(InFlight(self._past.snapshot.in_flight[worker], {}))
        return steps

    def _restore(self) -> None:
        for entry in self._before:
            if entry.worker is not None:
                self._publish_again(entry, entry.worker)
        for worker, state in self._past.snapshot.workers.items():
            with self._blamed_on(worker):
                self._workers[worker].load_state_dict(state)
        for worker, start in self._past.snapshot.in_flight.items():
            if self._steps[worker] and not _is_recorded(self._steps[worker][0]):
                with self._blamed_on(worker):
                    self._begun[worker] = self._step(worker, start)

    def _begin_what_can(self) -> None:
        """Begin every step whose inputs are the newest now: later they would not be."""
        for worker, steps in self._steps.items():
            if worker in self._begun or not steps or _is_recorded(steps[0]):
                continue
            start, pulled = _beginning(steps[0])
            if all(self._published[channel] == version for channel, version in pulled.items()):
                with self._blamed_on(worker):
                    if not self._workers[worker].pull():
                        raise RedoError(f"{worker} has nothing to do where it had: the snapshot is another run's.")
                    self._begun[worker] = self._step(worker, start)

    def _finish(self, entry: Entry) -> None:
        record = entry.record
        self._steps[record.worker].popleft()
        if entry.worker is not None:
            self._publish_again(entry, entry.worker)
        else:
            with self._blamed_on(record.worker):
                self._publish_anew(entry)
        self._published[self._workers[record.worker].publishes] += 1

    def _publish_again(self, entry: Entry, state: State) -> None:
        """Publish the result of a step in the real system, after which its worker had this state."""
        with self._blamed_on(entry.record.worker):
            worker = self._workers[entry.record.worker]
            worker.load_state_dict(state)
            worker.push()

    def _publish_anew(self, entry: Entry) -> None:
        """Publish the result of a step that was done again."""
        record = entry.record
        if self._begun.pop(record.worker, None) is None:
            raise RedoError(f"{record.worker}'s step {record.index} cannot be done again: what it pulled is gone.")
        self._compare(entry)
        self._workers[record.worker].push()

    @contextmanager
    def _blamed_on(self, worker: str) -> Iterator[None]:
        """An exception of a worker ends the run, but not the program."""
        try:
            yield
        except Interrupted:
            raise
        except Exception as error:
            self._fail(worker, error)
            raise Interrupted from error

    def _compare(self, entry: Entry) -> None:
        """Say once if a step comes out differently: the run goes on from here, but not to the last bit the same."""
        record = entry.record
        if not self._differed and digest(self._workers[record.worker].result()) != record.digest:
            self._differed = True
            log.warning(
                "%s's step %d came out differently than before the interruption: this machine, or what is installed "
                "on it, computes otherwise. The run goes on with the new result.",
                record.worker,
                record.index,
            )


def _is_recorded(step: Entry | InFlight) -> bool:
    """Whether the journal has the result."""
    return isinstance(step, Entry) and step.worker is not None


def _beginning(step: Entry | InFlight) -> tuple[float, Mapping[str, int]]:
    """Start and pulled versions."""
    begun = step.record if isinstance(step, Entry) else step
    return begun.start, begun.pulled
