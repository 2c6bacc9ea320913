import itertools

import pytest
import torch

from mbrl_async.algorithms.flat import flatten
from mbrl_async.algorithms.imagination import require_equal_shares
from mbrl_async.algorithms.task_imagination import imagine_tasks
from mbrl_async.policies.stack import PolicyStack
from mbrl_async.types import Interrupted, NonFiniteError
from tests.imagined import FunctionTask
from tests.policies.test_stack import make_policy

MEMBERS, TASKS, ROLLOUTS, HORIZON = 2, 6, 3, 7


class MarkingModel:
    """Writes the member into dimension 0, and leaves rollout (1) and task (2) as they are; gathers actions (3)."""

    members = MEMBERS

    def predict(self, observations, actions, _generator):
        assert observations.shape == (MEMBERS, TASKS // MEMBERS * ROLLOUTS, 4)
        following = observations.clone()
        following[..., 0] = torch.arange(MEMBERS)[:, None]
        following[..., 3] += actions[..., 0]
        return following


def starts():
    rows = torch.zeros(TASKS, ROLLOUTS, 4)
    rows[..., 1] = torch.arange(ROLLOUTS)
    rows[..., 2] = torch.arange(TASKS)[:, None]
    return rows


def run(*, model=None, check=lambda: None, seed=0):
    policies = [make_policy(each) for each in range(TASKS)]
    parameters = torch.stack([flatten([each.detach() for each in policy.parameters()]) for policy in policies])
    return policies, imagine_tasks(
        PolicyStack(policies[0]),
        parameters,
        model or MarkingModel(),
        FunctionTask(lambda observations, actions, following: following[..., 3] - observations[..., 3]),
        starts(),
        HORIZON,
        torch.Generator().manual_seed(seed),
        check,
    )


def test_each_task_stays_with_its_member_and_each_rollout_with_its_task():
    _, rollouts = run()
    assert rollouts.observations.shape == (HORIZON + 1, TASKS, ROLLOUTS, 4)
    members = torch.arange(TASKS) % MEMBERS
    assert torch.equal(rollouts.observations[1:, ..., 0], members[:, None].expand(HORIZON, TASKS, ROLLOUTS).float())
    assert torch.equal(rollouts.observations[..., 1:3], starts()[..., 1:3].expand(HORIZON + 1, -1, -1, -1))


def test_every_task_acts_with_its_own_policy():
    policies, rollouts = run(seed=3)
    noise = torch.randn(HORIZON, TASKS, ROLLOUTS, 2, generator=torch.Generator().manual_seed(3))
    for task, policy in enumerate(policies):
        expected = policy(rollouts.observations[:-1, task]).sample(noise[:, task]).detach()
        torch.testing.assert_close(rollouts.actions[:, task], expected)  # batched in another shape


def test_model_and_reward_get_the_clipped_action():
    _, rollouts = run()
    assert rollouts.actions.abs().max() > 1, "no sampled action left the range: nothing was tested"
    # Differences of float32 sums of size 7.
    torch.testing.assert_close(rollouts.rewards, rollouts.actions[..., 0].clamp(-1, 1), rtol=0, atol=5e-6)
    torch.testing.assert_close(rollouts.undiscounted_returns, rollouts.rewards.sum(0))


def test_an_interruption_ends_it_at_the_next_step():
    steps = itertools.count(1)

    def check():
        if next(steps) == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(check=check)
    assert next(steps) == 5


def test_a_diverged_model_is_named():
    class Diverged(MarkingModel):
        def predict(self, observations, actions, generator):
            return super().predict(observations, actions, generator) * float("nan")

    with pytest.raises(NonFiniteError, match="An imagined observation, reward or termination is not finite"):
        run(model=Diverged())


def test_tasks_that_cannot_be_shared_equally_are_refused():
    require_equal_shares(20, 5, "tasks")
    with pytest.raises(ValueError, match=r"tasks=12 cannot be shared equally by 5 ensemble members: .* 10 or 15"):
        require_equal_shares(12, 5, "tasks")
