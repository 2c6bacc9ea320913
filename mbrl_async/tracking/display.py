"""What a person sees of a run: a live screen in a terminal, plain lines elsewhere, and a summary at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

from mbrl_async.runtime.trace import Counters, StepRecord
from mbrl_async.tracking.progress import Limits, Progress, RemainingTime
from mbrl_async.tracking.views import live_view, plain_line, summary_view
from mbrl_async.types import Metrics

FRAMES_PER_SECOND = 1
"""Drawing one takes some 5 ms of Python, in which a control step may have to wait."""

LINE_SECONDS = 5.0
"""Least time between two plain lines."""

LAST_LINE_SECONDS = 0.2
"""Longest wait for an output that does not take the last line."""


class Display:
    """Shows a run while it goes on; a context manager, and an `Observer` that another thread draws.

    Args:
        title: what runs.
        trajectories: where the stop rule ends the run, like `env_steps` and `seconds`. None: no such limit.
        env_steps: see `trajectories`.
        seconds: see `trajectories`.
        console: where to; the standard output if None.
        now: seconds, for the time that is left.
    """

    def __init__(
        self,
        *,
        title: str,
        trajectories: int | None,
        env_steps: int | None,
        seconds: float | None,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._limits = Limits(trajectories, env_steps, seconds)
        self._console = console or Console()
        self._now = now
        self._progress = Progress()
        self._remaining = RemainingTime(now)
        self._screen = self._make_screen()

    def __enter__(self) -> Self:
        done = self._limits.share_done(self._progress.snapshot().counters)  # before a resumption
        self._remaining = RemainingTime(self._now, done)
        self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._screen.stop()

    def on_step(self, record: StepRecord, metrics: Metrics, counters: Counters) -> None:
        """Remember the newest numbers."""
        self._progress.on_step(record, metrics, counters)

    def summary(self, *, ending: str, figures: Sequence[Path], run_id: str, user_interface: str, page: str) -> None:
        """Print how the run ended and what came out.

        Args:
            ending: completes the sentence "The run ...".
            figures: the files that were drawn.
            run_id: MLflow's, by which other commands name the run.
            user_interface: the command that opens MLflow's pages, from `mbrl_async.tracking.store.user_interface`.
            page: the one of them to begin with, from `mbrl_async.tracking.store.charts_page`.
        """
        self._console.print(summary_view(self._title, ending, self._progress.snapshot(), figures))
        for line in (f"run id:     {run_id}", f"all curves: {user_interface}", f"shown at:   {page}"):
            # In one line, however long, because it is there to be copied.
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _make_screen(self) -> Live | PlainLines:
        if self._console.is_terminal:
            return Live(console=self._console, get_renderable=self._draw, refresh_per_second=FRAMES_PER_SECOND)
        return PlainLines(self._console, self._line)

    def _draw(self) -> RenderableType:
        snapshot = self._progress.snapshot()
        self._remaining.update(self._limits.share_done(snapshot.counters))
        return live_view(self._title, snapshot, self._limits, self._remaining.seconds())

    def _line(self) -> str:
        snapshot = self._progress.snapshot()
        return plain_line(snapshot, self._limits) if snapshot.returns else ""


class PlainLines:
    """Prints a line when it has changed, from a thread of its own, because an output may block.

    Args:
        console: where to.
        line: what to print now; an empty text is not printed.
        interval: least seconds between two lines.
    """

    def __init__(self, console: Console, line: Callable[[], str], interval: float = LINE_SECONDS) -> None:
        self._console = console
        self._line = line
        self._interval = interval
        self._printed = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="plain lines", daemon=True)

    def start(self) -> None:
        """Begin to print."""
        self._thread.start()

    def stop(self) -> None:
        """Print the last line and end."""
        self._stopping.set()
        self._thread.join(LAST_LINE_SECONDS)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self._print_news()
        self._print_news()

    def _print_news(self) -> None:
        line = self._line()
        if line and line != self._printed:
            self._printed = line
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
