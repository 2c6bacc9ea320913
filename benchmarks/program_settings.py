"""The program's own settings, so that a benchmark measures what a run does."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from mbrl_async.commands import CONFIG_DIRECTORY


def settings(*overrides: str) -> DictConfig:
    """What `python main.py OVERRIDES` composes; without any, HalfCheetah with asynchronous ME-TRPO."""
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        return compose("config", overrides=list(overrides))
