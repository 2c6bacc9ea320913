"""Puts a robot on the network, for one client at a time, and stops it when that client falls silent."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from zmq.auth.thread import ThreadAuthenticator

from mbrl_async.robot.interface import (
    Limits,
    RealArray,
    Robot,
    RobotError,
    RobotLostError,
    allowed_torques,
    require_posture,
)
from mbrl_async.robot.keys import ADMITTED, SERVER, key_pair, require_admitted
from mbrl_async.robot.messages import (
    LARGEST_MESSAGE,
    VERSION,
    Description,
    MessageError,
    Reply,
    Request,
    Sensors,
    decoded,
    encoded,
)

POLL_MILLISECONDS = 20
MOVE_PATIENCE_SECONDS = 1.0
"""A client that waits for a move asks how it goes, but no more often than it needs to: this silence is allowed."""
NOBODY = b""
"""The name of no client."""

logger = logging.getLogger(__name__)


class _GivenUp(Exception):  # noqa: N818  (it is no error)
    """A move was given up."""


class RobotServer:
    """Answers requests until it is told to end; then, and whenever anything goes wrong, the robot is stopped.

    Args:
        robot: any; the server's own.
        scene: what it is called; clients that expect another one are told.
        address: where to listen, such as tcp://127.0.0.1:5555.
        keys: the folder with the server's keys and those of admitted clients.
        watchdog_periods: control periods without a torque after which the robot is stopped.

    Raises:
        RobotError: there are no keys, nobody is admitted, or the address cannot be listened at.
    """

    def __init__(self, *, robot: Robot, scene: str, address: str, keys: Path, watchdog_periods: int) -> None:
        public, secret = key_pair(keys / f"{SERVER}.key_secret")
        require_admitted(keys / ADMITTED)
        self._robot = robot
        self._limits: Limits = robot.limits()
        self._description = Description.of(scene, robot.control_period, self._limits)
        self._patience = watchdog_periods * robot.control_period
        self._session = uuid.uuid4().hex
        self._driver = NOBODY  # who may send torques: the client that reset last
        self._heard_at = 0.0  # when the driver said something last
        self._move_patience = max(self._patience, MOVE_PATIENCE_SECONDS)
        self._newest = -1  # the number of the driver's newest request that moved the robot
        self._torques_at: float | None = None  # when torques came last, while some act
        self._mover: threading.Thread | None = None
        self._giving_up = threading.Event()
        self._trouble: RobotError | None = None  # why the last move failed
        self._context = zmq.Context()
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve(domain="*", location=str(keys / ADMITTED))
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.curve_server = True
        self._socket.curve_publickey, self._socket.curve_secretkey = public, secret
        self._socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_MESSAGE)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a client that connects again is the same client
        self._listen(address)

    def run(self, ended: Callable[[], bool]) -> None:
        """Serve until `ended()`; the robot is stopped and closed then, whatever ends it."""
        try:
            while not ended():
                if self._socket.poll(POLL_MILLISECONDS):
                    self._answer(self._socket.recv_multipart())
                self._watch()
        finally:
            self._give_up_move()
            self._robot.stop()
            self._robot.close()
            self._socket.close()
            self._authenticator.stop()
            self._context.term()

    def _listen(self, address: str) -> None:
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._socket.close()
            self._authenticator.stop()
            self._context.term()
            raise RobotError(f"address={address} cannot be listened at ({error}): name a free one.") from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        """Where it listens."""

    def _answer(self, frames: list[bytes]) -> None:
        client, received = frames[0], frames[-1]
        try:
            if len(frames) != 2:
                raise MessageError(f"unreadable message: {len(frames) - 1} parts")
            request = decoded(Request, received)
        except MessageError as error:
            reply = Reply(version=VERSION, sequence=-1, session=self._session, refused=str(error))
        else:
            reply = self._served(client, request)
        if reply.refused is not None:
            logger.warning("A request was refused: %s", reply.refused)
        self._socket.send_multipart([client, encoded(reply)])

    def _served(self, client: bytes, request: Request) -> Reply:
        content: dict[str, Any] = {}
        if client == self._driver:
            self._heard_at = time.monotonic()
        try:
            content = self._do(client, request)
        except (RobotError, ValueError) as error:
            content = {"refused": str(error), "lost": isinstance(error, RobotLostError)}
        except Exception as error:
            self._halt()
            logger.exception("The robot failed, and was stopped.")
            content = {"refused": f"the robot failed, and was stopped: {error}"}
        return Reply(
            version=VERSION, sequence=request.sequence, session=self._session, moving=self._is_moving(), **content
        )

    def _do(self, client: bytes, request: Request) -> dict[str, Any]:
        if request.command == "describe":
            return {"description": self._description}
        if request.command == "stop":
            self._stop(client)
        elif request.command == "reset":
            self._reset(client, request)
        elif request.command == "torques":
            self._send(client, request)
        elif self._trouble is not None:
            raise self._trouble
        return {"sensors": Sensors.of(self._robot.state())}

    def _reset(self, client: bytes, request: Request) -> None:
        silent = time.monotonic() - self._heard_at > self._patience
        if self._driver not in (NOBODY, client) and not silent:
            raise RobotError("another client drives the robot: wait until it has finished.")
        posture = np.array(request.values)
        require_posture(posture, self._limits)
        self._halt()
        self._driver, self._newest, self._trouble = client, request.sequence, None
        self._heard_at = time.monotonic()
        self._giving_up.clear()
        self._mover = threading.Thread(target=self._move, args=(posture,), name="move", daemon=True)
        self._mover.start()

    def _stop(self, client: bytes) -> None:
        """Anybody who has a key may stop the robot, which stays so until somebody resets it."""
        self._halt()
        if self._driver not in (NOBODY, client):
            self._trouble = RobotError("another client stopped the robot: see why, and start again.")
        self._driver = NOBODY

    def _send(self, client: bytes, request: Request) -> None:
        if client != self._driver:
            raise self._trouble or RobotError("only the client that reset the robot may drive it: reset it first.")
        if request.sequence <= self._newest:
            raise RobotError(f"request {request.sequence} came after request {self._newest}: it is too late.")
        if self._is_moving():
            raise RobotError("the robot still moves to its start: wait for that.")
        try:
            torques = allowed_torques(np.array(request.values), self._robot.state().positions, self._limits)
        except ValueError:
            self._halt()
            raise
        self._robot.send(torques)
        self._newest = request.sequence
        self._torques_at = time.monotonic()

    def _move(self, posture: RealArray) -> None:
        def check() -> None:
            if self._giving_up.is_set():
                raise _GivenUp

        try:
            self._robot.reset(posture, check)
        except _GivenUp:
            self._robot.stop()
        except Exception as error:
            self._trouble = RobotError(f"the robot did not get to its start: {error}")
            self._robot.stop()

    def _watch(self) -> None:
        """Stop a robot whose client says nothing."""
        now = time.monotonic()
        if self._torques_at is not None and now - self._torques_at > self._patience:
            logger.warning("No torques came for %.1f s: the robot is stopped.", self._patience)
            self._halt()
        elif self._is_moving() and now - self._heard_at > self._move_patience:
            self._trouble = RobotLostError(
                f"the move was ended, for its client was silent for {self._move_patience:.1f} s."
            )
            logger.warning("The robot is stopped: %s", self._trouble)
            self._halt()

    def _halt(self) -> None:
        self._give_up_move()
        self._robot.stop()
        self._torques_at = None

    def _give_up_move(self) -> None:
        self._giving_up.set()
        if self._mover is not None:
            self._mover.join()

    def _is_moving(self) -> bool:
        return self._mover is not None and self._mover.is_alive()
