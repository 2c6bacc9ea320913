"""Several collectors, each with a robot of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mbrl_async.experiment import build_experiment
from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.stop import Ending, StopSignal
from tests.robot.conftest import PERIOD, Served
from tests.runtime.fakes import Recorder
from tests.small import composed, small

HORIZON = 5
TRAJECTORIES = 5
SHORT = (
    "env=arm_reach",
    f"env.horizon={HORIZON}",
    "env.reset_seconds=0",
    "algorithm=mb_mpc",
    "dynamics.ensemble.hidden=[8]",
    f"stop.trajectories={TRAJECTORIES}",
    "collectors=2",
)


@pytest.fixture
def two_served(keys: Path) -> Iterator[tuple[Served, Served]]:
    servers = Served(keys), Served(keys)
    yield servers
    for server in servers:
        server.end()


def trajectories_of(*overrides: str) -> dict[str, int]:
    """Run; collector -> how many of its trajectories counted."""
    experiment = build_experiment(composed(*small(*SHORT, *overrides)))
    run = experiment.backend.run
    summary = run(experiment.makers, experiment.schedule, experiment.rule, StopSignal(), Recorder(), Forgetful())
    assert summary.failure is None
    assert summary.ending is Ending.FINISHED
    assert len(experiment.channels.trajectories.history) == TRAJECTORIES
    workers = [record.worker for record in summary.records]
    return {name: workers.count(name) for name in ("collect_0", "collect_1")}


def network(keys: Path, *servers: Served) -> tuple[str, ...]:
    return (
        "env/robot=network",
        f"env.robot.control_period={PERIOD}",
        f"env.robot.address=[{','.join(server.address for server in servers)}]",
        f"env.robot.server_key={keys / 'server.key'}",
        f"env.robot.client_key={keys / 'client.key_secret'}",
        "env.robot.timeout_seconds=2.0",
    )


@pytest.mark.parametrize("backend", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_each_collector_drives_the_robot_at_its_own_address(keys, two_served, backend):
    collected = trajectories_of(*network(keys, *two_served), f"backend={backend}")
    assert sum(collected.values()) == TRAJECTORIES
    for server, trajectories in zip(two_served, collected.values(), strict=True):
        assert trajectories > 0
        assert len(server.robot.sent) >= HORIZON * trajectories, "one that the end overtook may come on top"
        assert len(server.robot.sent) <= HORIZON * (trajectories + 1)
        assert not server.robot.torques.any(), "at the end no torque acts, whoever was in a trajectory"


def test_each_collector_has_an_arm_that_moves_by_itself():
    """In one process and in real time; with one arm for both, neither would ever be where it was told to be."""
    moving = ("env/robot=simulated", f"env.robot.control_period={PERIOD}", "env.robot.move_seconds=0.1")
    collected = trajectories_of(*moving)
    assert min(collected.values()) > 0
