"""Whose code a configuration names: data from a store must not choose what is executed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from hydra.utils import get_object

from mbrl_async.config import ConfigError, components

OURS = "mbrl_async."
COMPUTED = re.compile(r"\$\{.*:", re.DOTALL)
"""An interpolation that calls a resolver, such as `${oc.create:...}`, which may make a `_target_` of a text."""
TIME = re.compile(r"\$\{now:[^${}]*\}")
"""The one that Hydra's time needs, which makes nothing but a text."""


def require_trusted(config: Any, overrides: Collection[str]) -> None:
    """Let a recorded configuration execute foreign code only where the user names it, too, as an override.

    Args:
        config: the nested configuration, with its interpolations.
        overrides: what the user says now.

    Raises:
        ConfigError: it would execute other code.
    """
    said = {override.lstrip("+") for override in overrides}
    for setting in foreign_settings(config):
        if setting not in said:
            raise ConfigError(
                f"{setting} comes from the recorded run and would execute code that is not this program's: "
                f"if you trust it, repeat this setting as an override, ++{setting}."
            )


def foreign_settings(config: Any) -> Iterator[str]:
    """All settings, as `key=value`, that may execute code which is not this package's own."""
    yield from (f"{key}={target}" for key, target in foreign_targets(config))
    yield from (f"{key}={text}" for key, text in _texts(config) if COMPUTED.search(TIME.sub("", text)))


def foreign_targets(config: Any) -> Iterator[tuple[str, str]]:
    """Dotted key and value of all that names code which is not this package's own, at whatever depth.

    That is a `_target_`, or the module that registers a task of Gymnasium, in front of the task's name.
    """
    for key, node in components(config):
        target, task = str(node["_target_"]), str(node.get("id", ""))
        if not _is_ours(target):
            yield f"{key}._target_", target
        elif ":" in task:
            yield f"{key}.id", task


def _is_ours(target: str) -> bool:
    """Whether its code, not only its name, is in this package: modules of others can be reached through ours."""
    if not target.startswith(OURS) or "${" in target:
        return False
    try:
        found = get_object(target)
    except Exception:  # it names nothing, so nothing of others; whoever builds it says so
        return True
    return getattr(found, "__module__", "").startswith(OURS)


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text with its dotted key; items of lists are numbered from 0."""
    if isinstance(node, str):
        yield key, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield from _texts(child, f"{key}.{name}" if key else str(name))
