"""How a run ends: by its stop rule, by a person, or by a failure. Every wait in a run is a wait for this, too."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import FrameType
from typing import Annotated, Protocol

from pydantic import Field

from mbrl_async.runtime.trace import Counters
from mbrl_async.types import Interrupted


class Ending(Enum):
    """Why a run ended; the values complete the sentence 'The run …'."""

    FINISHED = "reached its stop rule"
    KILLED = "was interrupted"
    FAILED = "failed"


@dataclass(frozen=True)
class StopRule:
    """The run ends when one of these is reached; they count the real system's work, never learner steps.

    Raises:
        ValueError: none of the three is given.
    """

    trajectories: Annotated[int, Field(gt=0)] | None
    env_steps: Annotated[int, Field(gt=0)] | None
    seconds: Annotated[float, Field(gt=0)] | None

    def __post_init__(self) -> None:
        if self.trajectories is None and self.env_steps is None and self.seconds is None:
            raise ValueError(
                "stop.trajectories=null, stop.env_steps=null and stop.seconds=null would run for ever: "
                "set one of them, for instance stop.trajectories=60."
            )

    def reached(self, counters: Counters) -> bool:
        """Whether one of the limits is reached."""
        return bool(self._reached(counters))

    def ended_by(self, counters: Counters) -> dict[str, int | float]:
        """Name of each limit that ended a run which came so far -> how far it came in this unit."""
        reached = self._reached(counters)
        if not reached and self.seconds is not None:  # the last step that counted was over before them
            return {"seconds": self.seconds}
        return reached

    def _reached(self, counters: Counters) -> dict[str, int | float]:
        limits = {"trajectories": self.trajectories, "env_steps": self.env_steps, "seconds": self.seconds}
        come: dict[str, int | float] = {name: getattr(counters, name) for name in limits}
        return {name: come[name] for name, limit in limits.items() if limit is not None and come[name] >= limit}


class Stop(Protocol):
    """What a clock needs to know of the end."""

    def check(self) -> None:
        """Raise `Interrupted` if the run is over."""

    def wait(self, timeout: float) -> None:
        """Wait for the end, at most `timeout` seconds."""


class StopSignal:
    """Tells every worker that the run is over. The first reason counts."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._ending: Ending | None = None

        self._interrupted = False

    def request(self, ending: Ending) -> None:
        """End the run."""
        with self._lock:
            if self._ending is None:
                self._ending = ending
        self._event.set()

    def interrupt(self) -> None:
        """End the run from a signal handler: takes no lock, because the interrupted thread may hold it."""
        self._interrupted = True

    @property
    def interrupted(self) -> bool:
        """Whether a signal came, be it before the end or after."""
        return self._interrupted

    @property
    def ending(self) -> Ending | None:
        """Why the run is over; None while it goes on."""
        if self._interrupted:
            self.request(Ending.KILLED)
        return self._ending

    def check(self) -> None:
        """Raise `Interrupted` if the run is over."""
        if self._interrupted or self._event.is_set():
            raise Interrupted

    def wait(self, timeout: float) -> None:
        """Wait for the end, at most `timeout` seconds."""
        self._event.wait(timeout)


@contextmanager
def stop_on_signals(stop: StopSignal) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the run in order; a second one ends the process at once.

    Python delivers signals to the main thread alone: in any other thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.interrupt()
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in previous:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
