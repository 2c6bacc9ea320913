"""Early stopping that never stops, so that the model learner is always busy."""

from __future__ import annotations

from torch import Tensor

from mbrl_async.dynamics.early_stopping import EarlyStopping


class NeverStopping(EarlyStopping):
    """Lets all members learn on."""

    def update(self, validation_losses: Tensor) -> None:
        """Ignore the losses."""
