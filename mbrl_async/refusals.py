"""Hydra's refusals of a command line, in one sentence each."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from mbrl_async.config import alternatives


def explain(error: HydraException, arguments: Sequence[str], config_directory: str) -> str:
    """What is wrong with the command line `arguments`, and what to write instead."""
    unknown_key = re.search(r"Could not override '([^']+)'", str(error))
    if unknown_key is not None:
        return _explain_unknown_key(unknown_key[1], arguments, config_directory)
    reason, _, _ = str(error).partition("Config search path")
    return " ".join(reason.split())


def _explain_unknown_key(key: str, arguments: Sequence[str], config_directory: str) -> str:
    override = next((argument for argument in arguments if argument.startswith(f"{key}=")), key)
    parent, _, name = key.rpartition(".")
    known = _settings_of(parent, arguments, config_directory)
    return f"{override} is no setting of {parent or 'the configuration'}: {alternatives(name, known)}"


def _settings_of(parent: str, arguments: Sequence[str], config_directory: str) -> list[str]:
    """The keys of the nearest node above `parent` in what the choices of groups alone compose."""
    choices = [argument for argument in arguments if re.fullmatch(r"\w+=\w+", argument)]
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_directory, version_base="1.3"):
        try:
            cfg = compose("config", overrides=choices)
        except HydraException:
            cfg = compose("config")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return sorted(str(name) for name in node) if isinstance(node, DictConfig) else []
