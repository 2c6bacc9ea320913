"""A robot on the network, when all goes well and when nothing does."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zmq
import zmq.auth

from mbrl_async.robot import server as server_module
from mbrl_async.robot.interface import RobotError, RobotLostError
from mbrl_async.robot.keys import key_pair, main, make_keys, public_key
from mbrl_async.robot.messages import LARGEST_MESSAGE, VERSION, MessageError, Reply, Request, decoded, encoded
from mbrl_async.robot.network import NetworkRobot
from mbrl_async.robot.server import RobotServer
from mbrl_async.types import Interrupted
from tests.robot.conftest import NOBODY, PERIOD, START, FakeRobot, Served, client_of

TORQUES = np.array([1.0, 2, 0.5, -0.5, 0, 0, 0.1])


def test_what_is_said_arrives(served, client):
    client.reset(START, NOBODY)
    client.send(TORQUES)
    assert served.robot.torques.tolist() == TORQUES.tolist()
    assert client.state().positions.tolist() == START.tolist()
    assert client.state().points.shape == (3, 3)
    np.testing.assert_array_equal(client.limits().lower, served.robot.limits().lower)
    np.testing.assert_array_equal(client.limits().torques, served.robot.limits().torques)
    assert client.misses == 0


def test_torques_beyond_the_limits_are_clipped_by_the_server(served, client):
    client.reset(START, NOBODY)
    client.send(np.full(7, 1000.0))
    assert served.robot.torques.tolist() == [3, 3.5, 2, 2, 1, 0.5, 0.75]


def test_the_server_pushes_no_joint_out_of_its_range(served, client):
    posture = START.copy()
    posture[3] = 0.0
    client.reset(posture, NOBODY)
    client.send(np.full(7, 0.1))
    assert served.robot.torques[3] == 0.0
    assert served.robot.torques[0] == 0.1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_torques_that_are_not_finite_do_not_even_leave(served, client, value):
    client.reset(START, NOBODY)
    with pytest.raises(ValueError, match="every value must be finite"):
        client.send(np.full(7, value))
    assert not served.robot.sent


@pytest.mark.parametrize(
    ("posture", "reason"), [(np.full(7, 9.0), "joint 0 moves from"), (np.zeros(3), "takes 7 finite angles")]
)
def test_a_posture_that_cannot_be_had_is_refused(client, posture, reason):
    with pytest.raises(RobotError, match=reason):
        client.reset(posture, NOBODY)


def test_torques_during_a_move_are_refused_and_the_move_can_be_given_up(served, client):
    served.robot.arrives.clear()

    def over() -> None:
        with pytest.raises(RobotError, match="still moves"):
            client.send(TORQUES)
        raise Interrupted

    with pytest.raises(Interrupted):
        client.reset(START, over)
    client.stop()
    assert not served.robot.torques.any()
    served.robot.arrives.set()


def test_a_start_that_is_not_reached_is_an_error(served, keys):
    served.robot.arrives.clear()
    impatient = client_of(served.address, keys, move_seconds=0.1)
    with pytest.raises(RobotError, match=r"did not reach its start within 0\.1 s"):
        impatient.reset(START, NOBODY)
    impatient.close()


def test_a_client_that_falls_silent_leaves_no_torque(keys):
    served = Served(keys, watchdog_periods=2)
    client = client_of(served.address, keys)
    client.reset(START, NOBODY)
    client.send(TORQUES)
    assert served.robot.sent[0].any()
    assert served.robot.stopped.wait(10)
    assert not served.robot.torques.any()
    client.close()
    served.end()


def test_a_client_that_falls_silent_ends_the_move_to_its_start(keys, monkeypatch):
    monkeypatch.setattr(server_module, "MOVE_PATIENCE_SECONDS", 0.1)
    served = Served(keys, watchdog_periods=1)
    served.robot.arrives.clear()
    client = client_of(served.address, keys)

    def lost() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        client.reset(START, lost)  # and then nothing is said any more
    assert served.robot.gave_up.wait(10)
    with pytest.raises(RobotLostError, match="its client was silent"):
        client.state()
    served.robot.arrives.set()
    client.reset(START, NOBODY)  # as the collector does, which makes the trajectory anew
    client.send(TORQUES)
    assert len(served.robot.sent) == 1
    client.close()
    served.end()


def test_a_closed_client_leaves_no_torque(served, keys):
    client = client_of(served.address, keys)
    client.reset(START, NOBODY)
    client.send(TORQUES)
    client.close()
    assert not served.robot.torques.any()


def test_the_end_of_the_server_stops_the_robot_whatever_ends_it(keys):
    robot = FakeRobot()
    server = RobotServer(robot=robot, scene="reach", address="tcp://127.0.0.1:*", keys=keys, watchdog_periods=3)
    robot.torques = TORQUES

    def interrupted() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server.run(interrupted)
    assert not robot.torques.any()
    assert robot.closed


def test_a_server_that_was_killed_loses_the_robot_and_started_again_gives_it_back(keys):
    first = Served(keys)
    client = client_of(first.address, keys, timeout_seconds=0.5)
    client.reset(START, NOBODY)
    first.end()
    client.send(TORQUES)
    assert client.misses == 1, "a torque that nobody heard is counted"
    with pytest.raises(RobotLostError, match="did not answer 3 times"):
        client.state()
    second = Served(keys, first.address)
    client.reset(START, NOBODY)
    client.send(TORQUES)
    assert second.robot.torques.tolist() == TORQUES.tolist()
    client.close()
    second.end()


def test_a_server_that_was_started_again_in_an_episode_is_noticed(keys):
    first = Served(keys)
    client = client_of(first.address, keys)
    client.reset(START, NOBODY)
    first.end()
    second = Served(keys, first.address)
    with pytest.raises(RobotLostError):
        client.state()
    assert not second.robot.sent
    client.close()
    second.end()


def test_a_robot_that_does_not_come_back_is_an_error_and_no_hang(keys):
    client = client_of("tcp://127.0.0.1:9", keys, timeout_seconds=0.05, reconnect_seconds=0.2)
    with pytest.raises(RobotError, match=r"No robot answers at tcp://127\.0\.0\.1:9: start its server"):
        client.reset(START, NOBODY)
    client.close()


@pytest.mark.parametrize("address", ["localhost:5555", "tcp://127.0.0.1", "tcp://127.0.0.1:port"])
def test_an_address_that_is_none_is_named(keys, address):
    client = client_of(address, keys)
    with pytest.raises(RobotError, match=f"env.robot.address={address} is no address"):
        client.reset(START, NOBODY)
    client.close()


def test_the_search_for_a_robot_ends_with_the_run(keys):
    client = client_of("tcp://127.0.0.1:9", keys, timeout_seconds=0.05)

    def over() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        client.reset(START, over)
    client.close()


def test_a_client_whose_key_is_not_admitted_gets_no_answer(served, keys, tmp_path):
    make_keys(tmp_path / "others")
    stranger = client_of(
        served.address,
        keys,
        client_key=str(tmp_path / "others" / "client.key_secret"),
        timeout_seconds=0.2,
        reconnect_seconds=0.5,
    )
    with pytest.raises(RobotError, match="see that it admits the key"):
        stranger.reset(START, NOBODY)
    stranger.close()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda admitted: (admitted / "laptop.key").write_text("no key"), r"laptop\.key holds no key"),
        (lambda admitted: (admitted / "client.key").unlink(), "holds no client's public key"),
        (shutil.rmtree, "holds no client's public key"),
    ],
)
def test_a_server_that_would_admit_nobody_does_not_start(tmp_path, spoil, reason):
    """One unreadable key locks out everybody."""
    make_keys(tmp_path)
    spoil(tmp_path / "admitted")
    with pytest.raises(RobotError, match=reason):
        Served(tmp_path)


def test_a_client_without_a_key_gets_no_answer(served):
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(served.address)
        socket.send(encoded(Request(version=VERSION, sequence=1, command="describe")))
        assert not socket.poll(300)


@pytest.fixture
def admitted(served: Served, keys: Path):
    """A socket with the right keys, to say anything."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.curve_serverkey = public_key(keys / "server.key")
        socket.curve_publickey, socket.curve_secretkey = key_pair(keys / "client.key_secret")
        socket.connect(served.address)
        yield socket


@pytest.mark.parametrize(
    "frames",
    [
        [b"garbage"],
        [b""],
        [b"\xff\x00"],
        [b"[]"],
        [b'{"version": 1}'],
        [b'{"version": 1, "sequence": 1, "command": "explode"}'],
        [b'{"version": 1, "sequence": 1, "command": "torques", "values": [NaN]}'],
        [b'{"version": 1, "sequence": 1, "command": "torques", "values": ["1"]}'],
        [b'{"version": 1, "sequence": -1, "command": "describe"}'],
        [encoded(Request(version=VERSION, sequence=1, command="describe")), b"more"],
        [b'{"version": 1, "sequence": 1, "command": "torques", "values": [' + b"0," * 100 + b"0]}"],
    ],
)
def test_garbage_is_refused_and_harms_nobody(served, admitted, client, frames):
    admitted.send_multipart(frames)
    assert admitted.poll(10_000)
    assert "unreadable message" in str(decoded(Reply, admitted.recv()).refused)
    client.reset(START, NOBODY)
    assert not served.robot.sent


def test_another_version_is_named(admitted):
    admitted.send(b'{"version": 99, "sequence": 1, "command": "describe"}')
    assert admitted.poll(10_000)
    reply = decoded(Reply, admitted.recv())
    assert reply.refused == f"version 99 of the messages is spoken there, {VERSION} here: update one."


def test_a_message_that_is_too_large_is_not_read(admitted, client):
    admitted.send(b" " * (LARGEST_MESSAGE + 1))
    assert not admitted.poll(300)
    client.reset(START, NOBODY)


def said(socket: zmq.Socket[bytes], sequence: int, command: str, values: np.ndarray | None = None) -> Reply:
    sent = [] if values is None else values.tolist()
    socket.send(encoded(Request(version=VERSION, sequence=sequence, command=command, values=sent)))  # type: ignore[arg-type]
    assert socket.poll(10_000)
    return decoded(Reply, socket.recv())


def wait_for_arrival(socket: zmq.Socket[bytes], sequence: int) -> None:
    """Each question waits for its answer, so that nothing spins."""
    deadline = time.monotonic() + 10
    while said(socket, sequence, "state").moving:
        assert time.monotonic() < deadline, "the robot never arrives"


def test_torques_that_come_too_late_are_refused(served, admitted):
    said(admitted, 5, "reset", START)
    wait_for_arrival(admitted, 6)
    assert said(admitted, 8, "torques", TORQUES).refused is None
    assert said(admitted, 7, "torques", 0 * TORQUES).refused == "request 7 came after request 8: it is too late."
    assert len(served.robot.sent) == 1


def test_only_one_client_drives(served, admitted, client):
    client.reset(START, NOBODY)
    assert "reset it first" in str(said(admitted, 1, "torques", TORQUES).refused)
    client.send(TORQUES)
    assert "another client drives" in str(said(admitted, 2, "reset", START).refused)
    assert said(admitted, 3, "stop").refused is None, "anybody may stop it"
    assert not served.robot.torques.any()


def test_a_robot_that_another_client_stopped_stays_so_until_it_is_reset(served, admitted, client):
    client.reset(START, NOBODY)
    client.send(TORQUES)
    said(admitted, 1, "stop")
    for refused in (client.state, lambda: client.send(TORQUES)):
        with pytest.raises(RobotError, match="another client stopped the robot: see why") as raised:
            refused()
        assert not isinstance(raised.value, RobotLostError), "else the trajectory would be made anew"
    assert len(served.robot.sent) == 1
    client.reset(START, NOBODY)
    client.send(TORQUES)
    assert len(served.robot.sent) == 2


def test_a_move_that_another_client_stopped_has_not_arrived(served, admitted, client):
    served.robot.arrives.clear()
    stops = iter([lambda: said(admitted, 1, "stop")])
    with pytest.raises(RobotError, match="another client stopped the robot"):
        client.reset(START, lambda: next(stops, lambda: None)())
    served.robot.arrives.set()


def test_nobody_takes_the_robot_from_a_client_that_still_moves_it_or_rests(served, admitted, client):
    def try_to_take_it() -> None:
        assert "another client drives" in str(said(admitted, 1, "reset", START).refused)

    served.robot.arrives.clear()
    client.reset(START, lambda: (try_to_take_it(), served.robot.arrives.set())[0])
    try_to_take_it()  # between two torques
    client.stop()
    assert said(admitted, 2, "reset", START).refused is None


def test_a_client_that_only_asked_stops_nobody(served, keys, client):
    client.reset(START, NOBODY)
    client.send(TORQUES)
    other = client_of(served.address, keys)
    other.limits()
    other.close()
    assert served.robot.torques.any()


@pytest.mark.parametrize(("seconds", "anew"), [(60.0, 0), (-1.0, 3)])
def test_a_connection_has_longer_to_be_made_than_a_reply_has(client, monkeypatch, seconds, anew):
    """One whose handshake takes longer than a reply may is not begun again and again."""
    monkeypatch.setattr("mbrl_async.robot.network.HANDSHAKE_SECONDS", seconds)
    client._connected()
    ask, silences, begun = client._ask, [None] * 3, []
    monkeypatch.setattr(client, "_ask", lambda command: silences.pop() if silences else ask(command))
    monkeypatch.setattr(client, "_disconnect", lambda: begun.append(1))
    client.limits()
    assert len(begun) == anew
    monkeypatch.undo()


def test_a_robot_that_fails_is_stopped_and_says_why(served, client):
    client.reset(START, NOBODY)
    client.send(TORQUES)
    served.robot.failure = OSError("no current")
    with pytest.raises(RobotError, match="failed, and was stopped: no current"):
        client.state()
    assert not served.robot.torques.any()
    served.robot.failure = None


def test_another_robot_than_the_expected_one_is_refused(served, keys):
    client = client_of(served.address, keys, scene="stack")
    with pytest.raises(RobotError, match=f"has scene reach and control period {PERIOD} s, not stack"):
        client.reset(START, NOBODY)
    client.close()


def test_a_late_reply_is_passed_over(keys):
    """A server of our own, which answers the first question after the second."""
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    router.curve_server = True
    router.curve_publickey, router.curve_secretkey = key_pair(keys / "server.key_secret")
    router.bind("tcp://127.0.0.1:*")
    client = client_of(router.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0"), keys, timeout_seconds=1.0)

    def answer() -> None:
        identity, first = router.recv_multipart()
        _, second = router.recv_multipart()
        for each, moving in ((first, True), (second, False)):
            sequence = decoded(Request, each).sequence
            reply = Reply(version=VERSION, sequence=sequence, session="s", moving=moving)
            router.send_multipart([identity, encoded(reply)])

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    client.send(TORQUES)
    assert client.misses == 1
    client.send(TORQUES)
    assert client.misses == 1
    thread.join(10)
    client._disconnect()
    router.close()
    context.term()


def test_keys_are_made_once_and_read_by_their_owner_alone(tmp_path, capsys):
    assert main([str(tmp_path / "keys")]) == 0
    assert (tmp_path / "keys" / "client.key_secret").stat().st_mode & 0o777 == 0o600
    assert main([str(tmp_path / "keys")]) == 2
    assert "has keys already" in capsys.readouterr().err
    assert main([]) == 2


def test_keys_that_others_may_read_are_refused(tmp_path):
    make_keys(tmp_path)
    (tmp_path / "client.key_secret").chmod(0o644)
    with pytest.raises(RobotError, match="may be read by others: chmod 600"):
        key_pair(tmp_path / "client.key_secret")


@pytest.mark.parametrize("content", [None, "no key\n"])
def test_what_is_no_key_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "server.key").write_text(content)
    with pytest.raises(RobotError, match="holds no key: make keys with"):
        public_key(tmp_path / "server.key")


def test_a_public_key_is_no_secret_one(keys):
    with pytest.raises(RobotError, match="holds no secret key"):
        key_pair(keys / "server.key")


def test_a_server_without_keys_or_address_is_refused(tmp_path, keys):
    with pytest.raises(RobotError, match="holds no key"):
        Served(tmp_path)
    with pytest.raises(RobotError, match="address=tcp://nowhere cannot be listened at"):
        Served(keys, "tcp://nowhere")


def test_messages_are_what_they_were():
    request = Request(version=VERSION, sequence=3, command="torques", values=[0.1, -1e-300, 1 / 3])
    assert decoded(Request, encoded(request)) == request
    with pytest.raises(MessageError):
        decoded(Reply, encoded(request))


def test_the_type_of_the_client_is_a_robot(client: NetworkRobot):
    assert client.real_time
