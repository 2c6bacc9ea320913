"""Play what a run has learned: `python -m mbrl_async.evaluate RUN_ID`, with settings as in conf/evaluate.yaml."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError
from safetensors.torch import load_file

from mbrl_async.analysis.statistics import Estimate, Resampling, estimate, mean
from mbrl_async.collectors import settings_of
from mbrl_async.commands import Tracking, command_settings
from mbrl_async.config import STRICT, ConfigError, build
from mbrl_async.envs.task import Task
from mbrl_async.evaluation import Act, mean_action, play, record, sampled_action
from mbrl_async.policies.adapted import own_parameters
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.tracking.store import TrackingError, open_store
from mbrl_async.trust import foreign_targets

ARTIFACT_FOLDER = "evaluation"
CONFIGURATION_FILE = "config.yaml"
NUMBERS_FILE = "evaluation.json"


class Settings(BaseModel):
    """What `conf/evaluate.yaml` holds."""

    model_config = STRICT
    episodes: PositiveInt
    seed: NonNegativeInt
    policy: str
    video: bool
    confidence: Annotated[float, Field(gt=0, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    output: str | None
    trust: bool
    tracking: Tracking


def evaluate(run_id: str, settings: Settings, console: Console) -> dict[str, Estimate]:
    """Play the run's policy; print, write and log what came out.

    Returns:
        `deterministic` and `stochastic` -> mean return (1,), with its interval over episodes.

    Raises:
        ConfigError: the run has no such policy, or cannot be played as asked.
        TrackingError: MLflow cannot be used as configured.
    """
    client = open_store(settings.tracking.uri)
    cfg = _configuration(client, run_id)
    _require_trusted(cfg, settings.trust)
    task: Task = build(DictConfig(settings_of(OmegaConf.to_container(cfg.env, resolve=True), 0)))
    policy = _policy(client, run_id, cfg, task, settings.policy)
    directory = Path(settings.output) if settings.output else Path("evaluations") / run_id
    directory.mkdir(parents=True, exist_ok=True)
    returns = {name: _returns(task, act, name, settings, directory) for name, act in _kinds(policy, settings.seed)}
    task.close()
    resampling = Resampling(settings.confidence, settings.resamples, np.random.default_rng(settings.seed))
    estimates = {
        name: estimate(partial(mean, each[:, None]), (len(each),), resampling) for name, each in returns.items()
    }
    _write(directory / NUMBERS_FILE, run_id, settings, returns, estimates)
    client.log_artifacts(run_id, str(directory), ARTIFACT_FOLDER)
    _print(console, settings, estimates, directory)
    return estimates


def _kinds(policy: GaussianMLP, seed: int) -> Iterator[tuple[str, Act]]:
    yield "deterministic", partial(mean_action, policy)
    yield "stochastic", partial(sampled_action, policy, torch.Generator().manual_seed(seed))


def _returns(task: Task, act: Act, name: str, settings: Settings, directory: Path) -> np.ndarray[Any, Any]:
    """(episodes,); all kinds play from the same start states."""
    generator = np.random.default_rng(settings.seed)
    first = []
    if settings.video:
        try:
            first = [record(task, act, np.random.default_rng(settings.seed), directory / f"{name}.mp4")]
        except RuntimeError as error:
            raise ConfigError(str(error)) from error
    return np.array(first + [play(task, act, generator) for _ in range(settings.episodes - len(first))])


def _configuration(client: MlflowClient, run_id: str) -> DictConfig:
    with TemporaryDirectory() as folder:
        path = _download(client, run_id, CONFIGURATION_FILE, folder)
        cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)
    return cfg


def _policy(client: MlflowClient, run_id: str, cfg: DictConfig, task: Task, artifact: str) -> GaussianMLP:
    spec = task.spec
    policy: GaussianMLP = build(
        cfg.policy,
        observation_size=spec.observation_size,
        action_size=spec.action_size,
        generator=torch.Generator(),
        device="cpu",
    )
    with TemporaryDirectory() as folder:
        path = _download(client, run_id, artifact, folder)
        try:
            policy.load_state_dict(own_parameters(load_file(path)))
        except (SafetensorError, RuntimeError) as error:
            raise ConfigError(f"policy={artifact} holds no parameters of this run's policy ({error}).") from error
    return policy


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


def _require_trusted(cfg: DictConfig, trust: bool) -> None:
    """A configuration names classes: those of others are imported only if the user says so."""
    # Resolved, as it will be built: an interpolation could bring a class from anywhere.
    named = {name: OmegaConf.to_container(cfg[name], resolve=True) for name in ("env", "policy") if name in cfg}
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
    try:
        if not arguments or "=" in arguments[0]:
            raise ConfigError("Write python -m mbrl_async.evaluate RUN_ID, with the id of a run from mlflow ui.")
        evaluate(arguments[0], command_settings("evaluate", arguments[1:], Settings), Console())
    except (ConfigError, TrackingError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    # MuJoCo reads it when it draws first; without a screen its default finds nothing to draw with.
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")
    sys.exit(main(sys.argv[1:]))
