"""Whose code a configuration names: data from a store must not choose what is executed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hydra.utils import get_object

from mbrl_async.config import components

OURS = "mbrl_async."


def foreign_targets(config: Any) -> Iterator[tuple[str, str]]:
    """Dotted key and value of every `_target_`, at whatever depth, that is not this package's own code."""
    for key, node in components(config):
        target = str(node["_target_"])
        if not _is_ours(target):
            yield f"{key}._target_", target


def _is_ours(target: str) -> bool:
    """Whether its code, not only its name, is in this package: modules of others can be reached through ours."""
    if not target.startswith(OURS):
        return False
    try:
        found = get_object(target)
    except Exception:  # it names nothing, so nothing of others; whoever builds it says so
        return True
    return getattr(found, "__module__", "").startswith(OURS)
