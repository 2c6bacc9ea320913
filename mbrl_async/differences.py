"""What differs between a recorded run and one that is about to be made like it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf

from mbrl_async.recorded import RecordedRun
from mbrl_async.tracking.environment import describe_environment
from mbrl_async.tracking.run import flatten

COMPUTES = ("packages.torch", "packages.numpy", "packages.mujoco", "packages.gymnasium", "cpu", "device")
"""Of the environment: what decides how a computation rounds."""
SAME_IN_CONFIG = ("torch_threads", "matmul_precision")
"""The top of an environment's names that say again, or less exactly, what the configuration says."""


class Difference(NamedTuple):
    """One thing that is not the same."""

    name: str
    recorded: object
    """None: the recorded run had no such thing, or did not know it."""
    here: object

    def __str__(self) -> str:
        return f"{self.name}: {self.recorded} in the recorded run, {self.here} here"


def environment_differences(recorded: RecordedRun, device: str) -> list[Difference]:
    """In code, packages and machine."""
    here = asdict(describe_environment(source=Path(__file__).parent, device=torch.device(device)))
    found = (each for environment in recorded.environments for each in _differences(environment, here))
    return [each for each in dict.fromkeys(found) if each.name not in SAME_IN_CONFIG]


def config_differences(recorded: RecordedRun, cfg: DictConfig) -> list[Difference]:
    """In settings, besides where the run is tracked and which sweep it belongs to."""
    then: Any = OmegaConf.to_container(OmegaConf.create(recorded.config), resolve=True)
    now: Any = OmegaConf.to_container(cfg, resolve=True)
    return [each for each in _differences(then, now) if not each.name.startswith(("tracking.", "sweep."))]


def _differences(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[Difference]:
    then, now = dict(flatten(recorded)), dict(flatten(here))
    for name in sorted({**then, **now}):
        if then.get(name) != now.get(name):
            yield Difference(name, then.get(name), now.get(name))
