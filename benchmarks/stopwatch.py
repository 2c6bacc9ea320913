"""Processor time of functions and threads."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Stopwatch:
    """Adds up the processor time of what it is told to time; what is timed within something else counts only there."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        """Label -> processor time in all threads together."""
        self.threads: dict[str, float] = {}
        """Name of a thread -> its processor time when it last ended something that is timed."""
        self._lock = threading.Lock()
        self._inner = threading.local()

    def timed(self, label: str, function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        """The function, whose processor time is added to that of the label."""

        @wraps(function)
        def run(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
            outside, self._inner.seconds = getattr(self._inner, "seconds", 0.0), 0.0
            began = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                ended = time.thread_time()
                self._add(label, ended - began - self._inner.seconds, ended)
                self._inner.seconds = outside + ended - began

        return run

    def _add(self, label: str, seconds: float, ended: float) -> None:
        with self._lock:
            self.seconds[label] += seconds
            self.threads[threading.current_thread().name] = ended


def processor_seconds(thread: threading.Thread) -> float:
    """What a living thread has used so far (Linux)."""
    assert thread.ident is not None, "it was started"
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
