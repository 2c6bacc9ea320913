"""How the jobs of a sweep ended, in a file a job: jobs may run in other processes, and before MLflow is reached."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

OUTCOMES = "outcomes"
"""The folder, in the sweep's, of a file for each job: jobs' own folders are where `hydra.sweep.subdir` says."""

JobStatus = Literal["finished", "skipped", "failed", "refused", "interrupted"]
"""`skipped`: it was finished before; `refused`: its configuration cannot be used, nothing was started."""

SUCCESSES = ("finished", "skipped")


@dataclass(frozen=True)
class Outcome:
    """How one job ended."""

    job: int
    """Its number in the sweep, from 0; also the name of its file."""
    overrides: Sequence[str]
    status: JobStatus
    reason: str = ""
    """Why, if it was no success."""

    def write(self, sweep_directory: Path) -> None:
        """Into the sweep's folder."""
        directory = sweep_directory / OUTCOMES
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{self.job}.json").write_text(json.dumps(asdict(self), indent=2) + "\n")


def read_outcomes(sweep_directory: Path) -> list[Outcome]:
    """Of all jobs that have ended so far, in the order of their numbers."""
    files = (sweep_directory / OUTCOMES).glob("*.json")
    return sorted((Outcome(**json.loads(file.read_text())) for file in files), key=lambda outcome: outcome.job)


def forget_outcomes(sweep_directory: Path) -> None:
    """Before a sweep is started again."""
    for file in (sweep_directory / OUTCOMES).glob("*.json"):
        file.unlink()


def print_outcomes(outcomes: Sequence[Outcome], console: Console) -> None:
    """Counts in a line, then everything that was no success, and why; of the overrides those that differ."""
    counts = Counter(outcome.status for outcome in outcomes)
    console.print(f"\nsweep: {', '.join(f'{count} {status}' for status, count in counts.items()) or 'no job ended'}.")
    failures = [outcome for outcome in outcomes if outcome.status not in SUCCESSES]
    if not failures:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("job", "status", "overrides", "why"):
        table.add_column(column, overflow="fold")
    shared = set.intersection(*(set(outcome.overrides) for outcome in outcomes)) if len(outcomes) > 1 else set()
    for outcome in failures:
        own = " ".join(override for override in outcome.overrides if override not in shared)
        table.add_row(str(outcome.job), outcome.status, Text(own), Text(outcome.reason))
    console.print(table)
