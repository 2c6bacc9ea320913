"""Collecting on a robot: whatever happens to the one who drives it, it ends with no torque."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mbrl_async.commands import command_settings
from mbrl_async.config import ConfigError
from mbrl_async.experiment import build_experiment
from mbrl_async.robot.arm_task import ArmTask
from mbrl_async.robot.interface import RealArray, Robot, RobotError, RobotLostError, RobotState
from mbrl_async.robot.serve import Settings, main, make_server
from mbrl_async.runtime.channels import Stream
from mbrl_async.runtime.clock import WallClock
from mbrl_async.runtime.stop import Ending, StopSignal
from mbrl_async.types import FloatArray, Interrupted, State, StepReport, Trajectory
from mbrl_async.workers.collector import Collector
from tests.robot.conftest import PERIOD, START, FakeRobot, Served, client_of
from tests.small import composed

ROOT = Path(__file__).parents[2]
HORIZON = 5
ON_A_ROBOT = ("env=arm_reach", "env/robot=simulated", "algorithm.starts=stored", "schedule=sync")


class Act:
    """An actor that pushes every joint, and does something else before some action."""

    channel = "policy"
    acting = None

    def __init__(self) -> None:
        self.actions = 0
        self.before: dict[int, Callable[[], None]] = {}

    def pull(self) -> None:
        """Nothing is new."""

    def take(self, acting: object) -> None:
        """Nothing is taken."""

    def act(self, observation: FloatArray) -> FloatArray:  # noqa: ARG002  (whatever is seen)
        self.actions += 1
        self.before.get(self.actions, lambda: None)()
        return np.full(7, 0.5, np.float32)

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """There is none."""


class Bench:
    """A collector that drives a robot in real time."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.actor = Act()
        self.stop = StopSignal()
        self.task = ArmTask(
            robot=robot,
            start_posture=START.tolist(),
            start_noise=0.0,
            goals=[[0.0] * 3] * 3,
            success=[0.1, 0.1],
            horizon=HORIZON,
            reset_seconds=0.0,
            velocity_cost=0.1,
            torque_cost=0.1,
        )
        self.trajectories: Stream[Trajectory] = Stream()
        self.collector = Collector(
            task=self.task,
            actor=self.actor,
            trajectories=self.trajectories,
            pace=1.0,
            clock=WallClock(self.stop),
            environment_generator=np.random.default_rng(0),
        )

    def collect(self) -> StepReport:
        self.collector.pull()
        report = self.collector.step()
        self.collector.push()
        return report


@pytest.fixture
def fake() -> FakeRobot:
    return FakeRobot()


@pytest.fixture
def bench(fake: FakeRobot) -> Bench:
    return Bench(fake)


def test_a_trajectory_is_driven_at_its_period_and_ends_with_no_torque(bench, fake):
    report = bench.collect()
    assert report.env_steps == len(fake.sent) == HORIZON
    assert fake.sent[0].tolist() == (0.5 * fake.limits().torques).tolist()
    assert not fake.torques.any()
    assert report.metrics["unconfirmed_torques"] == 0.0
    assert report.collection_seconds == pytest.approx(HORIZON * PERIOD)
    assert not bench.task.spec.repeatable


class TimedRobot(FakeRobot):
    """Remembers when it was sent torques, and when it was asked for its state; its time passes as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.sent_at: list[float] = []
        self.asked_at: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep_until(self, deadline: float) -> None:
        self.time = max(self.time, deadline)

    def send(self, torques: RealArray) -> None:
        super().send(torques)
        self.sent_at.append(self.time)

    def state(self) -> RobotState:
        self.asked_at.append(self.time)
        return super().state()


@pytest.mark.parametrize("wait", [0.0, 0.5 * PERIOD, 100 * PERIOD])
def test_what_is_observed_is_what_the_torques_did_however_long_it_took_to_begin(wait):
    """A reset is given more time than the move takes: a period that counted from its end would be over by then."""
    robot = TimedRobot()
    task = Bench(robot).task
    task.reset(np.random.default_rng(0))
    robot.time += wait
    for _ in range(3):
        task.step(np.ones(7, np.float32))
    acted = np.subtract(robot.asked_at[1:], robot.sent_at)
    assert acted == pytest.approx([PERIOD] * 3)


def test_torques_that_come_late_act_for_less_and_much_too_late_for_a_whole_period():
    robot = TimedRobot()
    task = Bench(robot).task
    task.reset(np.random.default_rng(0))
    for late in (0.0, 0.4 * PERIOD, 1.5 * PERIOD, 0.0):
        robot.time += late
        task.step(np.ones(7, np.float32))
    acted = np.subtract(robot.asked_at[1:], robot.sent_at)
    assert acted == pytest.approx([PERIOD, 0.6 * PERIOD, PERIOD, PERIOD])


def test_the_end_of_the_run_leaves_no_torque(bench, fake):
    bench.actor.before[3] = lambda: bench.stop.request(Ending.KILLED)
    with pytest.raises(Interrupted):
        bench.collect()
    bench.collector.close()
    assert not fake.torques.any()
    assert fake.closed


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("broken"), FloatingPointError("diverged")])
def test_an_exception_leaves_no_torque(bench, fake, error):
    def fail() -> None:
        fake.failure = error

    bench.actor.before[3] = fail
    with pytest.raises((KeyboardInterrupt, OSError, ValueError)):
        bench.collect()
    assert len(fake.sent) == 3
    assert not fake.torques.any()


def test_an_action_that_is_no_number_leaves_no_torque(bench, fake):
    bench.task.reset(np.random.default_rng(0))
    bench.task.step(np.ones(7, np.float32))
    assert fake.torques.any()
    with pytest.raises(ValueError, match="every entry must be finite"):
        bench.task.step(np.full(7, np.nan, np.float32))
    assert not fake.torques.any()


def test_a_start_that_is_not_reached_leaves_no_torque(bench, fake, monkeypatch):
    def refuse(*_: object) -> None:
        fake.torques = np.ones(7)
        raise RobotError("stuck")

    monkeypatch.setattr(fake, "reset", refuse)
    with pytest.raises(RobotError, match="stuck"):
        bench.collect()
    assert not fake.torques.any()


@pytest.fixture
def remote(keys: Path) -> Iterator[tuple[Bench, list[Served]]]:
    """A collector and the servers, one after the other, of the robot that it drives."""
    servers = [Served(keys)]
    bench = Bench(client_of(servers[0].address, keys))
    yield bench, servers
    bench.collector.close()
    servers[-1].end()


def test_a_server_that_is_killed_and_started_again_costs_one_trajectory(remote, keys, caplog):
    bench, servers = remote

    def kill_and_start_again() -> None:
        servers[-1].end()
        servers.append(Served(keys, servers[0].address))

    bench.actor.before[HORIZON + 3] = kill_and_start_again
    bench.collect()
    report = bench.collect()
    assert report.env_steps == HORIZON
    assert [each.length for each in bench.trajectories.history] == [HORIZON, HORIZON]
    assert len(servers[1].robot.sent) == HORIZON
    assert "The trajectory does not count, and is made anew" in caplog.text
    assert not servers[1].robot.torques.any()


def test_a_server_that_stays_away_ends_the_run(keys):
    server = Served(keys)
    bench = Bench(client_of(server.address, keys, timeout_seconds=0.1, reconnect_seconds=0.2))
    bench.actor.before[3] = server.end
    with pytest.raises(RobotError, match="No robot answers"):
        bench.collect()
    assert not server.robot.torques.any()
    bench.collector.close()


def test_a_lost_torque_is_counted_and_the_trajectory_goes_on(bench, fake, monkeypatch):
    send = fake.send

    def lose_some(torques: np.ndarray) -> None:
        if len(fake.sent) == 2:
            fake.misses += 1
        send(torques)

    monkeypatch.setattr(fake, "send", lose_some)
    assert bench.collect().metrics["unconfirmed_torques"] == 1.0
    assert bench.collect().metrics["unconfirmed_torques"] == 0.0


def test_a_robot_that_is_lost_again_and_again_ends_the_run(bench, fake):
    fake.failure = RobotLostError("gone")
    with pytest.raises(RobotLostError):
        bench.collect()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("algorithm.starts=reset",), r"starts=reset would move a robot .* use algorithm\.starts=stored"),
        (("pace.factor=0.5",), r"pace\.factor=0\.5 cannot be used with a robot"),
        (("backend=simulated",), r"backend=simulated would not wait for this robot"),
    ],
)
def test_what_a_robot_cannot_do_is_refused_before_the_run(overrides, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build_experiment(composed(*ON_A_ROBOT, *overrides))


@pytest.mark.parametrize("robot", ["simulated", "network"])
def test_a_run_on_a_robot_is_built_without_moving_it(robot):
    before = threading.active_count()
    build_experiment(composed(*ON_A_ROBOT, f"env/robot={robot}"))
    assert threading.active_count() == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal(tmp_path, number):
    """The whole way: keys, the server as a program, and a client in this one."""
    keys = tmp_path / "keys"
    subprocess.run([sys.executable, "-m", "mbrl_async.robot.keys", str(keys)], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "mbrl_async.robot.serve", "env=arm_reach", f"keys={keys}"]
    server = subprocess.Popen([*command, "address=tcp://127.0.0.1:*"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    address = next(line.split()[7] for line in server.stderr if "is served at" in line)
    client = client_of(address, keys, control_period=0.2)
    client.reset(START, lambda: None)
    client.send(np.array([1.0, 0, 0, 0, 0, 0, 0]))
    client.sleep_until(client.now() + 0.2)
    assert client.state().velocities[0] > 0.1
    server.send_signal(number)
    assert "The robot is stopped." in server.communicate(timeout=20)[1]
    assert server.returncode == 0
    client.close()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["env=arm_pour"], "env=arm_pour has no robot=simulated"),
        (["robot=missing"], "env=arm_reach has no robot=missing"),
        (["adress=tcp://127.0.0.1:1"], "did you mean address"),
        (["keys=nowhere"], "holds no key: make keys with"),
        (["robot=stepped"], "robot=stepped moves with control steps alone: serve robot=simulated"),
    ],
)
def test_a_server_that_cannot_be_is_refused_in_a_sentence(arguments, sentence, capsys, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_robot_of_ones_own_is_served_and_driven_from_a_folder_of_ones_own(tmp_path, keys):
    robots = tmp_path / "env" / "robot"
    robots.mkdir(parents=True)
    (robots / "mine.yaml").write_text("# Mine.\n_target_: tests.robot.conftest.FakeRobot\n")
    (tmp_path / "env" / "pour.yaml").write_text("# Pour.\ndefaults: [base/arm@_here_, {robot: mine}, _self_]\n")
    settings = ["env=pour", "robot=mine", f"config_dir={tmp_path}", f"keys={keys}", "address=tcp://127.0.0.1:*"]
    server = make_server(command_settings("serve", settings, Settings))
    ended = threading.Event()
    thread = threading.Thread(target=server.run, args=(ended.is_set,), daemon=True)
    thread.start()
    client = client_of(server.address, keys, scene="pour")
    client.reset(START, lambda: None)
    assert client.state().positions.tolist() == START.tolist()
    client.close()
    ended.set()
    thread.join(10)
