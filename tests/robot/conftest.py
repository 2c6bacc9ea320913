"""A robot on the network, in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mbrl_async.robot.arm import Arm
from mbrl_async.robot.interface import Limits, RealArray, RealTime, RobotState
from mbrl_async.robot.keys import make_keys
from mbrl_async.robot.network import NetworkRobot
from mbrl_async.robot.server import RobotServer
from tests.small import composed

PERIOD = 0.05
START = np.array(composed("env=arm_reach").env.start_posture)
NOBODY: Callable[[], None] = lambda: None  # noqa: E731  (nobody wants an end)


class FakeRobot(RealTime):
    """Is wherever it was told to be, and remembers what it was told."""

    misses = 0
    control_period = PERIOD

    def __init__(self) -> None:
        self.torques = np.zeros(7)
        self.sent: list[RealArray] = []
        self.stops = 0
        self.closed = False
        self.position = np.zeros(7)
        self.failure: Exception | None = None
        self.arrives = threading.Event()
        self.arrives.set()
        self.stopped = threading.Event()
        self.gave_up = threading.Event()

    def limits(self) -> Limits:
        return Arm("reach").limits

    def reset(self, posture: RealArray, check: Callable[[], None]) -> None:
        try:
            while not self.arrives.wait(0.001):
                check()
        except BaseException:
            self.gave_up.set()
            raise
        self.position = posture

    def send(self, torques: RealArray) -> None:
        self.torques = torques
        self.sent.append(torques)
        self.stopped.clear()

    def state(self) -> RobotState:
        if self.failure is not None:
            raise self.failure
        return RobotState(self.position, np.zeros(7), np.zeros((3, 3)))

    def stop(self) -> None:
        self.torques = np.zeros(7)
        self.stops += 1
        self.stopped.set()

    def close(self) -> None:
        self.closed = True


class Served:
    """A server in a thread; ended, it says nothing to anybody. Its watchdog is patient, as tests may be slow."""

    def __init__(self, keys: Path, address: str = "tcp://127.0.0.1:*", watchdog_periods: int = 400) -> None:
        self.robot = FakeRobot()
        self._ended = threading.Event()
        server = RobotServer(
            robot=self.robot, scene="reach", address=address, keys=keys, watchdog_periods=watchdog_periods
        )
        self.address = server.address
        self._thread = threading.Thread(target=server.run, args=(self._ended.is_set,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder)
    return folder


@pytest.fixture
def served(keys: Path) -> Iterator[Served]:
    server = Served(keys)
    yield server
    server.end()


def client_of(address: str, keys: Path, **changes: object) -> NetworkRobot:
    settings: dict[str, object] = {
        "scene": "reach",
        "control_period": PERIOD,
        "address": address,
        "server_key": str(keys / "server.key"),
        "client_key": str(keys / "client.key_secret"),
        "timeout_seconds": 2.0,  # a busy machine is no lost robot
        "move_seconds": 20.0,
        "reconnect_seconds": 20.0,
    }
    return NetworkRobot(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture
def client(served: Served, keys: Path) -> Iterator[NetworkRobot]:
    robot = client_of(served.address, keys)
    yield robot
    robot.close()
