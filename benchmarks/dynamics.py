"""Seconds an epoch of the ensemble, and predicted transitions a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.measurement import Measurement, median_seconds, torch_threads
from benchmarks.paper_ensemble import (
    ACTION_SIZE,
    MEMBERS,
    OBSERVATION_SIZE,
    make_ensemble,
    prediction_products,
    training_products,
)
from mbrl_async.dynamics.buffer import TransitionBuffer
from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.dynamics.precision import DTYPES, Precision
from mbrl_async.dynamics.prediction import Predictor
from mbrl_async.dynamics.training import EnsembleTrainer
from mbrl_async.types import Transitions

BATCH = 256  # the paper's
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


def measure(threads: int, repetitions: int) -> list[Measurement]:
    """Medians with this many torch threads, in every precision."""
    with torch_threads(threads):
        return [row for precision in DTYPES for row in _in_precision(precision, threads, repetitions)]


def _in_precision(precision: Precision, threads: int, repetitions: int) -> list[Measurement]:
    learner = make_learner(precision)
    rows = [
        *_training(learner, precision, threads, repetitions),
        _prediction(learner.ensemble.predictor(), precision, threads, 20 * repetitions),
    ]
    return [replace(row, name=f"{row.name}, {precision}") for row in rows]


def _training(learner: Learner, precision: Precision, threads: int, repetitions: int) -> list[Measurement]:
    epoch, products, one_member, validation = median_seconds(
        repetitions,
        lambda: learner.epoch(MEMBERS),
        products_of_an_epoch(precision),
        lambda: learner.epoch(1),
        lambda: learner.trainer.validation_losses(learner.buffer),
    )
    return [
        Measurement("epoch, all members", epoch, "s", threads, products / epoch),
        Measurement("epoch, one active member", one_member, "s", threads),
        Measurement("validation", validation, "s", threads),
    ]


def _prediction(model: Predictor, precision: Precision, threads: int, repetitions: int) -> Measurement:
    share = ROLLOUTS // MEMBERS
    observations, actions = torch.zeros(MEMBERS, share, OBSERVATION_SIZE), torch.zeros(MEMBERS, share, ACTION_SIZE)
    generator = torch.Generator()  # a deterministic ensemble draws nothing
    prediction, products = median_seconds(
        repetitions, lambda: model.predict(observations, actions, generator), prediction_products(share, precision)
    )
    name = f"predicted transitions, {ROLLOUTS} rollouts"
    return Measurement(name, ROLLOUTS / prediction, "1/s", threads, products / prediction)


def make_learner(precision: Precision = "float32", device: str = "cpu", transitions: int = TRANSITIONS) -> Learner:
    """One with the paper's sizes, and so many random transitions."""
    generator = torch.Generator().manual_seed(0)
    return learner_of([_transitions(transitions, generator, device)], generator, precision, device)


def learner_of(
    data: Sequence[Transitions], generator: torch.Generator, precision: Precision, device: str = "cpu"
) -> Learner:
    """One with the paper's settings, whose buffer got these transitions, the last ones last."""
    sizes = data[0].observations.shape[1], data[0].actions.shape[1]
    ensemble = make_ensemble(generator, precision, device, sizes)
    buffer = TransitionBuffer(
        members=MEMBERS,
        capacity=TRANSITIONS,
        validation_fraction=VALIDATION_FRACTION,
        observation_size=sizes[0],
        action_size=sizes[1],
        signals=0,
        generator=generator,
        device=device,
    )
    for transitions in data:
        buffer.append(transitions)
    trainer = EnsembleTrainer(ensemble=ensemble, learning_rate=5e-4, batch_size=BATCH, generator=generator)
    trainer.refit_normalisation(buffer)
    return Learner(ensemble, buffer, trainer)


def _transitions(number: int, generator: torch.Generator, device: str) -> Transitions:
    observations = torch.randn(number, OBSERVATION_SIZE, generator=generator).to(device)
    actions = torch.rand(number, ACTION_SIZE, generator=generator).to(device)
    return Transitions(observations, actions, 0.9 * observations)


def products_of_an_epoch(precision: Precision = "float32", transitions: int = TRANSITIONS) -> Callable[[], None]:
    """In the shapes of training with so many in the buffer, whose last batch is what is left."""
    batches, rest = divmod(round(transitions * (1 - VALIDATION_FRACTION)), BATCH)
    full, last = training_products(BATCH, precision), training_products(rest, precision)

    def epoch() -> None:
        for _ in range(batches):
            full()
        last()

    return epoch


def _go_on() -> None:
    """Nothing interrupts a benchmark."""
