"""What a robot's client and its server say to each other: JSON, checked before anything is done with it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from mbrl_async.robot.interface import Limits, RealArray, RobotState

VERSION = 2
"""Of the messages; both sides must have the same."""
LARGEST_MESSAGE = 8192
"""Bytes; the transport drops the connection of who sends more."""
_MOST_VALUES = 64

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
_Values = Annotated[list[float], Field(max_length=_MOST_VALUES)]

Command = Literal["describe", "reset", "torques", "state", "stop"]


class MessageError(ValueError):
    """What came is no message that the other side can have meant."""


class Request(BaseModel):
    """What a client asks for; `values` are joint angles of a reset, or torques."""

    model_config = _STRICT
    version: int
    sequence: NonNegativeInt
    """Grows with every request of a client; torques that are not newer than the last are refused."""
    command: Command
    values: _Values = []


class Description(BaseModel):
    """What robot it is."""

    model_config = _STRICT
    scene: str
    control_period: float
    torques: _Values
    lower: Annotated[list[float | None], Field(max_length=_MOST_VALUES)]
    """None: the joint turns freely."""
    upper: Annotated[list[float | None], Field(max_length=_MOST_VALUES)]

    @classmethod
    def of(cls, scene: str, control_period: float, limits: Limits) -> Description:
        """Of a robot with these limits."""
        lower, upper = (
            [float(angle) if np.isfinite(angle) else None for angle in each] for each in (limits.lower, limits.upper)
        )
        torques = limits.torques.tolist()
        return cls(scene=scene, control_period=control_period, torques=torques, lower=lower, upper=upper)

    def limits(self) -> Limits:
        """What the robot can be asked for."""
        return Limits(np.array(self.torques), _angles(self.lower, -np.inf), _angles(self.upper, np.inf))


class Sensors(BaseModel):
    """A robot's state."""

    model_config = _STRICT
    positions: _Values
    velocities: _Values
    points: Annotated[list[_Values], Field(max_length=_MOST_VALUES)]

    @classmethod
    def of(cls, state: RobotState) -> Sensors:
        """To be sent."""
        return cls(
            positions=state.positions.tolist(), velocities=state.velocities.tolist(), points=state.points.tolist()
        )

    def state(self) -> RobotState:
        """As received."""
        return RobotState(np.array(self.positions), np.array(self.velocities), np.array(self.points))


class Reply(BaseModel):
    """The answer to the request with the same number."""

    model_config = _STRICT
    version: int
    sequence: int
    session: str
    """Of the server since it started: who hears another one talks to a robot that was started again."""
    refused: str | None = None
    """Why nothing was done."""
    lost: bool = False
    """Whether the episode is over for this reason, but another one may begin."""
    moving: bool = False
    """Whether a reset goes on."""
    sensors: Sensors | None = None
    description: Description | None = None


Message = TypeVar("Message", Request, Reply)


def encoded(message: Request | Reply) -> bytes:
    """As it is sent."""
    return message.model_dump_json(exclude_none=True).encode()


def decoded(model: type[Message], received: bytes) -> Message:
    """As it was meant.

    Raises:
        MessageError: it cannot be one, or is of another version.
    """
    try:
        message = model.model_validate_json(received)
    except ValidationError as error:
        first = error.errors()[0]
        raise MessageError(f"unreadable message: {first['msg']} at {first['loc']}") from None
    if message.version != VERSION:
        raise MessageError(f"version {message.version} of the messages is spoken there, {VERSION} here: update one.")
    return message


def _angles(given: list[float | None], free: float) -> RealArray:
    return np.array([free if angle is None else angle for angle in given])
