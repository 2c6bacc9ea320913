import pytest
import torch

from mbrl_async.policies.baseline import LinearFeatureBaseline, baseline_features
from mbrl_async.types import NonFiniteError, RolloutEnds

STEPS, ROLLOUTS, SIZE = 30, 6, 4


def batch(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    observations = 3 * torch.randn(STEPS + 1, ROLLOUTS, SIZE, generator=generator, dtype=dtype)
    return observations, torch.randn(STEPS, ROLLOUTS, generator=generator, dtype=dtype)


def fit_predict(observations, returns, continuation=None, regularisation=1e-5, ends=None):
    continuation = torch.zeros_like(returns) if continuation is None else continuation
    ends = ends or RolloutEnds.at_horizon(returns)
    return LinearFeatureBaseline(regularisation=regularisation).fit_predict(observations, returns, continuation, ends)


def test_features_are_the_listed_ones():
    observations = torch.tensor([[[0.5, -20.0]], [[2.0, 30.0]]])  # (2, 1, 2)
    expected = torch.tensor(
        [
            [[0.5, -10.0, 0.25, 100.0, 0.0, 0.0, 0.0, 1.0]],
            [[2.0, 10.0, 4.0, 100.0, 1e-2, 1e-4, 1e-6, 1.0]],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(baseline_features(observations), expected, rtol=1e-15, atol=0)


def test_it_is_the_dense_ridge_solution():
    observations, returns = batch()
    features = baseline_features(observations)
    design = features[:-1].flatten(0, 1)
    # Ridge regression is least squares with sqrt(regularisation) I below the design.
    below = (1e-5**0.5) * torch.eye(design.shape[1], dtype=design.dtype)
    targets = torch.cat([returns.flatten(), torch.zeros(len(below), dtype=design.dtype)])
    coefficients = torch.linalg.lstsq(torch.cat([design, below]), targets[:, None]).solution[:, 0]
    # The normal equations square a condition number of 1e4: 1e8 x 1e-16, with room.
    torch.testing.assert_close(fit_predict(observations, returns), features @ coefficients, rtol=1e-6, atol=1e-6)


def test_it_fits_what_its_features_can_express():
    observations, _ = batch()
    time = torch.arange(STEPS + 1, dtype=torch.float64)[:, None] / 100
    values = 2 * observations[..., 0].clamp(-10, 10) - observations[..., 1].clamp(-10, 10) ** 2 + 5 * time + 3
    # The ridge biases a coefficient by about 1e-5 / (a row count of 180 x the least feature variance).
    torch.testing.assert_close(fit_predict(observations, values[:-1]), values, rtol=1e-3, atol=1e-3)


def test_single_precision_is_as_good_as_double():
    observations, returns = batch(dtype=torch.float32)
    expected = fit_predict(observations.double(), returns.double())
    # All of the solving is in double precision: only the rounding of the result is left.
    torch.testing.assert_close(fit_predict(observations, returns), expected.float(), rtol=1e-6, atol=1e-7)


def test_continuation_makes_the_values_consistent_with_the_last_one():
    observations, _ = batch()
    discount = 0.9
    rewards = torch.ones(STEPS, ROLLOUTS, dtype=torch.float64)
    left = torch.arange(STEPS, 0, -1, dtype=torch.float64)
    returns = ((1 - discount**left) / (1 - discount))[:, None] * rewards
    values = fit_predict(observations, returns, continuation=(discount**left)[:, None].expand(STEPS, ROLLOUTS))
    # A reward of 1 for ever is worth 1 / (1 - 0.9) = 10 everywhere; the ridge pulls that down a little.
    torch.testing.assert_close(values, torch.full_like(values, 10.0), rtol=1e-3, atol=0)


def test_nothing_is_kept_from_the_last_batch():
    baseline = LinearFeatureBaseline(regularisation=1e-5)
    observations, returns = batch()
    rest = (torch.zeros(STEPS, ROLLOUTS), RolloutEnds.at_horizon(torch.zeros(STEPS, ROLLOUTS)))
    first = baseline.fit_predict(observations, returns, *rest)
    baseline.fit_predict(*batch(seed=1), *rest)
    assert torch.equal(baseline.fit_predict(observations, returns, *rest), first)


def test_constant_and_repeated_observations_are_no_obstacle():
    observations, returns = batch(dtype=torch.float32)
    observations[..., 1] = 7.0
    observations[..., 3] = observations[..., 0]
    values = fit_predict(observations, returns)
    # Least squares with a constant among the features has residuals of mean 0, but for the ridge.
    assert (values[:-1] - returns).mean().abs() < 1e-4


def test_regularisation_grows_where_it_is_too_small():
    observations = torch.ones(STEPS + 1, ROLLOUTS, SIZE)
    returns = torch.ones(STEPS, ROLLOUTS)
    # All observation features are equal, so the last pivots are rounding errors of about 180 x 2e-16 = 4e-14.
    design = baseline_features(observations)[:-1].flatten(0, 1)
    gram = design.T @ design + 1e-15 * torch.eye(design.shape[1], dtype=design.dtype)
    assert torch.linalg.cholesky_ex(gram).info > 0, "1e-15 is already enough"
    values = fit_predict(observations, returns, regularisation=1e-15)
    torch.testing.assert_close(values, torch.ones(STEPS + 1, ROLLOUTS), rtol=1e-3, atol=0)
    with pytest.raises(NonFiniteError, match=r"regularisation=1e-40, nor with 100000 times as much"):
        fit_predict(observations, returns, regularisation=1e-40)


def test_each_task_is_fitted_alone_with_a_regularisation_of_its_own():
    observations, returns = batch()
    singular = torch.ones_like(observations)
    both = torch.stack([observations, singular], dim=1)  # (T + 1, 2, R, O)
    values = fit_predict(both, torch.stack([returns, returns], dim=1), regularisation=1e-15)
    assert values.shape == (STEPS + 1, 2, ROLLOUTS)
    for task, alone in enumerate((observations, singular)):
        expected = fit_predict(alone, returns, regularisation=1e-15)
        # The first is solved as before, to the last digits; the second is as singular as its rounding errors.
        torch.testing.assert_close(values[:, task], expected, rtol=(1e-9, 1e-2)[task], atol=(1e-9, 1e-2)[task])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_input_is_refused(bad):
    observations, returns = batch()
    with pytest.raises(NonFiniteError, match="A return that the baseline is fitted to is not finite"):
        fit_predict(observations, returns.index_fill(0, torch.tensor([3]), bad))
    with pytest.raises(NonFiniteError, match="An observation that the baseline is fitted to is not finite"):
        fit_predict(observations.index_fill(0, torch.tensor([STEPS]), bad), returns)


def test_steps_behind_an_end_have_no_part_in_the_fit():
    """Six rollouts that end after 9 to 30 steps are fitted like their steps alone."""
    observations, returns = batch()
    ends = RolloutEnds(torch.tensor([30, 9, 12, 30, 17, 23]), torch.tensor([True, True, False, False, True, True]))
    happened = ends.happened(STEPS)
    features = baseline_features(observations)
    last = features[ends.lengths, torch.arange(ROLLOUTS)]  # (R, F)
    continuation = torch.rand(STEPS, ROLLOUTS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    design = (features[:-1] - continuation[..., None] * last)[happened]
    below = (1e-5**0.5) * torch.eye(design.shape[1], dtype=design.dtype)
    targets = torch.cat([returns[happened], torch.zeros(len(below), dtype=design.dtype)])
    coefficients = torch.linalg.lstsq(torch.cat([design, below]), targets[:, None]).solution[:, 0]
    values = fit_predict(observations, returns, continuation, ends=ends)
    # The normal equations square a condition number of 1e4: 1e8 x 1e-16, with room.
    torch.testing.assert_close(values, features @ coefficients, rtol=1e-6, atol=1e-6)
