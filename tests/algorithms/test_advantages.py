import pytest
import torch

from mbrl_async.algorithms.advantages import (
    AdvantageEstimator,
    discounted_sums,
    generalised_advantages,
    normalise,
)
from mbrl_async.policies.baseline import LinearFeatureBaseline
from mbrl_async.types import RolloutEnds


class FixedBaseline:
    """Answers with given values, and keeps what it was asked."""

    def __init__(self, values):
        self.values = values

    def fit_predict(self, observations, returns, continuation, ends):
        self.asked = (observations, returns, continuation, ends)
        return self.values.clone()


def estimator(baseline, *, discount=0.5, gae_lambda=1.0, bootstrap="zero"):
    return AdvantageEstimator(discount=discount, gae_lambda=gae_lambda, bootstrap=bootstrap, baseline=baseline)


def whole(rewards):
    return RolloutEnds.at_horizon(rewards)


def whole_normalised(advantages):
    return normalise(advantages, torch.ones_like(advantages, dtype=torch.bool))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_discounted_sums_of_three_rewards_by_hand():
    terms = torch.tensor([[1.0, 0.0], [2.0, 4.0], [4.0, 8.0]])
    expected = torch.tensor([[3.0, 4.0], [4.0, 8.0], [4.0, 8.0]])  # 1 + 2/2 + 4/4; 2 + 4/2; 4
    assert torch.equal(discounted_sums(terms, 0.5), expected)


@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_discounted_sums_at_the_ends_of_the_range(factor):
    terms = random(5, 3)
    expected = terms if factor == 0 else terms.flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(discounted_sums(terms, factor), expected, rtol=1e-12, atol=1e-12)


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0], [2.0]])
    values = torch.tensor([[4.0], [2.0], [8.0]])
    # Errors: 1 + 2/2 - 4 = -2; 2 + 8/2 - 2 = 4. First advantage: -2 + (0.5 x 0.25) x 4 = -1.5.
    expected = torch.tensor([[-1.5], [4.0]])
    assert torch.equal(generalised_advantages(rewards, values, 0.5, 0.25), expected)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.975, 1.0])
def test_advantages_are_the_weighted_mean_of_n_step_ones(gae_lambda):
    steps, discount = 20, 0.99
    rewards, values = random(steps, 3), random(steps + 1, 3, seed=1)
    expected = torch.zeros(steps, 3, dtype=torch.float64)
    for start in range(steps):
        for length in range(1, steps - start + 1):
            n_step = sum(discount**k * rewards[start + k] for k in range(length))
            n_step = n_step + discount**length * values[start + length] - values[start]
            # The longest one takes the weight of all that would go beyond the time limit.
            weight = gae_lambda ** (length - 1) * (1 if start + length == steps else 1 - gae_lambda)
            expected[start] += weight * n_step
    # Sums of 20 terms in float64.
    torch.testing.assert_close(
        generalised_advantages(rewards, values, discount, gae_lambda), expected, rtol=1e-12, atol=1e-12
    )


def test_single_precision_is_accurate_over_a_whole_trajectory():
    rewards = random(200, 4)
    # 200 roundings of 6e-8 each, relative to sums of size about 10.
    torch.testing.assert_close(
        discounted_sums(rewards.float(), 0.99).double(), discounted_sums(rewards, 0.99), rtol=1e-5, atol=1e-4
    )


def test_the_time_limit_is_worth_nothing_by_default():
    baseline = FixedBaseline(random(4, 2, seed=1))
    observations, rewards = random(4, 2, 5), random(3, 2)
    without_last = torch.cat([baseline.values[:-1], torch.zeros(1, 2, dtype=torch.float64)])
    expected = whole_normalised(generalised_advantages(rewards, without_last, 0.5, 1.0))
    assert torch.equal(estimator(baseline).estimate(observations, rewards, whole(rewards)), expected)
    asked_observations, asked_returns, asked_continuation, _ = baseline.asked
    assert asked_observations is observations
    assert torch.equal(asked_returns, discounted_sums(rewards, 0.5))
    assert torch.equal(asked_continuation, torch.zeros(3, 2, dtype=torch.float64))


def test_the_value_bootstrap_counts_the_last_observation():
    baseline = FixedBaseline(random(4, 2, seed=1))
    observations, rewards = random(4, 2, 5), random(3, 2)
    expected = whole_normalised(generalised_advantages(rewards, baseline.values, 0.5, 1.0))
    assert torch.equal(estimator(baseline, bootstrap="value").estimate(observations, rewards, whole(rewards)), expected)
    assert torch.equal(baseline.asked[2], torch.tensor([[0.125], [0.25], [0.5]], dtype=torch.float64).expand(3, 2))


def test_with_the_real_baseline_only_surprises_are_advantages():
    observations = random(51, 8, 3)
    rewards = torch.ones(50, 8, dtype=torch.float64)
    rewards[30, 5] += 10.0
    baseline = LinearFeatureBaseline(regularisation=1e-5)
    advantages = estimator(baseline, discount=0.9, bootstrap="value").estimate(observations, rewards, whole(rewards))
    assert divmod(int(advantages.argmax()), 8) == (30, 5)


def test_advantages_are_normalised_over_the_batch():
    advantages = estimator(FixedBaseline(torch.zeros(8, 3))).estimate(
        torch.zeros(8, 3, 2), random(7, 3).float(), whole(torch.zeros(7, 3))
    )
    assert advantages.mean().abs() < 1e-6  # 21 terms in float32
    assert advantages.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_each_task_is_estimated_alone():
    observations, rewards = random(8, 4, 3, 5), random(7, 4, 3)
    estimate = estimator(LinearFeatureBaseline(regularisation=1e-5), bootstrap="value").estimate
    advantages = estimate(observations, rewards, whole(rewards))  # (T, J, R)
    for task in range(4):
        alone = estimate(observations[:, task], rewards[:, task], whole(rewards[:, task]))
        # Batched products may add in another order; the normal equations square a condition number below 1e3.
        torch.testing.assert_close(advantages[:, task], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("value", [0.5, 0.1, 37.3, -1000.3])
def test_equal_advantages_become_zero_whatever_they_are(value):
    # Only the first is exact in binary: the mean of ten thousand of the others rounds in single precision.
    assert torch.equal(whole_normalised(torch.full((200, 50), value)), torch.zeros(200, 50))


def test_observations_that_lack_the_last_one_are_refused():
    with pytest.raises(ValueError, match=r"give \(8, 3, O\), one observation more than rewards"):
        estimator(FixedBaseline(torch.zeros(8, 3))).estimate(
            torch.zeros(7, 3, 2), torch.zeros(7, 3), whole(torch.zeros(7, 3))
        )
    with pytest.raises(ValueError, match=r"give \(8, 4, 3, O\), one observation more than rewards"):
        estimator(FixedBaseline(torch.zeros(8, 4, 3))).estimate(
            torch.zeros(8, 3, 4, 2), torch.zeros(7, 4, 3), whole(torch.zeros(7, 4, 3))
        )


def test_a_value_bootstrap_without_discount_is_refused():
    with pytest.raises(ValueError, match="needs discount < 1"):
        estimator(FixedBaseline(torch.zeros(1)), discount=1.0, bootstrap="value")


def some_ends():
    """Of four rollouts in eight steps: to the horizon, terminated there, terminated after 3, cut off after 5."""
    return RolloutEnds(torch.tensor([8, 8, 3, 5]), torch.tensor([False, True, True, False]))


@pytest.mark.parametrize("gae_lambda", [0.3, 1.0])
@pytest.mark.parametrize("bootstrap", ["zero", "value"])
def test_rollouts_of_different_lengths_are_estimated_like_each_alone(bootstrap, gae_lambda):
    """A termination is worth 0; the horizon and a cut follow `bootstrap`."""
    ends, discount = some_ends(), 0.9
    happened = ends.happened(8)
    rewards = torch.where(happened, random(8, 4), 0.0)
    values = random(9, 4, seed=1)  # behind the ends they mean nothing, and must not count
    baseline = FixedBaseline(values)
    found = estimator(baseline, discount=discount, gae_lambda=gae_lambda, bootstrap=bootstrap).estimate(
        random(9, 4, 5), rewards, ends
    )
    alone = torch.zeros(8, 4, dtype=torch.float64)
    for rollout, (length, terminated) in enumerate(zip(ends.lengths.tolist(), ends.terminated.tolist(), strict=True)):
        one = slice(rollout, rollout + 1)
        own = values[: length + 1, one].clone()
        own[-1] *= bootstrap == "value" and not terminated
        alone[:length, one] = generalised_advantages(rewards[:length, one], own, discount, gae_lambda)
    batch = alone[happened]
    expected = torch.where(happened, (alone - batch.mean()) / batch.std(correction=0), 0.0)
    # Float64 sums of eight terms, and 1e-8 that the standard deviation is enlarged by.
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("bootstrap", ["zero", "value"])
def test_returns_go_on_with_the_last_observation_alone_where_the_task_does(bootstrap):
    baseline = FixedBaseline(torch.zeros(9, 4, dtype=torch.float64))
    rewards = torch.where(some_ends().happened(8), random(8, 4), 0.0)
    estimator(baseline, bootstrap=bootstrap).estimate(random(9, 4, 5), rewards, some_ends())
    _, _, continuation, ends = baseline.asked
    assert torch.equal(ends.lengths, some_ends().lengths)
    happened = some_ends().happened(8)
    expected = torch.zeros(8, 4, dtype=torch.float64)
    if bootstrap == "value":
        expected[:, 0] = 0.5 ** torch.arange(8, 0, -1, dtype=torch.float64)
        expected[:5, 3] = 0.5 ** torch.arange(5, 0, -1, dtype=torch.float64)
    assert torch.equal(continuation[happened], expected[happened])
