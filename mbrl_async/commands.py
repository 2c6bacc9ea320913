"""Settings of the commands beside `main.py`: a file in `conf/`, changed by `KEY=VALUE` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from pydantic import BaseModel

from mbrl_async.config import ConfigError, checked
from mbrl_async.settings import STRICT

CONFIG_DIRECTORY = Path(__file__).parents[1] / "conf"


class Tracking(BaseModel):
    """Where the runs are."""

    model_config = STRICT
    uri: str


def help_wanted(name: str, arguments: Sequence[str]) -> bool:
    """Whether the command line asks what there is to set; that is printed then."""
    wanted = not {"-h", "--help"}.isdisjoint(arguments)
    if wanted:
        print(f"Settings, each written KEY=VALUE:\n\n{(CONFIG_DIRECTORY / f'{name}.yaml').read_text()}", end="")  # noqa: T201
    return wanted


def output_folder(path: str) -> Path:
    """The folder, which is made.

    Raises:
        ConfigError: that is not possible.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be a folder for the files ({error.strerror}): choose another one.") from error
    return Path(path)


Model = TypeVar("Model", bound=BaseModel)


def command_settings(name: str, arguments: Sequence[str], model: type[Model]) -> Model:
    """The settings of `conf/NAME.yaml` with the arguments `KEY=VALUE` of a command line.

    Raises:
        ConfigError: an argument that is no `KEY=VALUE`, a misspelt key, or an impossible value.
    """
    settings = OmegaConf.load(CONFIG_DIRECTORY / f"{name}.yaml")
    try:
        for override in OverridesParser.create().parse_overrides(list(arguments)):
            if override.is_sweep_override():
                raise ConfigError(
                    f"{override.input_line} names several values: a list is written {_as_list(override)}."
                )
            OmegaConf.update(settings, override.key_or_group, override.value())
    except HydraException as error:
        raise ConfigError(f"Write KEY=VALUE, as listed in conf/{name}.yaml: {' '.join(str(error).split())}") from error
    return checked(model, "", OmegaConf.to_container(settings))


def _as_list(override: Override) -> str:
    return f"'{override.key_or_group}=[{override.get_value_string().strip()}]'"
