"""A process that holds one worker and does what it is told over a line."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import pickle
import select
import signal
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from mbrl_async.priority import lower_priority
from mbrl_async.runtime.clock import WallClock
from mbrl_async.runtime.far_channels import FarEnds, Put
from mbrl_async.runtime.heartbeat import Pulse
from mbrl_async.runtime.line import Line, SharedMemory
from mbrl_async.runtime.worker import Worker
from mbrl_async.types import Interrupted, Parameters, State, StepReport

BEAT_BYTES = 8
"""Of the memory that tells when the worker last looked at the clock: one float64, in seconds on the run's clock."""


@dataclass(frozen=True)
class Beginning:
    """What a child is told first."""

    name: str
    maker: bytes
    torch_threads: int
    niceness: int
    matmul_precision: str
    log_level: int


@dataclass(frozen=True)
class Order:
    """A method of the worker to call, and when it is on the run's clock: `now` was at `at` of `time.perf_counter`."""

    method: str
    arguments: tuple[Any, ...]
    now: float
    at: float


@dataclass(frozen=True)
class StepResult:
    """A step, with all that may be asked for before the next one."""

    report: StepReport
    result: Parameters
    state: State | None
    """After a step in the real system: it is needed to publish the step."""


@dataclass(frozen=True)
class Returned:
    """An order is carried out."""

    value: Any
    pulled: Mapping[str, int]
    put: list[Put]
    """What the worker put into channels meanwhile."""


@dataclass(frozen=True)
class Raised:
    """The worker raised: the exception as a pickle, and in words for those who cannot read that."""

    error: bytes
    told: str
    stack: str


@dataclass(frozen=True)
class Wanted:
    """The question what is new in a channel, beyond the known version."""

    channel: int
    known: int


def main(connection: Connection, stop: Connection) -> None:
    """Serve until told to close, or until nobody is at the other end."""
    _leave_signals_to_the_run()
    threading.Thread(target=_die_with_the_parent, name="parent-watcher", daemon=True).start()
    beat = SharedMemory.receive(connection, BEAT_BYTES)
    line = Line(connection)
    try:
        beginning = line.receive()
        _settle(beginning, line)
        _Child(beginning, line, StopPipe(stop), beat).serve()
    except (EOFError, OSError):
        pass  # the run's own process is gone, and with it everybody who could want something


class StopPipe:
    """Tells that the run is over: the other end of the pipe is closed then, be it by the death of its process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe.fileno()
        self._keep_open = pipe

    def check(self) -> None:
        """Raise `Interrupted` if the run is over."""
        if self._over(0.0):
            raise Interrupted

    def wait(self, timeout: float) -> None:
        """Wait for the end, at most `timeout` seconds."""
        self._over(timeout)

    def _over(self, timeout: float) -> bool:
        # Not `poll`, whose timeouts are whole milliseconds.
        return bool(select.select([self._pipe], [], [], timeout)[0])


class _Child:
    """Carries out orders."""

    def __init__(self, beginning: Beginning, line: Line, stop: StopPipe, beat: SharedMemory) -> None:
        self._beginning = beginning
        self._line = line
        self._clock = WallClock(stop)
        self._pulse = Pulse(self._clock, beat.bytes.view(np.float64))
        self._far_ends = FarEnds(self._ask)
        self._worker: Worker | None = None

    def serve(self) -> None:
        """Until told to close."""
        while True:
            order = self._line.receive()
            self._clock.start(order.now + time.perf_counter() - order.at)
            answer = self._carried_out(order)
            try:
                self._line.send(answer)
            except (pickle.PicklingError, AttributeError, TypeError) as error:  # nothing of it was sent
                self._line.send(_raised(error, self._beginning.name))
            if order.method == "close":
                return

    def _carried_out(self, order: Order) -> Returned | Raised:
        try:
            value = self._call(order)
            pulled = {} if self._worker is None else dict(self._worker.pulled)
            return Returned(value, pulled, self._far_ends.kept())
        except BaseException as error:  # a SystemExit, too: as in a thread
            return _raised(error, self._beginning.name)

    def _call(self, order: Order) -> Any:
        if order.method == "make":
            return self._make()
        assert self._worker is not None, "it is made first"
        if order.method == "step":
            return self._step(self._worker)
        return getattr(self._worker, order.method)(*order.arguments)

    def _make(self) -> str:
        """The channel that the worker publishes in."""
        make = self._far_ends.maker(self._beginning.maker)
        self._worker = make(self._pulse)
        gc.collect()  # as `job` does, for the same reason: a full collection makes a control step late
        gc.freeze()
        return self._worker.publishes

    def _step(self, worker: Worker) -> StepResult:
        """Also what publishing needs, so that nobody has to wait for this process then."""
        report = worker.step()
        result = worker.result()
        worker.push()
        return StepResult(report, result, worker.state_dict() if report.trajectories else None)

    def _ask(self, channel: int, known: int) -> Any:
        self._line.send(Wanted(channel, known))
        return self._line.receive()


class _LogSender(QueueHandler):
    """Sends what is logged to the run's own process, which knows where it belongs."""

    def enqueue(self, record: logging.LogRecord) -> None:
        """See `QueueHandler`."""
        self.queue.send(record)  # type: ignore[attr-defined]  # a line, not a queue


def _settle(beginning: Beginning, line: Line) -> None:
    """Make this process what the worker's thread would be."""
    torch.set_num_threads(beginning.torch_threads)
    torch.set_float32_matmul_precision(beginning.matmul_precision)
    lower_priority(beginning.niceness)
    root = logging.getLogger()
    root.handlers = [_LogSender(line)]  # type: ignore[arg-type]
    root.setLevel(beginning.log_level)


def _raised(error: BaseException, name: str) -> Raised:
    stack = f"In the process of {name}:\n{''.join(traceback.format_exception(error))}"
    try:
        pickled = pickle.dumps(error)
    except Exception:  # whatever a user's exception raises when it is pickled
        pickled = b""
    return Raised(pickled, f"{type(error).__name__}: {error}", stack.rstrip())


def _leave_signals_to_the_run() -> None:
    """Ctrl-C reaches every process. Handlers, because programs that a task starts would inherit what is ignored."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # they were blocked from before this process began


def _die_with_the_parent() -> None:
    """A worker may be deep in a computation, or in a system that does not answer."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is a child"
    parent.join()
    os._exit(1)
