"""A run as it was recorded in MLflow, and its configuration with new overrides on top."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from mlflow.exceptions import MlflowException
from omegaconf import DictConfig, OmegaConf

from mbrl_async.commands import CONFIG_DIRECTORY
from mbrl_async.config import ConfigError
from mbrl_async.refusals import explain
from mbrl_async.run_folder import CONFIG_FILE, ENVIRONMENT_FILE, OVERRIDES_FILE
from mbrl_async.search_path import relocated, settings_among
from mbrl_async.tracking.environment import read_environments
from mbrl_async.tracking.errors import reason
from mbrl_async.trust import require_trusted

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ABSENT = object()


class RecordedRun:
    """The artifacts of a run, fetched when they are asked for.

    Args:
        client: of the store that holds the run.
        run_id: MLflow's.
        directory: where fetched files go.

    Raises:
        ConfigError: there is no such run.
    """

    def __init__(self, client: MlflowClient, run_id: str, directory: Path) -> None:
        self.run_id = run_id
        self._client = client
        self._directory = directory
        try:
            self.status: str = client.get_run(run_id).info.status
            self._names = {artifact.path for artifact in client.list_artifacts(run_id)}
        except MlflowException as error:
            raise ConfigError(
                f"Run {run_id} cannot be read from {client.tracking_uri}: give the id that MLflow shows for it, and "
                f"its store as tracking.uri ({reason(error)})."
            ) from error

    def has(self, name: str) -> bool:
        """Whether there is an artifact of this name."""
        return name in self._names

    def fetch(self, name: str) -> Path:
        """A local copy of an artifact.

        Raises:
            ConfigError: the run left none of this name.
        """
        if not self.has(name):
            raise ConfigError(
                f"Run {self.run_id} left no {name}, as a run that is still going on or was killed outright: "
                "choose a run that ended in order."
            )
        self._directory.mkdir(parents=True, exist_ok=True)
        return Path(self._client.download_artifacts(self.run_id, name, str(self._directory)))

    @property
    def config(self) -> dict[str, Any]:
        """The composed configuration, with its interpolations."""
        config: Any = OmegaConf.to_container(OmegaConf.load(self.fetch(CONFIG_FILE)), resolve=False)
        return dict(config)

    @property
    def overrides(self) -> list[str]:
        """What its user had changed on the command line."""
        return self.fetch(OVERRIDES_FILE).read_text().splitlines()

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Of its first process, and of those that resumed it elsewhere: see `read_environments`."""
        return read_environments(self.fetch(ENVIRONMENT_FILE))


def default_uri() -> str:
    """Where runs are tracked if nobody says otherwise."""
    with _own_hydra():
        return str(compose("config").tracking.uri)


def all_overrides(recorded: RecordedRun, overrides: Sequence[str]) -> list[str]:
    """The recorded overrides, then the new ones, which say last where the user's own folders are.

    Raises:
        ConfigError: one of these is not there.
    """
    return [*relocated(recorded.overrides, overrides), *settings_among(overrides)]


def compose_again(recorded: RecordedRun, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """The recorded configuration with new overrides on top, groups included, and the option chosen of each group.

    What the overrides do not change is as it was recorded, even if `conf/` has other defaults by now.

    Raises:
        ConfigError: there is no such setting or option, the recorded configuration would execute foreign code, or a
            folder that it came from is not there.
    """
    said = relocated(recorded.overrides, overrides)
    before, _ = _compose(said, [])
    after, choices = _compose(said, settings_among(overrides))
    config = _on_top(recorded.config, before, after)
    for key in _named_settings(settings_among(overrides), choices):
        _copy(key, after, config)
    require_trusted(config, overrides)
    return OmegaConf.create(config), choices


def _compose(recorded: Sequence[str], overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Compose `conf/`, without those recorded overrides that the new ones leave without an object."""
    with _own_hydra():
        while True:
            try:
                cfg = compose("config", overrides=[*recorded, *overrides], return_hydra_config=True)
                break
            except HydraException as error:
                remaining = _without_orphan(recorded, error)
                if len(remaining) == len(recorded):
                    raise ConfigError(explain(error, overrides, str(CONFIG_DIRECTORY))) from error
                recorded = remaining
    choices = dict(cfg.hydra.runtime.choices)
    settings: Any = OmegaConf.to_container(cfg, resolve=False)
    return {key: value for key, value in settings.items() if key != "hydra"}, choices


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Hydra on `conf/`, also within a program that Hydra started: there is one at a time."""
    others = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().clear()
        if others is not None:
            GlobalHydra.instance().initialize(others)


def _without_orphan(overrides: Sequence[str], error: HydraException) -> list[str]:
    """The overrides but those of the key that Hydra does not find."""
    unknown = re.search(r"Could not override '([^']+)'", str(error))
    return [each for each in overrides if unknown is None or not each.startswith(f"{unknown[1]}=")]


def _named_settings(overrides: Sequence[str], choices: Mapping[str, str]) -> Iterator[str]:
    """The keys of those that set a value: it counts also where `conf/` has the same one by now."""
    for override in overrides:
        key, equals, _ = override.lstrip("+").partition("=")
        if equals and not key.startswith("~") and key not in choices:
            yield key


def _copy(key: str, source: Mapping[str, Any], target: dict[str, Any]) -> None:
    """A setting with a dotted key, if `source` has it and `target` a group for it."""
    group, _, below = key.partition(".")
    if group not in source:
        return
    if not below:
        target[group] = source[group]
    elif isinstance(source[group], Mapping) and isinstance(target.get(group), dict):
        _copy(below, source[group], target[group])


def _on_top(stored: Any, before: Any, after: Any) -> Any:
    """`stored`, with the changes that lead from `before` to `after`; what is new in both is taken from `after`."""
    if not all(isinstance(each, Mapping) for each in (stored, before, after)):
        return stored if before == after else after
    keys = [key for key in {**stored, **after} if key in after or key not in before]
    return {
        key: _on_top(stored.get(key, after.get(key)), before.get(key, _ABSENT), after.get(key, stored.get(key)))
        for key in keys
    }
