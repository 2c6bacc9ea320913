"""Stands for a worker that is in another process: the same methods, in the process of the run."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
import time
from collections.abc import Mapping
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import torch

from mbrl_async.runtime.child import BEAT_BYTES, Beginning, Order, Raised, Returned, StepResult, Wanted, main
from mbrl_async.runtime.far_channels import Crossing, Put
from mbrl_async.runtime.heartbeat import LostWorkerError
from mbrl_async.runtime.line import Line, SharedMemory
from mbrl_async.runtime.stop import StopSignal
from mbrl_async.runtime.worker import Worker, WorkerMaker
from mbrl_async.types import Clock, Interrupted, Parameters, State, StepReport

POLL_SECONDS = 0.05
"""How often whoever waits for a child looks whether the run is over."""

HUNG_UP_SECONDS = 1.0
"""How long a process that hung up may take to die: one that waits for a device may not at all."""

SPAWN = multiprocessing.get_context("spawn")
"""A forked child would inherit locks that nobody opens there, such as those of the parent's computing threads."""


class WorkerProcessError(RuntimeError):
    """An exception of a worker that cannot be had outside its process; in words."""


class StandIn:
    """Starts a process that makes a worker, and passes on to it what is asked of a `Worker`.

    Used by one thread at a time.

    Args:
        name: the worker's.
        maker: makes it; can be pickled.
        torch_threads: that torch may use there within one operation.
        niceness: how much lower the operating system ranks that process.
        stop: of the run.
    """

    def __init__(self, name: str, maker: WorkerMaker, torch_threads: int, niceness: int, stop: StopSignal) -> None:
        self._name = name
        self._maker = maker
        self._torch_threads = torch_threads
        self._niceness = niceness
        self._stop = stop
        self._connection, self._far_connection = SPAWN.Pipe()
        self._stop_reader, self._stop_writer = SPAWN.Pipe(duplex=False)
        arguments = (self._far_connection, self._stop_reader)
        self._process = SPAWN.Process(target=main, args=arguments, name=f"mbrl-async {name}")
        self._line = Line(self._connection)
        self._last_beat = 0.0
        self._step: StepResult | None = None
        self._unpublished: list[Put] = []
        self._pulled: Mapping[str, int] = {}
        self._made = False
        self._closed = False
        self._stopped = False

    def make(self, clock: Clock) -> Worker:
        """The maker of this worker, for the thread that stands for it.

        Raises:
            Interrupted: the run is over.
            TypeError: the maker cannot be pickled.
            LostWorkerError: the process died.
        """
        self._clock = clock
        self._crossing = Crossing(self._maker)
        self._start()
        try:
            self._tell_beginning()
            self._publishes: str = self._order("make")
        except BaseException:
            self.end(0.0)
            raise
        self._made = True
        return self

    def lost(self) -> Exception | None:
        """Why the worker is not there any more; None: it is."""
        if not self._made or self._closed or not wait([self._process.sentinel], 0.0):
            return None
        return self._death()

    def end(self, patience: float) -> None:
        """Kill the process, which gets so many seconds to end by itself before if its worker is closed."""
        if self._process.pid is None:
            return
        if self._closed:
            self._process.join(patience)
        self._process.kill()

    def bury(self, patience: float) -> None:
        """Wait for at most so many seconds until the process is gone."""
        if self._process.pid is not None:
            self._process.join(patience)

    @property
    def pulled(self) -> Mapping[str, int]:  # noqa: D102
        return self._pulled

    @property
    def publishes(self) -> str:  # noqa: D102
        return self._publishes

    def pull(self) -> bool:  # noqa: D102
        busy: bool = self._order("pull")
        return busy

    def step(self) -> StepReport:
        """See `Worker`; brings along whatever publishing needs."""
        step: StepResult = self._order("step")
        self._step = step
        return step.report

    def result(self) -> Parameters:  # noqa: D102
        if self._step is not None:
            return self._step.result
        result: Parameters = self._order("result")
        return result

    def push(self) -> None:
        """See `Worker`; after a step, what it published over there is published here."""
        if self._step is None:
            self._order("push")
        items, self._unpublished = self._unpublished, []
        self._publish(items)

    def state_dict(self) -> State:  # noqa: D102
        if self._step is not None and self._step.state is not None:
            return self._step.state
        state: State = self._order("state_dict", forget=False)
        return state

    def load_state_dict(self, state: State) -> None:  # noqa: D102
        self._order("load_state_dict", state)

    def close(self) -> None:
        """See `Worker`; nothing happens if the process is gone."""
        if not wait([self._process.sentinel], 0.0):
            self._order("close")
            self._closed = True

    def _start(self) -> None:
        # For the child, which inherits it, until it can say that signals are for the run alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        self._process.start()
        self._beat = SharedMemory(BEAT_BYTES)
        self._far_connection.close()
        self._stop_reader.close()

    def _tell_beginning(self) -> None:
        try:
            self._beat.send(self._connection)
            self._line.send(
                Beginning(
                    name=self._name,
                    maker=self._crossing.maker,
                    torch_threads=self._torch_threads,
                    niceness=self._niceness,
                    matmul_precision=torch.get_float32_matmul_precision(),
                    log_level=logging.getLogger().level,
                )
            )
        except OSError as error:
            raise self._death() from error

    def _order(self, method: str, *arguments: Any, forget: bool = True) -> Any:
        """Have a method called; what the last step brought is outdated then, unless nothing changes."""
        if forget:
            self._step, self._unpublished = None, []
        try:
            self._line.send(Order(method, arguments, self._clock.now(), time.perf_counter()))
            answer = self._answer(impatient=method == "make")
        except (EOFError, OSError) as error:
            raise self._death() from error
        if isinstance(answer, Raised):
            raise _error(answer)
        self._pulled = answer.pulled
        if method == "step":  # published with it, by `push`
            self._unpublished = answer.put
        else:
            self._publish(answer.put)
        return answer.value

    def _publish(self, items: list[Put]) -> None:
        for item in items:
            self._crossing.put(item)

    def _answer(self, impatient: bool) -> Returned | Raised:
        """Wait for the end of an order, and answer questions meanwhile; `impatient`: not beyond the run's end."""
        while True:
            self._pass_on_news()  # also between messages: who logs all the time would hear of no end
            while not self._line.has_message(POLL_SECONDS):
                self._pass_on_news()
                if impatient and self._stopped:
                    raise Interrupted
            match self._line.receive():
                case Wanted(channel, known):
                    self._line.send(self._crossing.newer(channel, known))
                case logging.LogRecord() as record:
                    logging.getLogger(record.name).handle(record)
                case Returned() | Raised() as answer:
                    return answer

    def _pass_on_news(self) -> None:
        """Tell the child that the run is over, and the clock that the child has looked at it."""
        if self._stop.ending is not None and not self._stopped:
            self._stop_writer.close()
            self._stopped = True
        beat = self._beat.bytes.view(np.float64).item()
        if beat != self._last_beat:
            self._last_beat = beat
            self._clock.now()

    def _death(self) -> LostWorkerError:
        self._process.join(HUNG_UP_SECONDS)
        code = self._process.exitcode
        if code is not None and code < 0:
            ending = f"was killed by {signal.Signals(-code).name}; a system does so when memory is short"
        else:
            ending = f"ended with exit status {code}, and nobody told it to"
        return LostWorkerError(f"its process {ending}.")


def _error(raised: Raised) -> BaseException:
    """The exception, with the stack that it had over there as a note."""
    try:
        error: BaseException = pickle.loads(raised.error)
    except Exception:  # whatever a user's exception raises when it is made anew
        error = WorkerProcessError(raised.told)
    error.add_note(raised.stack)
    return error
