"""What keeping a run costs: copying the largest state, writing a snapshot, adding a trajectory to the journal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.measurement import Measurement, median_seconds, torch_threads
from benchmarks.program_settings import settings
from mbrl_async.checkpoint.codec import encode
from mbrl_async.checkpoint.journal import Journal
from mbrl_async.checkpoint.snapshots import SavedSnapshot, SnapshotFolder
from mbrl_async.experiment import Experiment, build_experiment
from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.recovery import Snapshot
from mbrl_async.runtime.schedule import COLLECT, LEARN_MODEL
from mbrl_async.runtime.stop import StopSignal
from mbrl_async.runtime.worker import Worker
from mbrl_async.types import INPUTS

TRAJECTORIES = 50
"""They fill the buffer of 10 000 transitions."""


def measure(repetitions: int) -> list[Measurement]:
    """Of the default experiment, HalfCheetah, with a full buffer."""
    experiment = build_experiment(settings())
    workers = _workers_with_data(experiment)
    learner, collector = workers[LEARN_MODEL], workers[COLLECT]
    states = {name: worker.state_dict() for name, worker in workers.items()}
    saved = SavedSnapshot(Snapshot(TRAJECTORIES, states, {}), experiment.channels.state_dict())
    with TemporaryDirectory() as name, torch_threads(1):
        folder, journal = SnapshotFolder(Path(name) / "snapshots", keep=2), Journal(Path(name) / "journal")

        def append() -> None:
            journal.append(encode({key: value for key, value in collector.state_dict().items() if key != INPUTS}))

        copy, write, entry = median_seconds(repetitions, learner.state_dict, lambda: folder.save(saved), append)
        stops = [longest_stop(lambda: folder.save(saved)) for _ in range(repetitions)]
        journal.close()
    return [
        Measurement("a snapshot: copy the model learner's state, in its thread", 1000 * copy, "ms", 1),
        Measurement("a snapshot: write it, in the background", 1000 * write, "ms", 1),
        Measurement(
            "a snapshot: the longest that writing it keeps another thread waiting", 1000 * median(stops), "ms", 1
        ),
        Measurement("the journal: add a trajectory, between two of them", 1000 * entry, "ms", 1),
    ]


def longest_stop(action: Callable[[], object]) -> float:
    """Seconds that a thread which wakes every millisecond wakes too late, at most, while this one does the action."""
    over, latest = threading.Event(), [0.0]

    def watch() -> None:
        due = time.perf_counter()
        while not over.is_set():
            due = max(due, time.perf_counter()) + 0.001
            time.sleep(max(0.0, due - time.perf_counter()))
            latest[0] = max(latest[0], time.perf_counter() - due)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        action()
    finally:
        over.set()
        watcher.join()
    return latest[0]


def _workers_with_data(experiment: Experiment) -> dict[str, Worker]:
    """All workers, after the trajectories and one epoch."""
    clock = VirtualClock(StopSignal())
    workers = {name: make(clock) for name, make in experiment.makers.items()}
    for _ in range(TRAJECTORIES):
        _step(workers[COLLECT])
    _step(workers[LEARN_MODEL])
    return workers


def _step(worker: Worker) -> None:
    worker.pull()
    worker.step()
    worker.push()
