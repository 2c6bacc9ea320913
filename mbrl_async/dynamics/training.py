"""Supervised learning of the ensemble, one epoch at a time (paper, section 4: the model-learning worker)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mbrl_async.dynamics.adam import MemberwiseAdam
from mbrl_async.dynamics.buffer import MemberTransitions, TransitionBuffer
from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.types import State, require_finite


class EnsembleTrainer:
    """Minimises the loss of each member's output on normalised targets, with an Adam of its own.

    Adam's moments and step counts are never reset, and those of a member that is not trained stay as they are.
    """

    def __init__(
        self,
        *,
        ensemble: Ensemble,
        learning_rate: PositiveFloat,
        batch_size: PositiveInt,
        generator: torch.Generator,
    ) -> None:
        """Prepare to train the ensemble in place.

        Args:
            ensemble: what to train.
            learning_rate: Adam's.
            batch_size: transitions of one member in a minibatch.
            generator: source of the shuffling.
        """
        self._ensemble = ensemble
        self._batch_size = batch_size
        self._generator = generator
        self._adam = MemberwiseAdam.start(ensemble.network, learning_rate)

    def refit_normalisation(self, buffer: TransitionBuffer) -> None:
        """Take the normalisation from the training split; call it when the buffer has changed.

        Raises:
            ValueError: a split of the buffer is empty.
        """
        _require_data(buffer)
        self._ensemble.fit_normalisation(buffer.train)

    def epoch(self, buffer: TransitionBuffer, active: Tensor, check_interrupted: Callable[[], None]) -> Tensor:
        """Train every active member once on its training split, in minibatches shuffled for it alone.

        Args:
            buffer: where the training split is taken from.
            active: which members learn, bool (M,).
            check_interrupted: called before every minibatch; if it raises, no member has changed.

        Returns:
            Mean loss during the epoch of each member (M,); NaN for those that are not active.

        Raises:
            ValueError: a split of the buffer is empty, or no member is active.
            NonFiniteError: a loss is not finite; no member has changed.
        """
        _require_data(buffer)
        trained = self._indices(active)  # (K,)
        learner = self._adam.copy_of(trained)
        gradient = torch.zeros_like(learner.parameters)  # (K, P)
        total = learner.parameters.new_zeros(len(trained))  # (K,)
        for inputs, targets in self._minibatches(buffer.train, trained):
            check_interrupted()
            loss = self._ensemble.mlp.loss_and_gradient(learner.parameters, inputs, targets, gradient)
            learner.step(gradient)
            total += loss * inputs.shape[1]
        losses = total / buffer.train.size
        _require_finite_losses(losses, trained, "training loss")
        self._adam.take_over(trained, learner)
        return losses.new_full((self._ensemble.members,), torch.nan).index_copy_(0, trained, losses)

    def validation_losses(self, buffer: TransitionBuffer) -> Tensor:
        """Mean loss of each member (M,) on its own validation split.

        Raises:
            ValueError: a split of the buffer is empty.
            NonFiniteError: a loss is not finite.
        """
        _require_data(buffer)
        mlp, network = self._ensemble.mlp, self._ensemble.network
        total = network.new_zeros(len(network))  # (M,)
        for inputs, targets in self._split(*self._ensemble.normalised(buffer.validation)):
            total += mlp.loss(network, inputs, targets) * inputs.shape[1]
        losses = total / buffer.validation.size
        _require_finite_losses(losses, torch.arange(len(losses)), "validation loss")
        return losses

    def state_dict(self) -> State:
        """Adam's moments and step counts and the generator, as a copy; the ensemble is its owner's to save."""
        _, *moments = self._adam.tensors
        first_moment, second_moment, steps = (tensor.clone() for tensor in moments)
        generator = self._generator.get_state()
        return {"first_moment": first_moment, "second_moment": second_moment, "steps": steps, "generator": generator}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self._generator.set_state(state["generator"])
        self._adam.first_moment.copy_(state["first_moment"])
        self._adam.second_moment.copy_(state["second_moment"])
        self._adam.steps.copy_(state["steps"])

    def _indices(self, active: Tensor) -> Tensor:
        members = self._ensemble.members
        if active.shape != (members,) or active.dtype != torch.bool or not active.any():
            raise ValueError(
                f"active={active.tolist()}: give one bool a member, {members} in all, and at least one True."
            )
        return active.nonzero().squeeze(1).to(self._ensemble.network.device)

    def _minibatches(self, transitions: MemberTransitions, trained: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised inputs (K, B, O + A) and targets (K, B, O + E), in an order of its own for each member."""
        draw, size = self._generator, transitions.size
        orders = [torch.randperm(size, generator=draw, device=draw.device).to(trained.device) for _ in trained]
        shuffled = (
            torch.stack([rows[member].index_select(0, order) for member, order in zip(trained, orders, strict=True)])
            for rows in self._ensemble.normalised(transitions)
        )
        return self._split(*shuffled)

    def _split(self, inputs: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        size = self._batch_size
        return zip(torch.split(inputs, size, dim=1), torch.split(targets, size, dim=1), strict=True)


def _require_data(buffer: TransitionBuffer) -> None:
    if not buffer.trainable:
        raise ValueError("a split of the buffer is empty: append a trajectory first.")


def _require_finite_losses(losses: Tensor, members: Tensor, what: str) -> None:
    for member, loss in zip(members.tolist(), losses.tolist(), strict=True):
        require_finite(loss, f"member {member}, {what}")
