from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mbrl_async.dynamics.buffer import TransitionBuffer
from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.dynamics.outputs import Output, Point
from mbrl_async.dynamics.precision import Precision
from mbrl_async.types import Transitions

OBSERVATION_SIZE = 3
ACTION_SIZE = 2


@pytest.fixture
def make_generator() -> Callable[[int], torch.Generator]:
    return lambda seed: torch.Generator().manual_seed(seed)


@pytest.fixture
def make_ensemble(make_generator):
    def make(
        members: int = 3,
        seed: int = 0,
        hidden: tuple[int, ...] = (16, 16),
        limit: float = 100.0,
        deviations: float | None = None,
        output: Output | None = None,
        signals: int = 0,
        precision: Precision = "float32",
    ) -> Ensemble:
        return Ensemble(
            observation_size=OBSERVATION_SIZE,
            action_size=ACTION_SIZE,
            signals=signals,
            members=members,
            hidden=hidden,
            minimum_std=1e-3,
            observation_limit=limit,
            observation_deviations=deviations,
            output=output or Point(),
            precision=precision,
            generator=make_generator(seed),
            device="cpu",
        )

    return make


@pytest.fixture
def make_buffer(make_generator):
    def make(
        members: int = 3, capacity: int = 1000, fraction: float = 0.2, seed: int = 1, signals: int = 0
    ) -> TransitionBuffer:
        return TransitionBuffer(
            members=members,
            capacity=capacity,
            validation_fraction=fraction,
            observation_size=OBSERVATION_SIZE,
            action_size=ACTION_SIZE,
            signals=signals,
            generator=make_generator(seed),
            device="cpu",
        )

    return make


@pytest.fixture
def linear_transitions(make_generator):
    """Next observation = 0.9 observation + actions into the first two dimensions."""

    def make(size: int, seed: int = 2) -> Transitions:
        generator = make_generator(seed)
        observations = torch.randn(size, OBSERVATION_SIZE, generator=generator)
        actions = torch.rand(size, ACTION_SIZE, generator=generator) * 2 - 1
        effect = torch.nn.functional.pad(actions, (0, OBSERVATION_SIZE - ACTION_SIZE))
        return Transitions(observations, actions, 0.9 * observations + effect)

    return make
