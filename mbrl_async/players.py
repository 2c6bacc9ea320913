"""Who plays a recorded run: the policy that it learned, or the planner that acted in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from mbrl_async.config import ConfigError, build
from mbrl_async.envs.task import Task
from mbrl_async.evaluation import Act, mean_action, sampled_action
from mbrl_async.policies.adapted import own_parameters
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.runtime.channels import Latest, Stream
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY
from mbrl_async.types import Parameters, TaskSpec
from mbrl_async.wiring import Channels, Maker

Player = Callable[[], Act]
"""Begins an episode; what acts in it."""

PLANNER_SECTIONS = ("env", "policy", "dynamics", "algorithm", "pace")
"""What a planner is made of."""


class MisfitError(Exception):
    """The parameters are not those of what shall play; the message is a sentence without its subject."""


def plans(cfg: DictConfig) -> bool:
    """Whether the run's collector planned, because nobody improved a policy."""
    workers = OmegaConf.select(cfg, "algorithm.workers")
    return workers is not None and IMPROVE_POLICY not in workers


@contextmanager
def computing_as_its_collector(cfg: DictConfig) -> Iterator[None]:
    """Torch with the threads and the matrix products of the run's collector; afterwards as it was before.

    A plan is many small products: on two busy cores a second thread made it three to eighty times slower.
    """
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        torch.set_num_threads(OmegaConf.select(cfg, f"torch_threads.{COLLECT}") or before[0])
        torch.set_float32_matmul_precision(OmegaConf.select(cfg, "matmul_precision") or before[1])
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def policy_players(cfg: DictConfig, spec: TaskSpec, parameters: Parameters, seed: int) -> dict[str, Player]:
    """The policy's mean actions as `deterministic`, and sampled ones as `stochastic`.

    Raises:
        MisfitError: these are no parameters of the run's policy.
    """
    sizes = {"observation_size": spec.observation_size, "action_size": spec.action_size}
    policy: GaussianMLP = build(cfg.policy, **sizes, generator=torch.Generator(), device="cpu")
    try:
        policy.load_state_dict(own_parameters(parameters))
    except RuntimeError as error:
        raise MisfitError(_misfit("policy", error)) from error
    generator = torch.Generator().manual_seed(seed)
    return {
        "deterministic": lambda: partial(mean_action, policy),
        "stochastic": lambda: partial(sampled_action, policy, generator),
    }


def planner_players(cfg: DictConfig, task: Task, parameters: Parameters, seed: int) -> dict[str, Player]:
    """The collector's own actor, as `planned`: it plans every action in the model with these parameters.

    Args:
        cfg: of the run.
        task: gives reward and termination.
        parameters: of the model.
        seed: of the candidates.

    Raises:
        MisfitError: these are no parameters of the run's model.
        ConfigError: the planner cannot be made as it was.
    """
    channels = Channels(Stream(), Latest(), Latest())
    channels.models.put(parameters)
    maker = Maker(COLLECT, _planner_configuration(cfg, seed), task.spec, channels)
    try:
        actor = maker.supplies(task=lambda _: task)["actor"]
        actor.pull()
    except RuntimeError as error:
        raise MisfitError(_misfit("model", error)) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"The run's planner cannot be made: {error}") from error

    def begin() -> Act:
        actor.pull()  # forgets the last episode's plan
        act: Act = actor.act
        return act

    return {"planned": begin}


def _planner_configuration(cfg: DictConfig, seed: int) -> Mapping[str, Any]:
    missing = [name for name in PLANNER_SECTIONS if name not in cfg]
    if missing:
        raise ConfigError(
            f"The run's configuration has no {', '.join(missing)}, so that its planner cannot be made again: play the "
            "run with the version of this program that recorded it."
        )
    sections = {name: OmegaConf.to_container(cfg[name], resolve=True) for name in PLANNER_SECTIONS}
    device = OmegaConf.select(cfg, "devices.collect")
    if device is None or not torch.cuda.is_available():
        device = "cpu"
    return {**sections, "seed": seed, "devices": {COLLECT: device}}


def _misfit(what: str, error: RuntimeError) -> str:
    return f"holds no parameters of this run's {what} ({' '.join(str(error).split())})."
