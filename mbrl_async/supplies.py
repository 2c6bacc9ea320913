"""Makes a worker, and the parts that it consists of, from what the arguments of their constructors ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from mbrl_async.config import ConfigError, alternatives, build, open_arguments

Supply = Callable[["Supplies"], Any]
"""Makes what an argument asks for, for one worker."""


class Supplies:
    """What one worker and its parts are given; each thing is made when it is first asked for, then shared among them.

    An argument gets the value that the configuration has for it; else, if its type is a random generator, one that
    nobody else draws from; else what `table` has under its name.

    Args:
        worker: its name.
        device: where it computes.
        table: name of an argument -> what makes it.
        seed: of the run.
    """

    def __init__(self, worker: str, device: str, table: Mapping[str, Supply], seed: int) -> None:
        self.worker = worker
        self.device = device
        self._table = table
        self._seed = seed
        self._made: dict[str, Any] = {}
        self._begun: list[str] = []

    def __getitem__(self, name: str) -> Any:
        """What the table has under `name`.

        Raises:
            ConfigError: it would need itself.
        """
        if name not in self._made:
            if name in self._begun:
                chain = ", which needs ".join([*self._begun[self._begun.index(name) :], name])
                raise ConfigError(f"{chain}: give one of them a value.")
            self._begun.append(name)
            self._made[name] = self._table[name](self)
            self._begun.pop()
        return self._made[name]

    def make(self, key: str, node: Mapping[str, Any], draws_on: str = "cpu", **given: Any) -> Any:
        """Make the component that the configuration describes at `key` by the resolved `node`.

        Args:
            key: also names the component's random generators.
            node: has a `_target_`.
            draws_on: the device of these generators.
            given: what this component gets instead of what the table has.

        Raises:
            ConfigError: an argument asks for what nobody supplies.
            ValueError: the component cannot be made of its arguments.
        """
        arguments = {
            name: self._argument(f"{key}.{name}", annotation, draws_on)
            for name, annotation in open_arguments(node).items()
            if name not in given
        }
        # Partial: Hydra would put the arguments into a configuration, and so copy what workers share.
        return build(DictConfig(node), _partial_=True)(**arguments, **given)

    def _argument(self, key: str, annotation: Any, draws_on: str) -> Any:
        if annotation is np.random.Generator:
            return np.random.default_rng(named_sequence(self._seed, f"{self.worker} {key}"))
        if annotation is torch.Generator:
            return torch_generator(self._seed, f"{self.worker} {key}", draws_on)
        name = key.rpartition(".")[2]
        if name not in self._table:
            raise ConfigError(f"{key} has no value, and nobody supplies it: {alternatives(name, list(self._table))}")
        return self[name]


def named_sequence(seed: int, name: str) -> np.random.SeedSequence:
    """The entropy of the generator `name`: unlike that of any other name, however many there are."""
    return np.random.SeedSequence(seed, spawn_key=tuple(name.encode()))


def torch_generator(seed: int, name: str, device: str) -> torch.Generator:
    """The generator `name`, on the device."""
    drawn = int(named_sequence(seed, name).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(drawn)
