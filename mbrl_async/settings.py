"""What the settings of a run may be, besides those of its components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

STRICT = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, frozen=True, allow_inf_nan=False)


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[str, BeforeValidator(_as_text)]
"""What a command line gives as a number may be a name, such as a year."""


class Pace(BaseModel):
    """How fast the real system's time passes."""

    model_config = STRICT
    factor: NonNegativeFloat


Device = Literal["cpu", "cuda"]


class Devices(BaseModel):
    """Where each worker computes, and all of several collectors; a policy acts on the CPU whatever they have."""

    model_config = STRICT
    collect: Device
    learn_model: Device
    improve_policy: Device


class TorchThreads(BaseModel):
    """Threads within one operation of torch, for each worker, and each of several collectors."""

    model_config = STRICT
    collect: PositiveInt
    learn_model: PositiveInt
    improve_policy: PositiveInt


class Checkpoint(BaseModel):
    """When a snapshot of the whole run is made, and how many are kept."""

    model_config = STRICT
    every_trajectories: PositiveInt | None
    every_seconds: PositiveFloat | None
    keep: PositiveInt


class Tracking(BaseModel):
    """Where the run is recorded."""

    model_config = STRICT
    uri: str
    experiment: str


class SweepSettings(BaseModel):
    """Several runs as one."""

    model_config = STRICT
    name: Annotated[Name, Field(pattern=r"^\w[\w.:+-]*(/\w[\w.:+-]*)*$")]
    """Of its folder below `multirun/`, and of its run in MLflow."""


class ReplaySettings(BaseModel):
    """Which recorded run is executed again, and how."""

    model_config = STRICT
    run_id: str
    trace: str
    until: int | str | None
    trajectories: Literal["auto", "simulated", "recorded"]
    environment: Literal["same", "any"]


class Settings(BaseModel):
    """The settings of a run, besides those of its components."""

    model_config = STRICT
    seed: NonNegativeInt
    collectors: PositiveInt = 1  # a run that was recorded before there could be several does not say it
    device: Device
    devices: Devices
    pace: Pace
    torch_threads: TorchThreads
    matmul_precision: Literal["highest", "high", "medium"]
    tracking: Tracking
    sweep: SweepSettings
    checkpoint: Checkpoint
    resume: str | None
    # Numbers that the schedule refers to, and the costs that the simulated backend refers to: checked there.
    iteration: dict[str, PositiveInt] = {}
    simulated: dict[str, Any] = {}
    replay: ReplaySettings | None = None
    # Components: checked against the signature of their _target_.
    env: dict[str, Any]
    dynamics: dict[str, Any]
    policy: dict[str, Any]
    algorithm: dict[str, Any]
    schedule: dict[str, Any]
    backend: dict[str, Any]
    stop: dict[str, Any]

    @property
    def computes_on(self) -> Device:
        """See `devices_of`."""
        return devices_of(self.devices.model_dump())


def devices_of(devices: Mapping[str, Device]) -> Device:
    """The one that decides what a run can be compared with: a GPU if any worker has one."""
    return "cuda" if "cuda" in devices.values() else "cpu"
