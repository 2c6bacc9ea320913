"""What each of several collectors has of its own: those settings that are lists with one item for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from mbrl_async.config import ConfigError, build, components, hints_of, imported, per_collector
from mbrl_async.types import PerCollector


class _Setting(NamedTuple):
    key: str
    value: Any
    mark: PerCollector


def require_one_each(configuration: Mapping[str, Any], collectors: int) -> None:
    """Refuse settings that do not say of each collector which is its own.

    Args:
        configuration: the composed one, resolved.
        collectors: how many there are.

    Raises:
        ConfigError: a list of another length, or a value that two would share and cannot.
    """
    for setting in _settings(configuration):
        if isinstance(setting.value, list) and len(setting.value) != collectors:
            raise ConfigError(
                f"{setting.key}={_listed(setting.value)} has {len(setting.value)} values for collectors={collectors}: "
                "give as many as there are collectors."
            )
        values = setting.value if isinstance(setting.value, list) else [setting.value] * collectors
        if setting.mark.distinct and len(set(values)) < collectors:
            raise ConfigError(
                f"{setting.key}={_listed(setting.value)} cannot be used with collectors={collectors}, of which each "
                f"needs its own: give a list of {collectors} different ones, such as {setting.key}=[A,B]."
            )


def settings_of(node: Any, collector: int) -> Any:
    """The resolved configuration, or a part of it, as it is for one collector, the first of which has number 0."""
    if isinstance(node, list):
        return [settings_of(child, collector) for child in node]
    if not isinstance(node, dict):
        return node
    own = _marks(node)
    return {
        name: child[collector] if name in own and isinstance(child, list) else settings_of(child, collector)
        for name, child in node.items()
    }


def build_first(node: DictConfig) -> Any:
    """The component, such as the task, that the first collector has."""
    return build(DictConfig(settings_of(OmegaConf.to_container(node, resolve=True), 0)))


def is_repeatable(env: DictConfig) -> bool:
    """Whether the same actions lead this task to the same observations again."""
    task = build_first(env)
    task.close()
    return bool(task.spec.repeatable)


def _settings(configuration: Mapping[str, Any]) -> Iterator[_Setting]:
    for key, node in components(configuration):
        for name, mark in _marks(node, key).items():
            if name in node:
                yield _Setting(f"{key}.{name}", node[name], mark)


def _marks(node: Mapping[str, Any], key: str = "") -> dict[str, PerCollector]:
    """Name -> mark of those arguments of a component that collectors may have different from each other."""
    if "_target_" not in node:
        return {}
    marks = {name: per_collector(hint) for name, hint in hints_of(imported(key, node["_target_"])).items()}
    return {name: mark for name, mark in marks.items() if mark is not None}


def _listed(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
