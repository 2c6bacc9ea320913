"""Play what a run has learned: `python -m mbrl_async.evaluate RUN_ID`, with settings as in conf/evaluate.yaml."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError
from safetensors.torch import load_file

from mbrl_async.analysis.statistics import Estimate, Resampling, estimate, mean
from mbrl_async.checkpoint.codec import CheckpointError
from mbrl_async.checkpoint.snapshots import read_snapshot
from mbrl_async.collectors import build_first
from mbrl_async.commands import Tracking, command_settings, help_wanted, output_folder
from mbrl_async.config import ConfigError
from mbrl_async.envs.task import Task
from mbrl_async.evaluation import play, record
from mbrl_async.players import (
    PLANNER_SECTIONS,
    MisfitError,
    Player,
    computing_as_its_collector,
    planner_players,
    plans,
    policy_players,
)
from mbrl_async.results import MODEL_FILE, POLICY_FILE
from mbrl_async.run_folder import CONFIG_FILE
from mbrl_async.settings import STRICT
from mbrl_async.tracking.store import TrackingError, open_store
from mbrl_async.trust import foreign_targets
from mbrl_async.types import NonFiniteError, Parameters, RealSystemError

ARTIFACT_FOLDER = "evaluation"
NUMBERS_FILE = "evaluation.json"


class Settings(BaseModel):
    """What `conf/evaluate.yaml` holds."""

    model_config = STRICT
    episodes: PositiveInt
    seed: NonNegativeInt
    policy: str | None
    model: str | None
    snapshot: str | None
    video: bool
    confidence: Annotated[float, Field(gt=0, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    output: str | None
    trust: bool
    tracking: Tracking


@dataclass(frozen=True)
class Kind:
    """What of a run is played."""

    name: str
    """Of the parameters, and of the setting that says which."""
    file: str
    """The artifact that a run ends with."""
    channel: str
    """The field of `Channels` that holds them."""
    sections: Sequence[str]
    """Those of the configuration whose code is executed."""
    acts: str
    """A verb for who acts."""


POLICY = Kind("policy", POLICY_FILE, "policies", ("env", "policy"), "acts with a policy")
PLANNER = Kind("model", MODEL_FILE, "models", PLANNER_SECTIONS, "plans in a model")

SOURCES = ("policy", "model", "snapshot")
"""Settings that say which parameters are played."""


@dataclass(frozen=True)
class _Source:
    setting: str
    """Where the parameters are from, as the user would write it."""
    name: str
    """Of the folder of what comes out: another source or seed has another one."""
    parameters: Parameters


def evaluate(run_id: str, settings: Settings, console: Console) -> dict[str, Estimate]:
    """Play what the run has learned; print, write and log what came out.

    Returns:
        `deterministic` and `stochastic`, or of a planner `planned` -> mean return (1,), with its interval over
        episodes.

    Raises:
        ConfigError: the run has nothing of the kind, or cannot be played as asked.
        NonFiniteError: the model predicts what is not finite.
        RealSystemError: the run's robot is away, or was lost.
        TrackingError: MLflow cannot be used as configured.
    """
    client = open_store(settings.tracking.uri, create=False)
    cfg = _configuration(client, run_id)
    kind = PLANNER if plans(cfg) else POLICY
    _require_trusted(cfg, kind, settings.trust)
    source = _source(client, run_id, settings, kind)
    with closing(build_first(cfg.env)) as task, computing_as_its_collector(cfg):
        players = _players(cfg, task, source, settings.seed)
        directory = output_folder(settings.output or str(Path("evaluations") / run_id / source.name))
        returns = {name: _returns(task, player, name, settings, directory) for name, player in players.items()}
    resampling = Resampling(settings.confidence, settings.resamples, np.random.default_rng(settings.seed))
    estimates = {
        name: estimate(partial(mean, each[:, None]), (len(each),), resampling) for name, each in returns.items()
    }
    _write(directory / NUMBERS_FILE, run_id, settings, returns, estimates)
    videos = [directory / f"{name}.mp4" for name in players if settings.video]
    for path in (directory / NUMBERS_FILE, *videos):  # not the folder, which may hold what is not ours
        client.log_artifact(run_id, str(path), f"{ARTIFACT_FOLDER}/{source.name}")
    _print(console, settings, estimates, directory)
    return estimates


def _returns(task: Task, player: Player, name: str, settings: Settings, directory: Path) -> np.ndarray[Any, Any]:
    """(episodes,); all kinds play from the same start states."""
    generator = np.random.default_rng(settings.seed)
    first = []
    if settings.video:
        try:
            first = [record(task, player(), generator, directory / f"{name}.mp4")]
        except RuntimeError as error:
            raise ConfigError(str(error)) from error
    return np.array(first + [play(task, player(), generator) for _ in range(settings.episodes - len(first))])


def _configuration(client: MlflowClient, run_id: str) -> DictConfig:
    with TemporaryDirectory() as folder:
        path = _download(client, run_id, CONFIG_FILE, folder)
        cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)
    return cfg


def _players(cfg: DictConfig, task: Task, source: _Source, seed: int) -> dict[str, Player]:
    try:
        if plans(cfg):
            return planner_players(cfg, task, source.parameters, seed)
        return policy_players(cfg, task.spec, source.parameters, seed)
    except MisfitError as error:
        raise ConfigError(f"{source.setting} {error}") from error


def _source(client: MlflowClient, run_id: str, settings: Settings, kind: Kind) -> _Source:
    """Where the user wants it from."""
    _require_one_source(settings, kind)
    if settings.snapshot is not None:
        name = f"{Path(settings.snapshot).resolve().name}-seed-{settings.seed}"
        return _Source(f"snapshot={settings.snapshot}", name, _from_snapshot(settings.snapshot, kind))
    artifact = getattr(settings, kind.name) or kind.file
    setting = f"{kind.name}={artifact}"
    with TemporaryDirectory() as folder:
        path = _download(client, run_id, artifact, folder)
        try:
            return _Source(setting, f"{Path(artifact).stem}-seed-{settings.seed}", load_file(path))
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{setting} holds no parameters of this run's {kind.name} ({error}).") from error


def _require_one_source(settings: Settings, kind: Kind) -> None:
    given = {name: value for name in SOURCES if (value := getattr(settings, name)) is not None}
    said = " and ".join(f"{name}={value}" for name, value in given.items())
    if len(given) > 1:
        raise ConfigError(f"{said} name several things to play: give one of them.")
    if not given.keys() <= {kind.name, "snapshot"}:
        raise ConfigError(f"{said} cannot be played: this run {kind.acts}; write {kind.name}= or snapshot= instead.")


def _from_snapshot(folder: str, kind: Kind) -> Parameters:
    try:
        held = read_snapshot(Path(folder)).channels[kind.channel]
    except (CheckpointError, OSError, KeyError) as error:
        raise ConfigError(
            f"snapshot={folder} is no snapshot that can be read ({error}): give a folder in checkpoint/snapshots of "
            "the run's files."
        ) from error
    if not held:
        raise ConfigError(f"snapshot={folder} was made before there was a {kind.name}: give a later one.")
    parameters: Parameters = held["parameters"]
    return parameters


def _download(client: MlflowClient, run_id: str, artifact: str, folder: str) -> str:
    try:
        return str(client.download_artifacts(run_id, artifact, folder))
    except (MlflowException, OSError) as error:
        known = _artifacts(client, run_id)
        raise ConfigError(f"The run {run_id} has no {artifact}: it has {', '.join(known)}.") from error


def _artifacts(client: MlflowClient, run_id: str) -> list[str]:
    try:
        return sorted(artifact.path for artifact in client.list_artifacts(run_id)) or ["no artifacts"]
    except MlflowException as error:
        raise ConfigError(f"There is no run {run_id}: copy the id of one from mlflow ui.") from error


def _require_trusted(cfg: DictConfig, kind: Kind, trust: bool) -> None:
    """A configuration names classes: those of others are imported only if the user says so."""
    # Resolved, as it will be built: an interpolation could bring a class from anywhere.
    named = {name: OmegaConf.to_container(cfg[name], resolve=True) for name in kind.sections if name in cfg}
    foreign = [target for _, target in foreign_targets(named)]
    if foreign and not trust:
        raise ConfigError(
            f"The run's configuration names {', '.join(foreign)}, which is code from outside this package: "
            "look at it, then write trust=true."
        )


def _write(
    path: Path,
    run_id: str,
    settings: Settings,
    returns: Mapping[str, np.ndarray[Any, Any]],
    estimates: Mapping[str, Estimate],
) -> None:
    numbers = {
        name: {"mean": float(each.value[0]), "interval": _ends(each), "returns": returns[name].tolist()}
        for name, each in estimates.items()
    }
    content = {"run": run_id, "settings": settings.model_dump(), **numbers}
    path.write_text(json.dumps(content, indent=2) + "\n")


def _ends(each: Estimate) -> list[float] | None:
    return None if each.interval is None else [float(end[0]) for end in each.interval]


def _print(console: Console, settings: Settings, estimates: Mapping[str, Estimate], directory: Path) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("actions", "mean return", f"{settings.confidence:.0%} interval over {settings.episodes} episodes"):
        table.add_column(column)
    for name, each in estimates.items():
        ends = _ends(each)
        interval = "not possible: one episode" if ends is None else f"{ends[0]:.1f} to {ends[1]:.1f}"
        table.add_row(name, f"{each.value[0]:.1f}", interval)
    console.print(table)
    console.print(f"files: {directory}", markup=False, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> int:
    """Play what the command line names; the exit status: 0, or 2 if that cannot be done."""
    if help_wanted("evaluate", arguments):
        return 0
    try:
        if not arguments or "=" in arguments[0]:
            raise ConfigError("Write python -m mbrl_async.evaluate RUN_ID, with the id of a run from mlflow ui.")
        evaluate(arguments[0], command_settings("evaluate", arguments[1:], Settings), Console())
    except (ConfigError, TrackingError, NonFiniteError, RealSystemError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    # MuJoCo reads it when it draws first; without a screen its default finds nothing to draw with.
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")
    sys.exit(main(sys.argv[1:]))
