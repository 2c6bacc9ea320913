"""Experiments that are small enough for a test."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

CONFIG_DIRECTORY = Path(__file__).parents[1] / "conf"

SMALL = (
    "env=linear_quadratic",
    "env.horizon=20",
    "dynamics.ensemble.members=2",
    "dynamics.ensemble.hidden=[16]",
    "dynamics.buffer.capacity=500",
    "policy.hidden=[8]",
    "stop.trajectories=5",
)
WHERE_THERE_IS = (
    "algorithm.improvement.rollouts=10",
    "algorithm.improvement.tasks=4",
    "algorithm.planner.horizon=3",
    "algorithm.planner.search.candidates=20",
)
"""Settings that some algorithms lack."""
FEW_STEPS = ("iteration.rollouts=2", "iteration.epochs=3", "iteration.updates=2")
FIXED_COSTS = (
    "backend=simulated",
    "simulated.costs.collect=0.01",
    "simulated.costs.learn_model=0.3",
    "simulated.costs.improve_policy=0.2",
)


ALSO_NEEDED = {"env=gymnasium": "env.id=Pendulum-v1"}
"""Choice -> what it means nothing without."""


def composed(*overrides: str) -> DictConfig:
    """The configuration that `python main.py OVERRIDES` composes, with the simplest of what else a choice needs."""
    return copy.deepcopy(_composed(overrides))


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    """Composing takes a quarter of a second, and many tests ask for the same."""
    needed = [also for choice, also in ALSO_NEEDED.items() if choice in overrides]
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        return compose("config", overrides=[*needed, *overrides])


@cache
def small(*overrides: str) -> tuple[str, ...]:
    """Overrides for a small experiment with whatever algorithm the given ones choose."""
    cfg = composed(*SMALL, *overrides)
    return (*SMALL, *(each for each in WHERE_THERE_IS if OmegaConf.select(cfg, each.partition("=")[0])), *overrides)


def options(group: str) -> list[str]:
    """The names that `GROUP=…` may have."""
    return sorted(path.stem for path in (CONFIG_DIRECTORY / group).glob("*.yaml"))
