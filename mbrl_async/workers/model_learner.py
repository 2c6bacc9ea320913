"""The worker that learns the dynamics."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mbrl_async.dynamics.buffer import TransitionBuffer
from mbrl_async.dynamics.early_stopping import EarlyStopping
from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.dynamics.training import EnsembleTrainer
from mbrl_async.runtime.channels import Latest, Stream
from mbrl_async.types import Clock, Parameters, Signal, State, StepReport, Trajectory, copy_of, transitions_of

logger = logging.getLogger(__name__)


class ModelLearner:
    """One step: one epoch of every member that still learns.

    New trajectories make all members learn again; when validation has stopped all of them, there is nothing to do
    until more trajectories come.

    Args:
        ensemble: what to train.
        trainer: trains it.
        early_stopping: says which members still learn.
        buffer: keeps the transitions.
        trajectories: where they come from.
        models: where the ensemble goes.
        clock: the run's.
        learned: what of a step is learned besides the next observation.
        device: where the buffer is.
    """

    publishes = "model"

    def __init__(
        self,
        *,
        ensemble: Ensemble,
        trainer: EnsembleTrainer,
        early_stopping: EarlyStopping,
        buffer: TransitionBuffer,
        trajectories: Stream[Trajectory],
        models: Latest,
        clock: Clock,
        learned: Sequence[Signal],
        device: torch.device | str,
    ) -> None:
        self._ensemble = ensemble
        self._trainer = trainer
        self._early_stopping = early_stopping
        self._buffer = buffer
        self._trajectories = trajectories
        self._models = models
        self._clock = clock
        self._learned = learned
        self._device = device
        self._taken = 0
        self._epochs = 0
        self._told_of_the_limit = False

    @property
    def pulled(self) -> Mapping[str, int]:
        """Trajectories taken so far."""
        return {"trajectories": self._taken}

    def pull(self) -> bool:
        """Take every new trajectory; whether there is enough to learn from, and some member still learns."""
        arrived = self._trajectories.drain()
        for trajectory in arrived:
            self._buffer.append(transitions_of(trajectory, self._device, self._learned))
            self._ensemble.starts.append(torch.from_numpy(trajectory.observations[0]))
            self._tell_of_the_limit(trajectory)
        self._taken += len(arrived)
        if arrived and self._buffer.trainable:
            self._trainer.refit_normalisation(self._buffer)
            self._early_stopping.restart()
        return self._buffer.trainable and bool(self._early_stopping.active.any())

    def step(self) -> StepReport:
        """Train for one epoch.

        Raises:
            Interrupted: the run is over.
            NonFiniteError: a loss is not finite.
        """
        active = self._early_stopping.active
        train_losses = self._trainer.epoch(self._buffer, active, self._clock.check)
        validation_losses = self._trainer.validation_losses(self._buffer)
        self._early_stopping.update(validation_losses)
        self._epochs += 1
        return StepReport(
            {
                "train_loss": float(train_losses.nanmean()),
                "validation_loss": float(validation_losses.mean()),
                "active_members": float(active.sum()),
                "epochs": float(self._epochs),
                "transitions": float(len(self._buffer)),
            }
        )

    def _tell_of_the_limit(self, trajectory: Trajectory) -> None:
        """Say once that the model cannot predict what is observed."""
        largest, limit = float(np.abs(trajectory.observations).max()), self._ensemble.observation_limit
        if largest > limit and not self._told_of_the_limit:
            self._told_of_the_limit = True
            logger.warning(
                "A component of an observation is %.4g, but predictions end at dynamics.ensemble.observation_limit=%g: "
                "set it beyond what the task can observe.",
                largest,
                limit,
            )

    def result(self) -> Parameters:
        """Weights and normalisation."""
        return self._ensemble.state_dict()

    def push(self) -> None:
        """Publish weights and normalisation."""
        self._models.put(self.result())

    def state_dict(self) -> State:
        """Ensemble, trainer, early stopping, buffer and counts; inputs are in the buffer, so there are no others."""
        return {
            "ensemble": copy_of(self._ensemble.state_dict()),
            "trainer": self._trainer.state_dict(),
            "early_stopping": self._early_stopping.state_dict(),
            "buffer": self._buffer.state_dict(),
            "taken": self._taken,
            "epochs": self._epochs,
        }

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self._ensemble.load_state_dict(state["ensemble"])
        self._trainer.load_state_dict(state["trainer"])
        self._early_stopping.load_state_dict(state["early_stopping"])
        self._buffer.load_state_dict(state["buffer"])
        self._taken = state["taken"]
        self._epochs = state["epochs"]

    def close(self) -> None:
        """Nothing is held outside Python."""
