"""Who is made of what, and who talks to whom: the one place that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mbrl_async.collectors import settings_of
from mbrl_async.config import ConfigError
from mbrl_async.runtime.channels import Latest, Stream
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL, WORKERS, collector_names, role_of
from mbrl_async.runtime.worker import Worker, WorkerMaker
from mbrl_async.supplies import Supplies, Supply, torch_generator
from mbrl_async.types import Clock, State, TaskSpec, Trajectory

Configuration = Mapping[str, Any]
"""The composed configuration, resolved."""


@dataclass(frozen=True)
class Channels:
    """collectors --trajectories--> who learns; learn_model --models--> and improve_policy --policies--> who asks."""

    trajectories: Stream[Trajectory]
    models: Latest
    policies: Latest

    def state_dict(self) -> State:
        """What they hold, without the trajectories themselves."""
        return {each.name: getattr(self, each.name).state_dict() for each in fields(self)}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        for name, channel in state.items():
            getattr(self, name).load_state_dict(channel)


@dataclass(frozen=True)
class Maker:
    """Makes a worker of what its constructor asks for by name; can be pickled, so that another process makes it.

    Args:
        worker: its name; `configuration` has its role.
        configuration: the composed one, resolved, as it is for this worker.
        spec: of the task.
        channels: of the run.

    Raises (when it is called):
        ConfigError: the worker, or a part of it, asks for what nobody supplies.
        ValueError: something cannot be made of what it is given.
    """

    worker: str
    configuration: Configuration
    spec: TaskSpec
    channels: Channels

    def __call__(self, clock: Clock) -> Worker:
        """Make it, where it will run."""
        role = role_of(self.worker)
        supplies = self.supplies(clock=lambda _: clock)
        node = self.configuration["algorithm"]["workers"][role]
        made: Worker = supplies.make(f"algorithm.workers.{role}", node, draws_on=supplies.device)
        return made

    def supplies(self, **given: Supply) -> Supplies:
        """What the worker and its parts are made of; what is `given` takes the place of what they would get."""
        role = role_of(self.worker)
        device = "cpu" if role == COLLECT else self.configuration["devices"][role]
        table = _parts(self.configuration, self.spec) | _channels(self.configuration, self.channels) | given
        return Supplies(self.worker, device, table, self.configuration["seed"])


def worker_makers(
    configuration: Configuration, collectors: int, spec: TaskSpec, channels: Channels
) -> dict[str, WorkerMaker]:
    """A maker for each worker of the algorithm, and for each collector; learners see the task as the first one does."""
    makers: dict[str, WorkerMaker] = {}
    for role in WORKERS:
        if role in configuration["algorithm"]["workers"]:
            names = collector_names(collectors) if role == COLLECT else (role,)
            for number, name in enumerate(names):
                makers[name] = Maker(name, settings_of(configuration, number), spec, channels)
    return makers


def _channels(configuration: Configuration, channels: Channels) -> dict[str, Supply]:
    """The arrows: a worker is wired to those channels that it, or a part of it, names; somebody must publish there."""

    def published_by(worker: str, name: str) -> Supply:
        def supply(supplies: Supplies) -> Any:
            if worker not in configuration["algorithm"]["workers"]:
                raise ConfigError(f"{supplies.worker} asks for {name}, but algorithm.workers has no {worker}: add it.")
            return getattr(channels, name)

        return supply

    return {
        "trajectories": published_by(COLLECT, "trajectories"),
        "models": published_by(LEARN_MODEL, "models"),
        "policies": published_by(IMPROVE_POLICY, "policies"),
    }


def _parts(configuration: Configuration, spec: TaskSpec) -> dict[str, Supply]:
    """What there is besides channels: name of a constructor's argument -> what it is given."""

    def component(key: str, node: Configuration) -> Supply:
        return lambda supplies: supplies.make(key, node)

    def initial_policy(supplies: Supplies) -> Any:
        """Made alike for every worker: who acts before anything is published acts with what will be improved."""
        generator = torch_generator(configuration["seed"], "initial policy", "cpu")
        return supplies.make("policy", configuration["policy"], generator=generator)

    dynamics, algorithm = configuration["dynamics"], configuration["algorithm"]
    return {
        "device": lambda supplies: supplies.device,
        "pace": lambda _: configuration["pace"]["factor"],
        "observation_size": lambda _: spec.observation_size,
        "action_size": lambda _: spec.action_size,
        "learned": lambda _: spec.learned,
        "signals": lambda _: len(spec.learned),
        "members": lambda supplies: supplies["ensemble"].members,
        "task": component("env", configuration["env"]),
        "policy": initial_policy,
        # A model computes on the worker's device for everybody, for the collector that plans with it, too.
        "ensemble": lambda supplies: supplies.make(
            "dynamics.ensemble", dynamics["ensemble"], device=configuration["devices"][role_of(supplies.worker)]
        ),
        "trainer": component("dynamics.training", dynamics["training"]),
        "early_stopping": component("dynamics.early_stopping", dynamics["early_stopping"]),
        "buffer": component("dynamics.buffer", dynamics["buffer"]),
        # An algorithm brings parts of its own, under the names by which its workers ask for them.
        **{
            name: component(f"algorithm.{name}", node)
            for name, node in algorithm.items()
            if isinstance(node, Mapping) and "_target_" in node
        },
    }
