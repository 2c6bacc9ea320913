"""Folders of the user's own, in which Hydra looks for options beside `conf/`: `--config-dir` and `hydra.searchpath`.

They belong to a run's overrides: without them nobody can compose its configuration again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.conf import ConfigSourceInfo
from hydra.core.override_parser.overrides_parser import OverridesParser

from mbrl_async.config import ConfigError

KEY = "hydra.searchpath"
_FILE = "file://"
_SAID_BY_THE_USER = "command-line"
"""In what Hydra calls the provider of such a folder, however it was given."""


def search_path(sources: Iterable[str]) -> list[str]:
    """The override that makes Hydra look there, too; none if there is nowhere."""
    quoted = [_quoted(source) for source in sources]
    return [f"{KEY}=[{','.join(quoted)}]"] if quoted else []


def search_path_of(config_sources: Iterable[ConfigSourceInfo]) -> list[str]:
    """The same for the user's own among `hydra.runtime.config_sources`."""
    return search_path(
        f"{source.schema}://{source.path}" for source in config_sources if _SAID_BY_THE_USER in source.provider
    )


def settings_among(overrides: Iterable[str]) -> list[str]:
    """The overrides that change the configuration; the others say where to look for it."""
    return [override for override in overrides if not _is_search_path(override)]


def relocated(recorded: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The recorded overrides, with one search path in front: that of the new overrides if they have one.

    Raises:
        ConfigError: one of its folders is not there; Hydra would only miss what was in it.
    """
    where = [override for override in (*overrides, *recorded) if _is_search_path(override)][:1]
    for override in where:
        _require_folders(override)
    return [*where, *settings_among(recorded)]


def _is_search_path(override: str) -> bool:
    return override.startswith(f"{KEY}=")


def _require_folders(override: str) -> None:
    sources: Any = OverridesParser.create().parse_override(override).value()
    for source in map(str, sources):
        folder = source.removeprefix(_FILE)
        if source.startswith(_FILE) and not Path(folder).is_dir():
            raise ConfigError(
                f"{folder}, where this run had configuration of its own, is not there: say where that is now with "
                f"'{KEY}=[{_FILE}FOLDER]'."
            )


def _quoted(source: str) -> str:
    """For Hydra's grammar, which gives blanks, commas and brackets a meaning."""
    return "'" + source.replace("'", "\\'") + "'"
