"""A robot at the other end of a network, which may lose messages, delay them, or go away."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import zmq
from pydantic import NonNegativeFloat, PositiveFloat

from mbrl_async.robot.interface import Limits, RealArray, RealTime, RobotError, RobotLostError, RobotState
from mbrl_async.robot.keys import key_pair, public_key
from mbrl_async.robot.messages import (
    LARGEST_MESSAGE,
    VERSION,
    Command,
    Description,
    MessageError,
    Reply,
    Request,
    decoded,
    encoded,
)
from mbrl_async.types import PerCollector

ATTEMPTS = 3
"""How often the state is asked for before the robot counts as lost."""
HANDSHAKE_SECONDS = 1.0
"""How long a connection may take to be made: several times as long as a reply, before it is tried anew."""
POLL_SECONDS = 0.05
"""Between two questions whether a move is over, or whether a server is there again."""

logger = logging.getLogger(__name__)


class NetworkRobot(RealTime):
    """The client of a `RobotServer`. Nothing here waits longer than it says.

    Torques that are not confirmed within `timeout_seconds` are counted: the robot goes on with the last ones, until
    its watchdog stops it. A state that does not come loses the robot, as does a server that was started again: the
    episode is over, and the next reset looks for the robot for `reconnect_seconds`.

    Args:
        scene: what has to be around the robot; another one is refused.
        control_period: seconds between two torques, the robot's own.
        address: of the server.
        server_key: the file of its public key.
        client_key: the file of this client's secret key.
        timeout_seconds: how long a reply may take.
        move_seconds: how long a reset may take.
        reconnect_seconds: how long to look for the robot.
    """

    def __init__(
        self,
        *,
        scene: str,
        control_period: PositiveFloat,
        address: Annotated[str, PerCollector(distinct=True)],
        server_key: Annotated[str, PerCollector()],
        client_key: Annotated[str, PerCollector()],
        timeout_seconds: PositiveFloat,
        move_seconds: PositiveFloat,
        reconnect_seconds: NonNegativeFloat,
    ) -> None:
        self.control_period = control_period
        self.misses = 0
        self._scene = scene
        self._address = address
        self._server_key, self._client_key = Path(server_key), Path(client_key)
        self._timeout = timeout_seconds
        self._move_seconds = move_seconds
        self._reconnect_seconds = reconnect_seconds
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._connecting_since = 0.0
        self._drives = False  # has reset the robot
        self._identity = uuid.uuid4().bytes
        self._sequence = 0
        self._session: str | None = None  # of the server, since the last reset
        self._limits: Limits | None = None

    def limits(self) -> Limits:
        """See `Robot`."""
        if self._limits is None:
            self._find(lambda: None)
        assert self._limits is not None
        return self._limits

    def reset(self, posture: RealArray, check: Callable[[], None]) -> None:
        """See `Robot`."""
        self._find(check)
        try:
            self._told("reset", posture)
            self._drives = True
        except RobotLostError:
            self._drives = True  # it may have heard that, and move
            raise
        deadline = time.monotonic() + self._move_seconds
        while self._told("state").moving:
            check()
            if time.monotonic() > deadline:
                self.stop()
                raise RobotError(
                    f"The robot at {self._address} did not reach its start within {self._move_seconds:g} s: "
                    "look what is in its way, or give it more time (env.robot.move_seconds)."
                )
            time.sleep(POLL_SECONDS)

    def send(self, torques: RealArray) -> None:
        """See `Robot`."""
        if self._ask("torques", torques) is None:
            self.misses += 1

    def state(self) -> RobotState:
        """See `Robot`."""
        sensors = self._told("state").sensors
        if sensors is None:
            raise RobotLostError(f"The robot at {self._address} told no state.")
        return sensors.state()

    def stop(self) -> None:
        """See `Robot`; if nobody hears it, the server's watchdog stops the robot."""
        try:
            if self._socket is not None:
                self._ask("stop")
        except Exception as error:  # see `Robot.stop`
            logger.warning("The robot at %s did not confirm that it stopped: %s", self._address, error)

    def close(self) -> None:
        """See `Robot`. Who never drove it stops nobody else."""
        if self._drives:
            self.stop()
        self._disconnect()

    def _find(self, check: Callable[[], None]) -> None:
        """Talk to the server anew, unless it is the one from before, and see that it is the right one."""
        self._session = None
        deadline = time.monotonic() + self._reconnect_seconds
        while (reply := self._ask("describe")) is None:
            check()
            if time.monotonic() > deadline:
                raise RobotError(
                    f"No robot answers at {self._address}: start its server there (python -m mbrl_async.robot.serve), "
                    f"and see that it admits the key in {self._client_key}; or the way there is long, and replies take "
                    f"more than env.robot.timeout_seconds={self._timeout:g}."
                )
            if time.monotonic() - self._connecting_since > HANDSHAKE_SECONDS:
                self._disconnect()
            time.sleep(POLL_SECONDS)
        self._require_right(reply.description)
        self._session = reply.session

    def _require_right(self, description: Description | None) -> None:
        if description is None:
            raise RobotError(f"The robot at {self._address} does not say what it is.")
        found = (description.scene, description.control_period)
        if found != (self._scene, self.control_period):
            raise RobotError(
                f"The robot at {self._address} has scene {found[0]} and control period {found[1]:g} s, not "
                f"{self._scene} and {self.control_period:g} s: start its server with this env."
            )
        self._limits = description.limits()

    def _told(self, command: Command, values: RealArray | None = None) -> Reply:
        """The reply, asked for again and again.

        Raises:
            RobotLostError: there is none.
        """
        for _ in range(ATTEMPTS):
            reply = self._ask(command, values)
            if reply is not None:
                return reply
        raise RobotLostError(
            f"The robot at {self._address} did not answer {ATTEMPTS} times within {self._timeout:g} s each."
        )

    def _ask(self, command: Command, values: RealArray | None = None) -> Reply | None:
        """The reply, or None if there is none in time.

        Raises:
            RobotError: the robot refuses.
            RobotLostError: the server was started again since the last reset, or has given this client up.
        """
        self._sequence += 1
        sent = [] if values is None else values.tolist()
        try:
            request = Request(version=VERSION, sequence=self._sequence, command=command, values=sent)
        except ValueError as error:
            raise ValueError(f"{command} {values} cannot be sent: every value must be finite.") from error
        try:
            self._connected().send(encoded(request), zmq.NOBLOCK)
        except zmq.Again:  # nobody is connected
            time.sleep(min(self._timeout, POLL_SECONDS))
            return None
        reply = self._reply_to(self._sequence)
        if reply is not None:
            self._require_same_session(reply)
            if reply.refused is not None:
                refusal = RobotLostError if reply.lost else RobotError
                raise refusal(f"The robot at {self._address} refuses: {reply.refused}")
        return reply

    def _reply_to(self, sequence: int) -> Reply | None:
        """The reply of this number, if it comes in time; replies that come too late are passed over."""
        deadline = time.monotonic() + self._timeout
        socket = self._connected()
        while (remaining := deadline - time.monotonic()) > 0:
            if not socket.poll(int(1000 * remaining) + 1):
                continue
            try:
                reply = decoded(Reply, socket.recv())
            except MessageError as error:
                raise RobotError(f"The robot at {self._address} cannot be understood: {error}") from error
            if reply.sequence in (sequence, -1):  # -1: the server could not read the number
                return reply
        return None

    def _require_same_session(self, reply: Reply) -> None:
        if self._session is not None and reply.session != self._session:
            self._session = None
            raise RobotLostError(f"The robot at {self._address} was started again.")

    def _connected(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            self._context = self._context or zmq.Context()
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.curve_serverkey = public_key(self._server_key)
            self._socket.curve_publickey, self._socket.curve_secretkey = key_pair(self._client_key)
            self._socket.setsockopt(zmq.IDENTITY, self._identity)
            self._socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_MESSAGE)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.IMMEDIATE, 1)  # a torque that waits for a connection comes too late
            self._connect(self._socket)
            self._connecting_since = time.monotonic()
            self._socket.poll(int(1000 * self._timeout), zmq.POLLOUT)
        return self._socket

    def _connect(self, socket: zmq.Socket[bytes]) -> None:
        try:
            socket.connect(self._address)
        except zmq.ZMQError as error:
            self._disconnect()
            raise RobotError(
                f"env.robot.address={self._address} is no address ({error}): write tcp://HOST:PORT."
            ) from error

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._context is not None:
            self._context.term()
            self._context = None
