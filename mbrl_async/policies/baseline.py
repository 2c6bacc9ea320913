"""The linear feature baseline (Duan et al. 2016, arXiv:1604.06778, §5): a value function by ridge regression."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mbrl_async.types import NonFiniteError, RolloutEnds, require_finite

OBSERVATION_LIMIT = 10.0
STEPS_PER_TIME_UNIT = 100.0
ATTEMPTS = 6  # the configured regularisation, then five tenfold ones


class LinearFeatureBaseline:
    """Ridge regression of returns on simple features; refitted from nothing on every batch.

    Args:
        regularisation: weight of the squared coefficients; ten times larger, up to five times, where the equations
            cannot be solved.
    """

    def __init__(self, *, regularisation: PositiveFloat) -> None:
        self._regularisation = regularisation

    def fit_predict(self, observations: Tensor, returns: Tensor, continuation: Tensor, ends: RolloutEnds) -> Tensor:
        """Fit the values of a batch of rollouts, and predict them.

        The value V is fitted so that V(s_t) = returns_t + continuation_t V(s_end): continuation_t is 0 where nothing
        follows the end, and discount^(end - t) where the return goes on with the value of the last observation. Steps
        behind the end of a rollout have no part in it.

        Args:
            observations: (T + 1, ..., R, O); the dimensions in between count tasks, each of which is fitted alone.
            returns: (T, ..., R), discounted, of the rewards alone.
            continuation: (T, ..., R).
            ends: where the rollouts ended.

        Returns:
            Values of all observations, (T + 1, ..., R), those behind the ends included.

        Raises:
            NonFiniteError: observations or returns are not finite, or no regularisation was enough.
        """
        require_finite(observations, "An observation that the baseline is fitted to")
        require_finite(returns, "A return that the baseline is fitted to")
        features = baseline_features(observations.movedim(0, -3))  # (..., T + 1, R, F)
        happened = ends.happened(len(returns)).movedim(0, -2)[..., None]  # (..., T, R, 1)
        # A row of zeros has no part in the normal equations.
        design = (self._temporal_differences(features, continuation, ends) * happened).flatten(-3, -2)  # (..., T R, F)
        targets = returns.double().movedim(0, -2).flatten(-2)  # (..., T R)
        coefficients = self._solve(design, targets)  # (..., F)
        values = (features.flatten(-3, -2) @ coefficients[..., None])[..., 0]  # (..., (T + 1) R)
        return values.reshape(features.shape[:-1]).movedim(-2, 0).to(returns.dtype)

    @staticmethod
    def _temporal_differences(features: Tensor, continuation: Tensor, ends: RolloutEnds) -> Tensor:
        """Features (..., T, R, F) of each step, less those of the end as far as its value follows."""
        if not bool(continuation.any()):  # three passes through the largest tensor of an update
            return features[..., :-1, :, :]
        last = ends.lengths[..., None, :, None].expand(*features.shape[:-3], 1, *features.shape[-2:])
        followed = continuation.double().movedim(0, -2)[..., None] * features.gather(-3, last)  # (..., T, R, F)
        return features[..., :-1, :, :] - followed

    def _solve(self, design: Tensor, targets: Tensor) -> Tensor:
        """Ridge coefficients (..., F) for `design` (..., N, F) and `targets` (..., N), by the normal equations."""
        gram = design.mT @ design  # (..., F, F)
        moments = design.mT @ targets[..., None]  # (..., F, 1)
        identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        solution = torch.full_like(moments[..., 0], torch.nan)  # (..., F)
        for attempt in range(ATTEMPTS):
            factor, failure = torch.linalg.cholesky_ex(gram + self._regularisation * 10**attempt * identity)
            coefficients = torch.cholesky_solve(moments, factor)[..., 0]  # (..., F)
            # Each task keeps the first regularisation that is enough for it, whatever the others need.
            wanting = ~solution.isfinite().all(-1) & (failure == 0)  # (...)
            solution = torch.where(wanting[..., None], coefficients, solution)
            if bool(solution.isfinite().all()):
                return solution
        raise NonFiniteError(
            f"The baseline cannot be fitted with regularisation={self._regularisation}, nor with "
            f"{10 ** (ATTEMPTS - 1):g} times as much: raise it, or look at the scale of the rewards."
        )


def baseline_features(observations: Tensor) -> Tensor:
    """The clipped observation, its square, three powers of time and 1: (..., T, R, O) -> (..., T, R, 2 O + 4).

    In float64: the normal equations square the features' condition number, and the small ridge drowns in float32.
    """
    clipped = observations.double().clamp(-OBSERVATION_LIMIT, OBSERVATION_LIMIT)  # (..., T, R, O)
    time = torch.arange(clipped.shape[-3], dtype=clipped.dtype, device=clipped.device) / STEPS_PER_TIME_UNIT  # (T,)
    powers = torch.stack([time, time**2, time**3, torch.ones_like(time)], dim=-1)  # (T, 4)
    powers = powers[:, None].expand(*clipped.shape[:-1], 4)
    return torch.cat([clipped, clipped.square(), powers], dim=-1)
