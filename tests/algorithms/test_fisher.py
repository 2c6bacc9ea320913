import pytest
import torch

from mbrl_async.algorithms.fisher import FisherProduct
from mbrl_async.algorithms.flat import assign, flatten, split_like
from mbrl_async.policies.gaussian import Gaussian
from mbrl_async.policies.gaussian_mlp import GaussianMLP


def problem(minimum_log_std=-13.8):
    """A policy in float64 with distinct spreads, and observations."""
    generator = torch.Generator().manual_seed(0)
    policy = GaussianMLP(
        observation_size=3,
        action_size=2,
        hidden=[5, 4],
        initial_log_std=0.0,
        minimum_log_std=minimum_log_std,
        generator=generator,
        device="cpu",
    ).double()
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([-0.7, 0.4]))
    return policy, torch.randn(50, 3, generator=generator, dtype=torch.float64)


def dense_kl_hessian(policy, observations):
    """The Hessian (P, P) of the mean KL from the current policy, by differentiating twice."""
    names, parameters = zip(*policy.named_parameters(), strict=True)
    old = policy(observations).detach()

    def mean_kl(vector):
        values = dict(zip(names, split_like(vector, parameters), strict=True))
        new: Gaussian = torch.func.functional_call(policy, values, (observations,))
        return new.kl_from(old).mean()

    return torch.autograd.functional.hessian(mean_kl, flatten(parameters).detach())


def dense_product(policy, observations, damping):
    """The matrix (P, P) whose products `FisherProduct` gives, column by column."""
    parameters = list(policy.parameters())
    fisher = FisherProduct(policy(observations), parameters, damping)
    return torch.stack([fisher(column) for column in torch.eye(len(flatten(parameters)), dtype=torch.float64)], dim=1)


@pytest.mark.parametrize("minimum_log_std", [-13.8, -0.5])
def test_it_is_the_hessian_of_the_mean_kl(minimum_log_std):
    # With the higher floor, the first dimension's spread is held: its curvature must be 0.
    policy, observations = problem(minimum_log_std)
    hessian = dense_kl_hessian(policy, observations)
    torch.testing.assert_close(dense_product(policy, observations, 0.0), hessian, rtol=1e-10, atol=1e-12)


def test_of_policies_side_by_side_it_is_the_hessian_of_the_mean_over_all_of_them():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64, requires_grad=True)  # (J, O, A)
    log_std = torch.randn(3, 1, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    observations = torch.randn(3, 10, 4, generator=generator, dtype=torch.float64)
    parameters = [weights, log_std]

    def mean_kl(vector):
        weight, spread = split_like(vector, parameters)
        old = Gaussian((observations @ weights).detach(), log_std.detach())
        return Gaussian(observations @ weight, spread).kl_from(old).mean()

    hessian = torch.autograd.functional.hessian(mean_kl, flatten(parameters).detach())
    fisher = FisherProduct(Gaussian(observations @ weights, log_std), parameters, 0.0)
    products = torch.stack([fisher(column) for column in torch.eye(len(hessian), dtype=torch.float64)], dim=1)
    torch.testing.assert_close(products, hessian, rtol=1e-10, atol=1e-12)


def test_damping_is_added_to_the_diagonal():
    policy, observations = problem()
    difference = dense_product(policy, observations, 0.5) - dense_product(policy, observations, 0.0)
    torch.testing.assert_close(difference, 0.5 * torch.eye(len(difference), dtype=torch.float64))


def test_products_leave_no_gradients_behind():
    policy, observations = problem()
    dense_product(policy, observations, 0.0)
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_flatten_split_and_assign_are_inverses():
    tensors = [torch.arange(6.0).view(2, 3), torch.tensor(6.0), torch.arange(7.0, 9.0)]
    assert torch.equal(flatten(tensors), torch.arange(9.0))
    assert all(torch.equal(*pair) for pair in zip(split_like(torch.arange(9.0), tensors), tensors, strict=True))
    assign(tensors, torch.arange(9.0) + 1)
    assert torch.equal(flatten(tensors), torch.arange(9.0) + 1)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(RuntimeError, match="split"):
        split_like(torch.zeros(4), [torch.zeros(3)])
