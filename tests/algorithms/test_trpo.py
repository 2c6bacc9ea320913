import pytest
import torch

from mbrl_async.algorithms.flat import flatten
from mbrl_async.algorithms.trpo import TRPO
from mbrl_async.policies.gaussian import Gaussian
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import NonFiniteError
from tests.algorithms.settings import trust_region_settings

ROWS = 500


def make_trpo(**changes):
    return TRPO(**trust_region_settings(**changes))


def make_policy(generator, kind=GaussianMLP):
    return kind(
        observation_size=4,
        action_size=2,
        hidden=[16, 16],
        initial_log_std=0.0,
        minimum_log_std=-13.8,
        generator=generator,
        device="cpu",
    )


def random_batch(policy, generator, scale=1.0):
    """Observations, actions sampled from the policy, advantages without any system."""
    observations = scale * torch.randn(ROWS, 4, generator=generator)
    with torch.no_grad():
        actions = policy(observations).sample(torch.randn(ROWS, 2, generator=generator))
    return observations, actions, torch.randn(ROWS, generator=generator)


def parameters_of(policy):
    return flatten([parameter.detach().clone() for parameter in policy.parameters()])


@pytest.mark.parametrize("interval", [1, 2])
@pytest.mark.parametrize("step_size", [1e-4, 0.01, 0.5])
def test_no_update_ever_leaves_the_trust_region(step_size, interval):
    accepted = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        policy = make_policy(generator)
        batch = random_batch(policy, generator, scale=10.0 ** (seed % 4 - 1))
        before = policy(batch[0]).detach()
        metrics = make_trpo(step_size=step_size, curvature_interval=interval).update(policy, *batch)
        with torch.no_grad():
            kl = policy(batch[0]).kl_from(before).mean().item()
        assert kl == metrics["kl"] <= step_size
        accepted.append(metrics["line_search_accepted"])
    # A descent direction always gains over a short enough step, so a failure would be a wrong direction.
    assert sum(accepted) == len(accepted)


def test_the_reported_gain_is_that_of_the_surrogate():
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(generator)
    observations, actions, advantages = random_batch(policy, generator)
    before = policy(observations).detach().log_probability(actions)
    metrics = make_trpo().update(policy, observations, actions, advantages)
    with torch.no_grad():
        ratio = (policy(observations).log_probability(actions) - before).exp()
    # Differences of float32 means of 500 terms of size 1.
    assert metrics["surrogate_gain"] == pytest.approx(float((ratio * advantages).mean() - advantages.mean()), abs=1e-6)
    assert metrics["surrogate_gain"] > 0


def test_the_full_step_uses_the_trust_region_up():
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(generator)
    metrics = make_trpo(step_size=1e-4).update(policy, *random_batch(policy, generator))
    # So short a step is quadratic; one backtrack alone would leave 0.64 of the allowed KL.
    assert 0.6e-4 < metrics["kl"] <= 1e-4
    assert metrics["line_search_backtracks"] <= 1


def test_a_thinned_curvature_does_not_see_the_other_samples():
    """Every second sample changes, without a part in the gradient: where it is thinned out, that changes nothing."""
    generator = torch.Generator().manual_seed(0)
    observations, actions, advantages = random_batch(make_policy(generator), generator)

    def stepped(spoilt, interval):
        """The parameters after an update of which every second observation was multiplied by `spoilt`."""
        policy, given = make_policy(torch.Generator().manual_seed(1)), observations.clone()
        given[1::2] *= spoilt
        rewarded = advantages.clone()
        rewarded[1::2] = 0.0  # what is spoilt has no part in the gradient
        trpo = make_trpo(curvature_interval=interval, step_size=1e-6)
        trpo.update(policy, given, policy(given).sample(actions).detach(), rewarded)
        return parameters_of(policy)

    assert torch.equal(stepped(1.0, 2), stepped(0.9, 2))
    assert not torch.equal(stepped(1.0, 1), stepped(0.9, 1))


def test_it_solves_a_bandit():
    """Reward -|a - target(o)|^2, with targets linear in the observation."""
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(generator)
    weights = torch.tensor([[0.5, 0.0], [0.0, -0.5], [0.3, 0.3], [0.0, 0.0]])
    trpo = make_trpo(step_size=0.05)
    costs = []
    for _ in range(40):
        observations = torch.randn(ROWS, 4, generator=generator)
        with torch.no_grad():
            actions = policy(observations).sample(torch.randn(ROWS, 2, generator=generator))
        cost = (actions - observations @ weights).square().sum(-1)
        costs.append(cost.mean().item())
        trpo.update(policy, observations, actions, -(cost - cost.mean()) / cost.std())
    # The noise alone costs 2 at first, so that this needs both the mean and the spread. Ten seeds ended at 0.0035 to
    # 0.0103; this run's is fixed.
    assert costs[0] > 2
    assert sum(costs[-10:]) / 10 < 0.03


@pytest.mark.parametrize("spoilt", [100.0, float("nan")])
def test_a_failed_line_search_restores_every_parameter_exactly(spoilt):
    tried = []

    class Deceptive(GaussianMLP):
        """Promises an improvement by its gradient, and answers every try of the line search with `spoilt` means."""

        def forward(self, observations):
            gaussian = super().forward(observations)
            if torch.is_grad_enabled():
                return gaussian
            tried.append(parameters_of(self))
            return Gaussian(gaussian.mean + spoilt, gaussian.log_std)

    generator = torch.Generator().manual_seed(0)
    batch = random_batch(make_policy(generator), generator)
    policy = make_policy(generator, kind=Deceptive)
    before = parameters_of(policy)
    metrics = make_trpo(backtracks=7).update(policy, *batch)
    assert torch.equal(parameters_of(policy), before)
    assert metrics["line_search_accepted"] == metrics["kl"] == metrics["surrogate_gain"] == 0
    assert metrics["line_search_backtracks"] == len(tried) == 7
    lengths = torch.stack([(parameters - before).norm() for parameters in tried])
    # Each try is 0.8 of the last; the difference of float32 parameters of size 0.3 keeps three digits.
    torch.testing.assert_close(lengths[1:] / lengths[:-1], torch.full((6,), 0.8), rtol=1e-3, atol=0)


def test_equal_advantages_change_nothing():
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(generator)
    observations, actions, _ = random_batch(policy, generator)
    before = parameters_of(policy)
    metrics = make_trpo().update(policy, observations, actions, torch.zeros(ROWS))
    assert torch.equal(parameters_of(policy), before)
    assert metrics["line_search_accepted"] == metrics["gradient_norm"] == 0


def test_the_spread_is_learned_too():
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(generator)
    observations = torch.zeros(ROWS, 4)
    with torch.no_grad():
        actions = policy(observations).sample(torch.randn(ROWS, 2, generator=generator))
    # Only what is close to the mean in the first dimension is good.
    make_trpo().update(policy, observations, actions, -(actions[:, 0] - actions[:, 0].mean()).square() + 1)
    assert policy.log_std[0] < -0.02
    assert policy.log_std[1].abs() < 0.02


def test_updates_are_deterministic_and_draw_nothing():
    before = torch.random.get_rng_state()
    results = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        policy = make_policy(generator)
        metrics = make_trpo().update(policy, *random_batch(policy, generator))
        results.append((metrics, parameters_of(policy)))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_non_finite_input_is_refused_and_the_policy_kept(place):
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(generator)
    batch = random_batch(policy, generator)
    batch[place][7] = float("nan")
    before = parameters_of(policy)
    with pytest.raises(NonFiniteError, match="The policy gradient is not finite"):
        make_trpo().update(policy, *batch)
    assert torch.equal(parameters_of(policy), before)


@pytest.mark.parametrize(
    ("actions", "advantages"), [((ROWS, 1), (ROWS,)), ((ROWS, 2), (ROWS, 1)), ((ROWS - 1, 2), (ROWS,))]
)
def test_rows_that_do_not_belong_together_are_refused(actions, advantages):
    policy = make_policy(torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="one row an observation"):
        make_trpo().update(policy, torch.zeros(ROWS, 4), torch.zeros(actions), torch.zeros(advantages))
