"""Seconds an epoch of the ensemble, and predicted transitions a second: `python -m benchmarks.dynamics`.

An epoch is also given as a multiple of its floor: the same batched matrix products, with nothing between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from benchmarks.measurement import Measurement, median_seconds, print_table, torch_threads
from mbrl_async.dynamics.buffer import TransitionBuffer
from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.dynamics.training import EnsembleTrainer
from mbrl_async.types import Transitions

MEMBERS, HIDDEN, BATCH = 5, (512, 512, 512), 256  # the paper's ensemble
OBSERVATION_SIZE, ACTION_SIZE = 17, 6  # HalfCheetah
TRANSITIONS = 10_000  # a full buffer, of which 8000 are trained on
VALIDATION_FRACTION = 0.2
ROLLOUTS = 50  # imagined at once, an equal share for each member


@dataclass(frozen=True)
class Learner:
    """A full buffer, and what learns from it."""

    ensemble: Ensemble
    buffer: TransitionBuffer
    trainer: EnsembleTrainer

    def epoch(self, active_members: int) -> None:
        """Train so many of the members."""
        self.trainer.epoch(self.buffer, torch.arange(MEMBERS) < active_members, _go_on)


def measure(threads: int, repetitions: int = 5) -> list[Measurement]:
    """Medians with this many torch threads."""
    with torch_threads(threads):
        learner = _learner()
        epoch, floor, one_member, validation = median_seconds(
            repetitions,
            lambda: learner.epoch(MEMBERS),
            _matrix_products_of_an_epoch(),
            lambda: learner.epoch(1),
            lambda: learner.trainer.validation_losses(learner.buffer),
        )
        (prediction,) = median_seconds(20 * repetitions, _prediction(learner.ensemble))
    label = f"{threads} thread{'s' if threads > 1 else ''}"
    return [
        Measurement(f"epoch, all members, {label}", epoch, "s"),
        Measurement(f"epoch / matrix products alone, {label}", epoch / floor, ""),
        Measurement(f"epoch, one active member, {label}", one_member, "s"),
        Measurement(f"validation, {label}", validation, "s"),
        Measurement(f"predicted transitions, {ROLLOUTS} rollouts at once, {label}", ROLLOUTS / prediction, "1/s"),
    ]


def _learner() -> Learner:
    generator = torch.Generator().manual_seed(0)
    ensemble = Ensemble(
        observation_size=OBSERVATION_SIZE,
        action_size=ACTION_SIZE,
        members=MEMBERS,
        hidden=HIDDEN,
        minimum_std=1e-3,
        observation_limit=100.0,
        generator=generator,
        device="cpu",
    )
    buffer = TransitionBuffer(
        members=MEMBERS,
        capacity=TRANSITIONS,
        validation_fraction=VALIDATION_FRACTION,
        observation_size=OBSERVATION_SIZE,
        action_size=ACTION_SIZE,
        generator=generator,
        device="cpu",
    )
    buffer.append(_transitions(generator))
    trainer = EnsembleTrainer(ensemble=ensemble, learning_rate=5e-4, batch_size=BATCH, generator=generator)
    trainer.refit_normalisation(buffer)
    return Learner(ensemble, buffer, trainer)


def _transitions(generator: torch.Generator) -> Transitions:
    observations = torch.randn(TRANSITIONS, OBSERVATION_SIZE, generator=generator)
    actions = torch.rand(TRANSITIONS, ACTION_SIZE, generator=generator)
    return Transitions(observations, actions, 0.9 * observations)


def _matrix_products_of_an_epoch() -> Callable[[], None]:
    """Forward, and backward to weights and to inputs, in the shapes of training; the first inputs need no gradient."""
    rows = round(TRANSITIONS * (1 - VALIDATION_FRACTION))
    sizes = [OBSERVATION_SIZE + ACTION_SIZE, *HIDDEN, OBSERVATION_SIZE]
    activations = [torch.randn(MEMBERS, BATCH, size) for size in sizes]
    weights = [torch.randn(MEMBERS, fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]

    def multiply(batch: int) -> None:
        inputs = [activation[:, :batch] for activation in activations]
        for layer, weight in enumerate(weights):
            torch.bmm(inputs[layer], weight)
            torch.bmm(inputs[layer].transpose(1, 2), inputs[layer + 1])
            if layer > 0:
                torch.bmm(inputs[layer + 1], weight.transpose(1, 2))

    def epoch() -> None:
        for start in range(0, rows, BATCH):
            multiply(min(BATCH, rows - start))

    return epoch


def _prediction(ensemble: Ensemble) -> Callable[[], torch.Tensor]:
    share = ROLLOUTS // MEMBERS
    observations, actions = torch.zeros(MEMBERS, share, OBSERVATION_SIZE), torch.zeros(MEMBERS, share, ACTION_SIZE)
    return lambda: ensemble.predict(observations, actions)


def _go_on() -> None:
    """Nothing interrupts a benchmark."""


if __name__ == "__main__":
    print(f"{torch.get_float32_matmul_precision()} float32 precision of matrix products; medians of 5")
    for thread_count in (1, 2):
        print_table(measure(thread_count))
