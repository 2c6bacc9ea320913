"""How fast the collector could go: 200 control steps of HalfCheetah without waiting."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.measurement import Measurement, median_seconds, torch_threads
from benchmarks.policy_step import PolicyStep
from mbrl_async.envs.mujoco_tasks import HalfCheetah
from mbrl_async.runtime.channels import Latest, Stream
from mbrl_async.runtime.clock import WallClock
from mbrl_async.runtime.stop import StopSignal
from mbrl_async.types import Trajectory
from mbrl_async.workers.acting import PolicyActor
from mbrl_async.workers.collector import Collector

HORIZON = 200


def measure(repetitions: int) -> list[Measurement]:
    """Of a learnt policy's actions, the physics, the reward and the books."""
    with torch_threads(1):
        collector, control_period = _collector()
        (seconds,) = median_seconds(repetitions, collector.step)
        collector.close()
    step = seconds / HORIZON
    return [
        Measurement("200 control steps, unpaced", seconds, "s", 1),
        Measurement("a control step, as a share of its period", 100 * step / control_period, "%", 1),
    ]


def _collector() -> tuple[Collector, float]:
    policies, task = Latest(), HalfCheetah(horizon=HORIZON)
    policy = PolicyStep().policy()
    policies.put(policy.state_dict())
    actor = PolicyActor(
        policy=policy,
        policies=policies,
        first_actions="random",
        action_generator=torch.Generator().manual_seed(0),
    )
    clock = WallClock(StopSignal())
    clock.start()
    collector = Collector(
        task=task,
        actor=actor,
        trajectories=Stream[Trajectory](),
        pace=0.0,
        clock=clock,
        environment_generator=np.random.default_rng(0),
    )
    collector.pull()
    return collector, task.spec.control_period
