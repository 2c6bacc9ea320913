"""Kill a run again and again and count what is lost: `python -m tests.soak` (50 times), `--kills 5 --seed 3`.

In pieces: `--folder FOLDER --seconds 150` stops in time, and goes on there if it is started again.

A small asynchronous run, on threads or with `--backend processes`, is killed with SIGKILL at random moments and resumed
each time. The task itself witnesses in a file of its own which trajectories it began; everything but the one in flight
has to be in the journal. At the end, the run has to be a whole one: trace, trajectories and curves without a gap, a
jump or a repetition.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient

from mbrl_async.checkpoint.codec import decode
from mbrl_async.checkpoint.journal import entries
from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.job import Job, run_job
from mbrl_async.results import read_trajectories
from mbrl_async.resume import resumed
from mbrl_async.run_folder import CHECKPOINT
from mbrl_async.runtime.schedule import COLLECT, WORKERS
from mbrl_async.runtime.trace import read_trace
from mbrl_async.types import FloatArray
from tests.small import SMALL, composed

CHOICES = {"env": "linear_quadratic", "algorithm": "me_trpo", "schedule": "async"}
TASK = "env._target_=tests.soak.WitnessedTask"
HORIZON = 20
LONGEST_LIFE = 3.0
"""Seconds from the first new step of a process to its death, at most."""
PRELOADED = ["mbrl_async.resume", "tests.small"]
"""What all processes need, imported once."""
PATIENCE = 120.0
"""Seconds for a process to do its first new step."""


class WitnessedTask(LinearQuadratic):
    """Writes a line whenever a trajectory begins: at its first step, because whoever imagines only resets."""

    def __init__(self, *, horizon: int, control_period: float, witness: str) -> None:
        super().__init__(horizon=horizon, control_period=control_period)
        self._witness = witness
        self._begun = False

    def reset(self, generator: object) -> FloatArray:
        self._begun = False
        return super().reset(generator)  # type: ignore[arg-type]

    def step(self, action: FloatArray) -> tuple[FloatArray, float]:
        if not self._begun:
            self._begun = True
            with Path(self._witness).open("a") as file:
                file.write("begun\n")
        return super().step(action)


def overrides(directory: Path, backend: str) -> list[str]:
    return [
        *(override for override in SMALL if not override.startswith("stop.")),
        TASK,
        f"+env.witness={directory / 'witness'}",
        *(f"backend={backend}", "pace.factor=0.2", "stop.trajectories=1000000"),
        *("checkpoint.every_trajectories=3", f"tracking.uri=sqlite:///{directory / 'mlflow.db'}"),
    ]


def live(directory: Path, backend: str, changes: list[str]) -> None:
    """One process: the first one starts the run, every other one resumes it."""
    output = directory / "run"
    if (output / CHECKPOINT / "run.json").exists():
        arguments = [f"resume={output}", TASK, *changes]  # the task is not this program's: it has to be said again
        run_job(resumed(Job(composed(*arguments), arguments, {}, output)))
    else:
        arguments = overrides(directory, backend)
        run_job(Job(composed(*arguments), arguments, {**CHOICES, "backend": backend}, output))


def journaled(directory: Path) -> int:
    """Trajectories in the journal."""
    journal = directory / "run" / CHECKPOINT / "journal"
    if not journal.exists():
        return 0
    return sum(decode(entry)["record"]["worker"] == COLLECT for entry in entries(journal))


def witnessed(directory: Path) -> int:
    """Trajectories that were begun."""
    witness = directory / "witness"
    return len(witness.read_text().splitlines()) if witness.exists() else 0


def kill_once(directory: Path, backend: str, chance: random.Random) -> int:
    """Run a process until a random moment; returns how many trajectories its death lost, the one in flight aside."""
    context = multiprocessing.get_context("forkserver")
    kept, begun = journaled(directory), witnessed(directory)
    process = context.Process(target=live, args=(directory, backend, []))
    process.start()
    deadline = time.monotonic() + PATIENCE
    while witnessed(directory) == begun:
        if not process.is_alive() or time.monotonic() > deadline:
            raise SystemExit(f"The run did not go on (exit status {process.exitcode}).")
        time.sleep(0.02)
    time.sleep(chance.uniform(0.0, LONGEST_LIFE))
    process.kill()
    process.join()
    return max(0, witnessed(directory) - begun - 1 - (journaled(directory) - kept))


def check_whole(directory: Path) -> None:
    """The finished run has every step once, in order."""
    output = directory / "run"
    trace, trajectories = read_trace(output / "trace.jsonl"), read_trajectories(output / "trajectories.safetensors")
    for worker in WORKERS:
        indices = [record.index for record in trace if record.worker == worker]
        assert indices == list(range(1, len(indices) + 1)), f"the trace of {worker} has a gap or a repetition"
    finishes = [record.finish for record in trace]
    assert finishes == sorted(finishes), "the clock jumped back"
    steps = Counter(record.worker for record in trace)
    assert len(trajectories) == steps[COLLECT], "trajectories and trace differ"

    client = MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert run.info.status == "FINISHED"
    returns = client.get_metric_history(run.info.run_id, "collect/return")
    assert [metric.step for metric in returns] == [HORIZON * (n + 1) for n in range(steps[COLLECT])], "a curve has gaps"
    assert [metric.value for metric in returns] == [each.undiscounted_return for each in trajectories]
    assert all(a.timestamp <= b.timestamp for a, b in pairwise(returns)), "a curve jumps back"
    for name, worker in (("learn_model/epochs", "learn_model"), ("improve_policy/updates", "improve_policy")):
        values = sorted(metric.value for metric in client.get_metric_history(run.info.run_id, name))
        assert values == [float(n + 1) for n in range(steps[worker])], f"{name} has a gap or a repetition"


def losses(directory: Path) -> list[int]:
    """What each kill so far has lost."""
    tally = directory / "losses"
    return [int(line) for line in tally.read_text().splitlines()] if tally.exists() else []


def kill_until(directory: Path, backend: str, kills: int, seed: int, deadline: float) -> None:
    """Kill until there were so many kills, or no time for another; all random moments follow from the seed."""
    while (done := len(losses(directory))) < kills and time.monotonic() < deadline:
        lost = kill_once(directory, backend, random.Random(f"{seed} {done}"))
        with (directory / "losses").open("a") as tally:
            tally.write(f"{lost}\n")
        kept, total = journaled(directory), sum(losses(directory))
        print(f"kill {done + 1}: {kept} trajectories kept, {total} lost in all", flush=True)  # noqa: T201


@contextmanager
def kept_folder(given: Path | None) -> Iterator[Path]:
    """The given folder, or one that is removed at the end."""
    if given is None:
        with TemporaryDirectory() as name:
            yield Path(name)
    else:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Kill a run again and again.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=("threads", "processes"), default="threads")
    parser.add_argument("--folder", type=Path, help="where it is kept, to go on there; otherwise nothing is kept")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no other kill after so long")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    with kept_folder(arguments.folder) as directory:
        kill_until(directory, arguments.backend, arguments.kills, arguments.seed, deadline)
        killed, lost = len(losses(directory)), sum(losses(directory))
        if killed < arguments.kills:
            print(f"{killed} of {arguments.kills} kills: the same command goes on.")  # noqa: T201
            return 3
        live(directory, arguments.backend, [f"stop.trajectories={journaled(directory) + 3}"])
        check_whole(directory)
    print(f"{killed} kills (seed {arguments.seed}): {lost} trajectories lost; the run is whole.")  # noqa: T201
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
