"""From `resume=...` to the job that goes on where the run was."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mlflow.exceptions import MlflowException
from omegaconf import DictConfig, OmegaConf

from mbrl_async.config import ConfigError
from mbrl_async.job import OUTPUT_TAG, Job
from mbrl_async.run_folder import CONFIG_FILE, HYDRA_FOLDER, LOG_FILE, OVERRIDES_FILE, Identity
from mbrl_async.search_path import settings_among
from mbrl_async.tracking.store import open_store
from mbrl_async.trust import foreign_settings, require_trusted

MAY_CHANGE = ("stop.", "checkpoint.", "tracking.uri", "resume")
"""Beginnings of the settings that a resumed run may have different from before: none alters what its workers do."""


def resumed(job: Job) -> Job:
    """The job that goes on with the run which `resume` names, by its stored configuration.

    Raises:
        ConfigError: there is no such run, a setting is changed that cannot be, or the stored configuration would
            execute foreign code.
        TrackingError: MLflow cannot be used as configured.
    """
    output = _output(job.cfg)
    identity = Identity.read(output)
    _require_the_same_run(str(job.cfg.resume), output, identity)
    cfg = OmegaConf.load(output / CONFIG_FILE)
    assert isinstance(cfg, DictConfig), "it was written by a job"
    config = OmegaConf.to_container(cfg)
    given = settings_among(job.overrides)  # nothing is looked for: the configuration is stored
    trusted = [override for override in given if override.lstrip("+") in set(foreign_settings(config))]
    _require_honourable([override for override in given if override not in trusted])
    require_trusted(config, trusted)
    cfg.tracking.uri = identity.tracking_uri  # absolute, wherever this process was started
    changes = [override for override in given if not override.startswith("resume=")]
    for change in changes:
        key = _key(change)
        OmegaConf.update(cfg, key, OmegaConf.select(job.cfg, key))
    _require_stored(cfg.tracking.uri, identity.run_id)
    changed = {_key(change) for change in changes}
    before = (output / OVERRIDES_FILE).read_text().splitlines()
    unchanged = [override for override in before if _key(override) not in changed]
    return Job(cfg, [*unchanged, *changes], identity.choices, output, resumed=identity.run_id, changes=changes)


def use_folder_of(job: Job, unused: Path) -> None:
    """Let the log go on in the folder of `job`, and take back the folder that Hydra made for a new run.

    Only Hydra's own files are removed, and folders that are empty then.
    """
    if unused.resolve() == job.output.resolve():
        return
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == unused.resolve():
            handler.close()  # opens the file of its new name with the next line
            written, handler.baseFilename = Path(handler.baseFilename), str(job.output.resolve() / LOG_FILE)
            if written.exists() and written.stat().st_size == 0:
                written.unlink()
    for name in ("config", "hydra", "overrides"):
        (unused / HYDRA_FOLDER / f"{name}.yaml").unlink(missing_ok=True)
    for folder in (unused / HYDRA_FOLDER, unused, unused.parent):
        with suppress(OSError):  # it is not there, or something else is in it
            folder.rmdir()


def _require_the_same_run(named: str, output: Path, identity: Identity) -> None:
    """A folder that was used again is no longer that of the run which MLflow knows it by."""
    if not Path(named).is_dir() and named != identity.run_id:
        raise ConfigError(
            f"resume={named}: its folder {output} belongs to run {identity.run_id} now, which took its place: "
            "resume that one, or start this run anew."
        )


def _require_stored(uri: str, run_id: str) -> None:
    try:
        open_store(uri, create=False).get_run(run_id)
    except MlflowException as error:
        raise ConfigError(
            f"resume: run {run_id} is not in {uri}: if the store was moved, say where it is with tracking.uri=..."
        ) from error


def _require_honourable(overrides: Sequence[str]) -> None:
    for override in overrides:
        if not _key(override).startswith(MAY_CHANGE):
            raise ConfigError(
                f"{override} cannot be changed in a resumed run, which would be another one then: leave it out, or "
                "start a new run without resume."
            )


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _output(cfg: DictConfig) -> Path:
    """The folder of the run, which `resume` names or MLflow knows."""
    named = str(cfg.resume)
    if Path(named).is_dir():
        return Path(named)
    client = open_store(cfg.tracking.uri, create=False)
    try:
        tags = client.get_run(named).data.tags
    except MlflowException as error:
        raise ConfigError(
            f"resume={named} is neither a folder nor a run in tracking.uri={cfg.tracking.uri}: give the id of a "
            "run, or its folder under outputs/."
        ) from error
    return Path(tags.get(OUTPUT_TAG, named))
