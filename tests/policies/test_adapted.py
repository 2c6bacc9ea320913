import torch

from mbrl_async.policies.adapted import adapted_policies, own_parameters, with_adapted
from mbrl_async.policies.stack import PolicyStack
from tests.policies.test_stack import make_policy, rows


def test_each_adapted_policy_is_one_that_a_policy_loads():
    own, *adapted = (make_policy(seed) for seed in range(4))
    published = with_adapted(own.state_dict(), PolicyStack(own).named(rows(adapted)))
    assert own_parameters(published).keys() == own.state_dict().keys()
    assert all(torch.equal(published[name], tensor) for name, tensor in own.state_dict().items())
    policies = adapted_policies(published)
    assert len(policies) == 3
    for parameters, expected in zip(policies, adapted, strict=True):
        loaded = make_policy(9)
        loaded.load_state_dict(parameters)
        assert all(torch.equal(*pair) for pair in zip(loaded.parameters(), expected.parameters(), strict=True))


def test_a_policy_that_does_not_adapt_has_none():
    published = make_policy(0).state_dict()
    assert adapted_policies(published) == []
    assert own_parameters(published).keys() == published.keys()
