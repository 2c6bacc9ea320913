"""The runs of a comparison as one JSON file, so that another one can have them where their MLflow store is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from mbrl_async.analysis.curves import Curve
from mbrl_async.analysis.flags import COMPARED
from mbrl_async.analysis.objectives import RETURN
from mbrl_async.analysis.series import ComparedRun

NAMING_TAGS = ("env", "algorithm", "schedule", "backend", "seed")
KEPT_TAGS = {*NAMING_TAGS, *(name for kind, name in COMPARED.values() if kind == "tag"), "git_dirty"}
"""What series are named by, and flags compare; the others name places and people."""

LEFT_OUT = ("tracking.", "sweep.", "checkpoint.", "resume")
"""Beginnings of parameters that say where something lies, not what is learned: among those that make no series."""


class UnreadableRunsError(Exception):
    """A file of runs cannot be used; the message is for the user."""


class KeptCurve(BaseModel):
    """A `Curve` in JSON."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    env_steps: list[int]
    seconds: list[float]
    values: list[float]

    @model_validator(mode="after")
    def _equally_long(self) -> KeptCurve:
        if not 0 < len(self.values) == len(self.env_steps) == len(self.seconds):
            raise ValueError("env_steps, seconds and values should be equally long, and not empty")
        return self


class KeptRun(BaseModel):
    """A `ComparedRun` in JSON."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    run_id: str
    started: int
    tags: dict[str, str]
    parameters: dict[str, str]
    curves: dict[str, KeptCurve]
    measures: dict[str, float]

    @model_validator(mode="after")
    def _comparable(self) -> KeptRun:
        missing = [*({*NAMING_TAGS} - self.tags.keys()), *({RETURN.metric} - self.curves.keys())]
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} should be there")
        if not self.tags["seed"].isdecimal():
            raise ValueError(f"the seed {self.tags['seed']} should be a number")
        return self


_RUNS = TypeAdapter(Annotated[list[KeptRun], Field(min_length=1)])


def write_runs(runs: Iterable[ComparedRun], path: Path) -> None:
    """Write what `read_runs` needs; numbers are rounded to a millisecond and to six digits."""
    path.write_bytes(_RUNS.dump_json([_kept(run) for run in runs]) + b"\n")


def read_runs(path: Path) -> Sequence[ComparedRun]:
    """What `write_runs` wrote.

    Raises:
        UnreadableRunsError: the file is not there, or is none of these.
    """
    try:
        return [_compared(run) for run in _RUNS.validate_json(path.read_bytes())]
    except OSError as error:
        reason = f"{path} cannot be read ({error.strerror}): give the runs.json of a comparison."
        raise UnreadableRunsError(reason) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the beginning"
        raise UnreadableRunsError(f"{path} is no runs.json of a comparison: at {where}: {first['msg']}.") from error


def _kept(run: ComparedRun) -> KeptRun:
    return KeptRun(
        run_id=run.run_id,
        started=run.started,
        tags={name: run.tags[name] for name in sorted(KEPT_TAGS) if name in run.tags},
        parameters={name: value for name, value in run.parameters.items() if not name.startswith(LEFT_OUT)},
        curves={name: _kept_curve(curve) for name, curve in run.curves.items()},
        measures={name: _rounded(value) for name, value in run.measures.items()},
    )


def _kept_curve(curve: Curve) -> KeptCurve:
    return KeptCurve(
        env_steps=[int(each) for each in curve.env_steps],
        seconds=[round(float(each), 3) for each in curve.seconds],
        values=[_rounded(each) for each in curve.values],
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _compared(run: KeptRun) -> ComparedRun:
    curves = {
        name: Curve(*(np.array(each, dtype=np.float64) for each in (curve.env_steps, curve.seconds, curve.values)))
        for name, curve in run.curves.items()
    }
    return ComparedRun(run.run_id, run.started, run.tags, run.parameters, curves, run.measures)
