import pytest
import torch

from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.policies.stack import PolicyStack


def make_policy(seed, hidden=(7, 6)):
    policy = GaussianMLP(
        observation_size=4,
        action_size=2,
        hidden=list(hidden),
        initial_log_std=-0.5,
        minimum_log_std=-2.0,
        generator=torch.Generator().manual_seed(seed),
        device="cpu",
    )
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([-0.3 * seed, -3.0]))  # the second is below the floor
        for layer in policy.mean[::2]:
            layer.bias.fill_(0.1 * seed)
    return policy


def rows(policies):
    return torch.stack([torch.nn.utils.parameters_to_vector(policy.parameters()).detach() for policy in policies])


@pytest.mark.parametrize("hidden", [(), (5,), (7, 6)])
def test_every_row_is_a_policy_of_its_own(hidden):
    policies = [make_policy(seed, hidden) for seed in range(3)]
    observations = torch.randn(3, 11, 4, generator=torch.Generator().manual_seed(0))
    together = PolicyStack(policies[0]).distribution(rows(policies), observations)
    assert together.log_std.shape == (3, 1, 2)
    for task, policy in enumerate(policies):
        alone = policy(observations[task])
        torch.testing.assert_close(together.mean[task], alone.mean)
        assert torch.equal(together.log_std[task, 0], alone.log_std)


def test_named_parameters_are_those_that_a_policy_loads():
    policies = [make_policy(seed) for seed in range(3)]
    named = PolicyStack(policies[0]).named(rows(policies))
    other = make_policy(9)
    other.load_state_dict({name: tensor[2] for name, tensor in named.items()})
    assert all(torch.equal(*pair) for pair in zip(other.parameters(), policies[2].parameters(), strict=True))
