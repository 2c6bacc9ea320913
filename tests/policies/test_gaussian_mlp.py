import math

import pytest
import torch

from mbrl_async.policies.gaussian import Gaussian
from mbrl_async.policies.gaussian_mlp import GaussianMLP


def make_policy(seed=0, *, hidden=(64, 32), initial_log_std=0.0, minimum_log_std=-13.8, output_gain=1.0):
    return GaussianMLP(
        observation_size=5,
        action_size=3,
        hidden=list(hidden),
        initial_log_std=initial_log_std,
        minimum_log_std=minimum_log_std,
        output_gain=output_gain,
        generator=torch.Generator().manual_seed(seed),
        device="cpu",
    )


def random_gaussian(seed, rows=(7, 4), size=3):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(*rows, size, generator=generator, dtype=torch.float64)
    return Gaussian(mean, torch.randn(size, generator=generator, dtype=torch.float64))


def reference(gaussian):
    normal = torch.distributions.Normal(gaussian.mean, gaussian.log_std.exp())
    return torch.distributions.Independent(normal, 1)


def test_log_probability_is_that_of_torch_distributions():
    gaussian = random_gaussian(0)
    actions = random_gaussian(1).mean
    # Both are float64 sums of three terms: 1e-12 is thousands of roundings.
    torch.testing.assert_close(
        gaussian.log_probability(actions), reference(gaussian).log_prob(actions), rtol=1e-12, atol=1e-12
    )


def test_kl_is_from_the_old_to_the_new_distribution():
    old, new = random_gaussian(0), random_gaussian(1)
    expected = torch.distributions.kl_divergence(reference(old), reference(new))
    torch.testing.assert_close(new.kl_from(old), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(new.kl_from(old), old.kl_from(new))


def test_kl_from_itself_is_zero():
    gaussian = random_gaussian(0)
    # exp(2 x) exp(-2 x) is 1 up to two roundings of float64.
    torch.testing.assert_close(gaussian.kl_from(gaussian), torch.zeros(7, 4, dtype=torch.float64), rtol=0, atol=1e-14)


def test_a_sample_is_the_mean_plus_scaled_noise():
    gaussian = Gaussian(torch.tensor([[1.0, 2.0]]), torch.tensor([0.0, math.log(3.0)]))
    noise = torch.tensor([[0.5, -1.0]])
    torch.testing.assert_close(gaussian.sample(noise), torch.tensor([[1.5, -1.0]]))


def test_forward_is_a_tanh_network_with_a_linear_mean():
    policy = make_policy()
    observations = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    weights = dict(policy.named_parameters())
    features = torch.tanh(observations @ weights["mean.0.weight"].T + weights["mean.0.bias"])
    features = torch.tanh(features @ weights["mean.2.weight"].T + weights["mean.2.bias"])
    expected = features @ weights["mean.4.weight"].T + weights["mean.4.bias"]
    torch.testing.assert_close(policy(observations).mean, expected)


def test_batches_and_single_observations_agree():
    policy = make_policy()
    observations = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1))
    batch = policy(observations).mean
    assert batch.shape == (2, 4, 3)
    torch.testing.assert_close(policy(observations[1, 2]).mean, batch[1, 2])  # default float32 tolerance: sum order


def test_initial_weights_are_glorot_uniform_and_biases_zero():
    policy = make_policy(hidden=(200, 300))
    for layer in (policy.mean[0], policy.mean[2], policy.mean[4]):
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert layer.weight.abs().max() <= bound
        # The std of U(-b, b) is b / sqrt(3). The layers have 900 weights or more: the relative standard error of the
        # sample's is at most 1.5 %, so that 10 % is over six of them.
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert layer.bias.eq(0).all()
    assert policy.log_std.eq(0).all()


def test_the_spread_never_falls_below_its_floor():
    policy = make_policy(initial_log_std=-1.0, minimum_log_std=-2.0)
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([-1.0, -2.5, -9.0]))
    torch.testing.assert_close(policy(torch.zeros(5)).log_std, torch.tensor([-1.0, -2.0, -2.0]))


def test_a_spread_that_an_update_has_pushed_below_the_floor_can_rise_again():
    policy = make_policy(initial_log_std=-1.0, minimum_log_std=-2.0)
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([-1.0, -2.5, -9.0]))
    policy.lift_to_floor()
    torch.testing.assert_close(policy.log_std.detach(), torch.tensor([-1.0, -2.0, -2.0]))
    policy(torch.zeros(5)).log_std.sum().backward()
    assert policy.log_std.grad.tolist() == [1.0, 1.0, 1.0]


def test_weights_come_from_the_generator_alone():
    before = torch.random.get_rng_state()
    first, same, other = make_policy(0), make_policy(0), make_policy(1)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"
    for name, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(first.mean[0].weight, other.mean[0].weight)


def test_a_state_dict_holds_everything():
    first, second = make_policy(0), make_policy(1)
    second.load_state_dict(first.state_dict())
    observations = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first(observations).mean, second(observations).mean)


def test_no_hidden_layer_makes_a_linear_policy():
    policy = make_policy(hidden=())
    one, two = torch.eye(5)[:2]
    torch.testing.assert_close(policy(one + two).mean, policy(one).mean + policy(two).mean)


def test_an_initial_spread_below_the_floor_is_refused():
    with pytest.raises(ValueError, match=r"initial_log_std=-3.0 is below minimum_log_std=-2.0"):
        make_policy(initial_log_std=-3.0, minimum_log_std=-2.0)


def test_observations_of_another_size_are_refused():
    with pytest.raises(RuntimeError, match="shapes"):
        make_policy()(torch.zeros(2, 4))


def test_a_small_output_gain_centres_the_first_actions():
    whole, centred = make_policy(0), make_policy(0, output_gain=0.01)
    observations = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    # Biases are zero: the mean scales with its weights, up to roundings of float32.
    torch.testing.assert_close(centred(observations).mean, 0.01 * whole(observations).mean, rtol=1e-5, atol=1e-7)
    assert torch.equal(centred.mean[0].weight, whole.mean[0].weight)
