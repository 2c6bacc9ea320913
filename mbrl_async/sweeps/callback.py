"""What Hydra tells of a multirun: its begin and its end.

Hydra turns the exceptions of callbacks into warnings, but lets `SystemExit` pass: that is how a sweep is refused, and
how it ends with an exit status. Nothing heavy is imported before a sweep begins: single runs load this module, too.
"""

from __future__ import annotations

import logging
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

if TYPE_CHECKING:
    from rich.console import Console

    from mbrl_async.sweeps.record import Sweep
    from mbrl_async.tracking.run import Status

COMPARISON = "comparison"
"""The folder of the report, in that of the sweep."""

LOCK_FILE = ".lock"
"""In the sweep's folder; held while the sweep goes on."""


@dataclass(frozen=True)
class _Running:
    sweep: Sweep
    directory: Path
    lock: FileLock


log = logging.getLogger(__name__)

_running: list[_Running] = []
"""The sweep of this process, if one goes on. Not in the callback: Hydra sends that to the processes of the jobs."""


class RecordSweep(Callback):
    """Opens the sweep's parent run in MLflow, and ends it with a comparison and a table of what failed."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Begin, or refuse to. From now on SIGTERM ends the sweep as Ctrl-C does.

        Without that it would end this process alone, and jobs in processes of their own would go on without it.

        Raises:
            SystemExit: MLflow cannot be used as configured, or the sweep goes on already.
        """
        from mbrl_async.config import ConfigError, checked
        from mbrl_async.settings import SweepSettings
        from mbrl_async.sweeps.outcome import forget_outcomes
        from mbrl_async.sweeps.record import open_sweep
        from mbrl_async.tracking.store import TrackingError

        try:
            name = checked(SweepSettings, "sweep", dict(config.sweep)).name
            directory = Path(config.hydra.sweep.dir).absolute()
            lock = _lock(directory, name)
            sweep = open_sweep(name, config.tracking.uri, config.tracking.experiment)
        except (ConfigError, TrackingError) as error:
            raise _refusal(str(error)) from None
        _running.append(_Running(sweep, directory, lock))
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        forget_outcomes(directory)
        sweep.write(directory)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:  # noqa: ARG002  (Hydra names it)
        """End, and say how it went.

        Raises:
            SystemExit: some job failed or was refused.
        """
        from mbrl_async.sweeps.outcome import SUCCESSES, read_outcomes

        failed = [each for each in read_outcomes(_running[-1].directory) if each.status not in SUCCESSES]
        _end("FAILED" if failed else "FINISHED")
        if failed:
            raise SystemExit(1)


def end_unfinished_sweep(*, interrupted: bool) -> None:
    """Give a sweep that Hydra did not bring to its end the right status; nothing to do if there is none."""
    if _running:
        _end("KILLED" if interrupted else "FAILED")


def _end(status: Status) -> None:
    from rich.console import Console

    from mbrl_async.sweeps.outcome import print_outcomes, read_outcomes
    from mbrl_async.sweeps.record import close_sweep

    running = _running.pop()
    console = Console()
    try:
        close_sweep(running.sweep, status)
    except Exception as error:  # a store that is away must hide neither what failed nor the exit status
        log.warning("The sweep's run could not be ended in MLflow (%s: %s).", type(error).__name__, error)
    if status != "KILLED":
        _compare(running, console)
    print_outcomes(read_outcomes(running.directory), console)
    if status != "FINISHED":
        again = f"sweep.name={running.sweep.name}"
        console.print(f"Start it again with {again} to run what is not finished.", highlight=False, soft_wrap=True)
    running.lock.release()


def _compare(running: _Running, console: Console) -> None:
    """As `python -m mbrl_async.compare` would; a sweep that is over must not fail for its report."""
    from mbrl_async.analysis.comparison import NothingToCompareError
    from mbrl_async.commands import Tracking
    from mbrl_async.compare import compare_and_print, read_settings

    what = {
        "sweep": running.sweep.run_id,
        "tracking": Tracking(uri=running.sweep.uri),
        "output": str(running.directory / COMPARISON),
    }
    try:
        compare_and_print(read_settings([]).model_copy(update=what), console)
    except NothingToCompareError as error:
        console.print(str(error), highlight=False)
    except Exception as error:  # whatever drawing and databases raise
        log.warning("The sweep could not be compared (%s: %s).", type(error).__name__, error)


def _lock(directory: Path, name: str) -> FileLock:
    lock = FileLock(directory / LOCK_FILE)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise _refusal(f"sweep.name={name} goes on in another process: wait for it, or choose another name.") from None
    except OSError as error:
        raise _refusal(f"sweep.name={name}: {directory} cannot be written ({error}); choose another name.") from None
    return lock


def _refusal(sentence: str) -> SystemExit:
    import sys

    print(sentence, file=sys.stderr)  # noqa: T201
    return SystemExit(2)
