"""The same work done by mbrl-lib (Pineda et al. 2021, arXiv:2104.10159), measured beside ours.

It is no requirement of this project. A folder of its own holds it:

    pip install --no-deps --target FOLDER mbrl==0.2.0 termcolor tqdm
    python -m benchmarks peer --mbrl-lib FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.dynamics import BATCH, TRANSITIONS, VALIDATION_FRACTION, make_learner
from benchmarks.measurement import Measurement, median_seconds, torch_threads
from benchmarks.paper_ensemble import ACTION_SIZE, HIDDEN, MEMBERS, OBSERVATION_SIZE
from benchmarks.policy_step import HORIZON, PolicyStep, RewardedVelocity
from mbrl_async.dynamics.precision import DTYPES

Action = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """How mbrl-lib is used."""

    name: str
    deterministic: bool
    """Whether the networks predict no variance, as ours."""
    as_arrays: bool
    """Whether the imagined environment answers with NumPy arrays."""


DEFAULT = Setting("as it comes", deterministic=False, as_arrays=True)
BEST = Setting("at its best", deterministic=True, as_arrays=False)


class MbrlLib:
    """An ensemble of the paper's size, its trainer and its imagined environment."""

    def __init__(self, setting: Setting) -> None:
        """`load` comes first."""
        from mbrl.models import GaussianMLP, ModelEnv, ModelTrainer, OneDTransitionRewardModel

        network = GaussianMLP(
            OBSERVATION_SIZE + ACTION_SIZE,
            OBSERVATION_SIZE,
            device="cpu",
            num_layers=len(HIDDEN),
            ensemble_size=MEMBERS,
            hid_size=HIDDEN[0],
            deterministic=setting.deterministic,
            propagation_method="random_model",  # a fresh partition of the rollouts each step, as ours
        )
        model = OneDTransitionRewardModel(network, normalize=True, learned_rewards=False)
        self._setting = setting
        self._batches = _batches()
        model.update_normalizer(self._batches.transitions)
        self._trainer = ModelTrainer(model, optim_lr=5e-4)
        spaces: Any = SimpleNamespace(observation_space=None, action_space=None)
        self._environment = ModelEnv(spaces, model, _never_ends, _reward)
        self._step = PolicyStep()

    def epoch(self) -> None:
        """Every member once through its training data."""
        self._trainer.train(self._batches, num_epochs=1, evaluate=False, silent=True)

    @torch.no_grad()
    def imagine(self, rollouts: int) -> Tensor:
        """Rollouts of the paper's length with our policy; their observations (T + 1, R, O)."""
        policy, noise = self._step.policy(), torch.randn(HORIZON, rollouts, ACTION_SIZE)
        observations = torch.empty(HORIZON + 1, rollouts, OBSERVATION_SIZE)
        observations[0] = 0.1 * torch.randn(rollouts, OBSERVATION_SIZE)
        state = self._environment.reset(observations[0].numpy(), return_as_np=self._setting.as_arrays)
        for t in range(HORIZON):
            sampled = policy(observations[t]).sample(noise[t]).clamp(-1, 1)
            action = sampled.numpy() if self._setting.as_arrays else sampled
            following, _, _, state = self._environment.step(action, state, sample=not self._setting.deterministic)
            observations[t + 1] = torch.as_tensor(following)
        return observations


def load(folder: Path) -> None:
    """Make mbrl-lib importable from the folder that it was installed into.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not (folder / "mbrl").is_dir():
        raise FileNotFoundError(
            f"--mbrl-lib {folder}: there is no mbrl in it; "
            f"pip install --no-deps --target {folder} mbrl==0.2.0 termcolor tqdm"
        )
    sys.path.append(str(folder))  # last: what this project pins stays first


def measure(threads: int, repetitions: int, rollouts: tuple[int, ...]) -> list[Measurement]:
    """Ours and mbrl-lib's, in turn, with this many torch threads; ours with its ratio to mbrl-lib at its best."""
    with torch_threads(threads):
        peers = {setting.name: MbrlLib(setting) for setting in (DEFAULT, BEST)}
        learners = {name: make_learner(name) for name in DTYPES}
        steps = {name: PolicyStep(name) for name in DTYPES}
        epochs: dict[str, Action] = {name: partial(learner.epoch, MEMBERS) for name, learner in learners.items()}
        epochs |= {name: peer.epoch for name, peer in peers.items()}
        rows = _rows("epoch, all members", epochs, threads, repetitions)
        for count in rollouts:
            actions: dict[str, Action] = {name: partial(step.imagine, count) for name, step in steps.items()}
            actions |= {name: partial(peer.imagine, count) for name, peer in peers.items()}
            seconds = _rows(f"imagined transitions, {count} rollouts", actions, threads, repetitions)
            rows += [replace(row, value=count * HORIZON / row.value, unit="1/s") for row in seconds]
    return rows


def _rows(figure: str, actions: Mapping[str, Action], threads: int, repetitions: int) -> list[Measurement]:
    seconds = dict(zip(actions, median_seconds(repetitions, *actions.values()), strict=True))
    ours = {name: seconds.pop(name) for name in DTYPES}
    best = seconds[BEST.name]
    return [
        *(Measurement(f"{figure}, {name}", each, "s", threads, None, best / each) for name, each in ours.items()),
        *(Measurement(f"{figure}: mbrl-lib {name}", each, "s", threads) for name, each in seconds.items()),
    ]


def _batches() -> Any:
    """As much training data as ours, in mbrl-lib's iterator with an order for each member."""
    from mbrl.types import TransitionBatch
    from mbrl.util.replay_buffer import BootstrapIterator

    generator = np.random.default_rng(0)
    count = round(TRANSITIONS * (1 - VALIDATION_FRACTION))
    observations = generator.standard_normal((count, OBSERVATION_SIZE), np.float32)
    actions = generator.random((count, ACTION_SIZE), np.float32)
    nothing = np.zeros(count, np.float32)
    transitions = TransitionBatch(observations, actions, 0.9 * observations, nothing, nothing, nothing)
    return BootstrapIterator(transitions, BATCH, MEMBERS, shuffle_each_epoch=True, rng=generator)


def _reward(actions: Tensor, next_observations: Tensor) -> Tensor:
    """HalfCheetah's, (N, 1), of the next observation, because mbrl-lib gives no other."""
    return RewardedVelocity().reward(next_observations, actions, next_observations)[:, None]


def _never_ends(_actions: Tensor, next_observations: Tensor) -> Tensor:
    return torch.zeros(len(next_observations), 1, dtype=torch.bool)
