import itertools

import pytest
import torch

from mbrl_async.algorithms.imagination import imagine, require_equal_shares
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import Interrupted, NonFiniteError
from tests.imagined import FunctionTask

MEMBERS, ROLLOUTS, HORIZON = 3, 12, 40


class CountingModel:
    """Member m adds 1 to dimension m of the observation; dimension -1 names the rollout, -2 gathers the actions."""

    members = MEMBERS

    def predict(self, observations, actions, _generator):
        assert observations.shape == (MEMBERS, ROLLOUTS // MEMBERS, MEMBERS + 2)
        following = observations.clone()
        following[..., :MEMBERS] += torch.eye(MEMBERS)[:, None]
        following[..., -2] += actions[..., 0]
        return following


def starts():
    observations = torch.zeros(ROLLOUTS, MEMBERS + 2)
    observations[:, -1] = torch.arange(ROLLOUTS)
    return observations


def make_policy(initial_log_std=0.5):
    return GaussianMLP(
        observation_size=MEMBERS + 2,
        action_size=2,
        hidden=[8],
        initial_log_std=initial_log_std,
        minimum_log_std=-13.8,
        generator=torch.Generator().manual_seed(0),
        device="cpu",
    )


def run(*, policy=None, model=None, task=None, seed=0, horizon=HORIZON, begin=None, check=lambda: None):
    return imagine(
        policy or make_policy(),
        model or CountingModel(),
        task or FunctionTask(),
        starts() if begin is None else begin,
        horizon,
        torch.Generator().manual_seed(seed),
        check,
    )


def chosen_members(rollouts):
    """Which member predicted each step of each rollout: (T, R)."""
    return rollouts.observations[..., :MEMBERS].diff(dim=0).argmax(-1)


def test_every_step_each_member_predicts_an_equal_share():
    shares = torch.nn.functional.one_hot(chosen_members(run()), MEMBERS).sum(1)  # (T, M)
    assert shares.eq(ROLLOUTS // MEMBERS).all()


def test_the_shares_are_drawn_anew_every_step():
    chosen = chosen_members(run(horizon=2000))
    assert len({tuple(row.tolist()) for row in chosen}) > 1500  # of 34 650 partitions; about 1940 are to be expected
    share = torch.nn.functional.one_hot(chosen, MEMBERS).float().mean(0)  # (R, M)
    # Each of the 36 is a mean of 2000 draws at 1/3: standard error 0.0105, and the bound is five of them.
    torch.testing.assert_close(share, torch.full((ROLLOUTS, MEMBERS), 1 / MEMBERS), rtol=0, atol=0.053)
    for first, second in itertools.product(range(MEMBERS), repeat=2):
        follows = ((chosen[:-1] == first) & (chosen[1:] == second)).float().mean()
        # 24 000 almost independent pairs at 1/9: standard error 0.002.
        assert follows.item() == pytest.approx(1 / 9, abs=0.012), "the shares depend on the last step's"


def test_predictions_return_to_their_own_rollouts():
    rollouts = run()
    assert rollouts.observations.shape == (HORIZON + 1, ROLLOUTS, MEMBERS + 2)
    assert torch.equal(rollouts.observations[0], starts())
    assert rollouts.observations[..., -1].eq(torch.arange(ROLLOUTS)).all()
    assert rollouts.observations.diff(dim=0)[..., :MEMBERS].sum(-1).eq(1).all(), "a step was not predicted just once"


def test_the_model_gets_the_clipped_action_of_its_own_rollout():
    rollouts = run()
    assert rollouts.actions.shape == (HORIZON, ROLLOUTS, 2)
    assert rollouts.actions.abs().max() > 1, "no sampled action left the range: nothing was tested"
    gathered = rollouts.actions[..., 0].clamp(-1, 1).cumsum(0)
    # Both add up the same 40 numbers, perhaps in another order.
    torch.testing.assert_close(rollouts.observations[1:, :, -2], gathered, rtol=0, atol=1e-5)


def test_actions_come_from_the_policy_at_the_observation():
    policy = make_policy()
    rollouts = run(policy=policy, seed=3)
    noise = torch.randn(HORIZON, ROLLOUTS, 2, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = policy(rollouts.observations[:-1]).sample(noise)
    torch.testing.assert_close(rollouts.actions, expected)  # batched in another shape: float32 default tolerance


def test_the_reward_sees_each_transition_with_the_clipped_action():
    def reward(observations, actions, next_observations):
        assert actions.abs().max() <= 1
        return 100 * observations[..., -1] + actions[..., 1] + next_observations[..., 0]

    rollouts = run(task=FunctionTask(reward))
    expected = 100 * torch.arange(ROLLOUTS) + rollouts.actions[..., 1].clamp(-1, 1) + rollouts.observations[1:, :, 0]
    assert torch.equal(rollouts.rewards, expected)
    assert torch.equal(rollouts.undiscounted_returns, expected.sum(0))


def test_the_generator_determines_the_rollouts():
    before = torch.random.get_rng_state()
    first, same, other = run(seed=1), run(seed=1), run(seed=2)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"
    assert torch.equal(first.observations, same.observations)
    assert torch.equal(first.actions, same.actions)
    assert not torch.equal(first.actions, other.actions)
    assert not torch.equal(chosen_members(first), chosen_members(other))


def test_the_starts_are_left_as_they_were():
    begin = starts()
    run(begin=begin)
    assert torch.equal(begin, starts())


def test_an_interruption_ends_it_at_the_next_step():
    steps = itertools.count(1)

    def check():
        if next(steps) == 7:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(check=check)
    assert next(steps) == 8


def test_a_diverged_model_is_named():
    class Diverged(CountingModel):
        def predict(self, observations, actions, generator):
            return super().predict(observations, actions, generator) * float("nan")

    with pytest.raises(NonFiniteError, match="An imagined observation, reward or termination is not finite"):
        run(model=Diverged())


def test_a_reward_that_is_not_finite_is_named():
    with pytest.raises(NonFiniteError, match="An imagined reward is not finite"):
        run(task=FunctionTask(lambda observations, actions, following: observations[..., 0] / 0.0))


def test_rollouts_that_cannot_be_shared_equally_are_refused():
    message = "rollouts=13 cannot be shared equally by 3 ensemble members: choose a multiple of 3, such as 12 or 15"
    with pytest.raises(ValueError, match=message):
        run(begin=torch.zeros(13, MEMBERS + 2))
    with pytest.raises(ValueError, match="such as 5 or 10"):
        require_equal_shares(2, 5)
    with pytest.raises(ValueError, match="rollouts=0"):
        require_equal_shares(0, 5)


@pytest.mark.parametrize(("begin", "horizon"), [(torch.zeros(12), 5), (torch.zeros(12, 5), 0)])
def test_starts_without_rows_and_an_empty_horizon_are_refused(begin, horizon):
    with pytest.raises(ValueError, match=r"give starts \(R, O\) and 1 or more steps"):
        run(begin=begin, horizon=horizon)


class SignallingModel(CountingModel):
    """Also predicts two signals: the number of steps so far, and ten times that."""

    def predict(self, observations, actions, generator):
        following = super().predict(observations, actions, generator)
        steps = following[..., :MEMBERS].sum(-1, keepdim=True)
        return torch.cat([following, steps, 10 * steps], dim=-1)


def ends_at(step_of_rollout):
    """Terminates rollout r after so many steps, and goes on saying so behind that."""

    def termination(_observations, _actions, outcomes):
        steps = outcomes[..., :MEMBERS].sum(-1)
        return steps >= step_of_rollout[outcomes[..., MEMBERS + 1].long()]

    return termination


def test_without_termination_every_rollout_lasts_to_the_horizon():
    ends = run().ends
    assert ends.lengths.tolist() == [HORIZON] * ROLLOUTS
    assert not ends.terminated.any()


def test_a_rollout_ends_at_its_first_termination():
    lasts = torch.arange(1, ROLLOUTS + 1)
    lasts[-1] = HORIZON + 1
    rollouts = run(task=FunctionTask(lambda o, a, n: torch.ones(n.shape[:-1]), ends_at(lasts)))
    assert rollouts.ends.lengths.tolist() == [*range(1, ROLLOUTS), HORIZON]
    assert rollouts.ends.terminated.tolist() == [True] * (ROLLOUTS - 1) + [False]
    assert torch.equal(rollouts.undiscounted_returns, rollouts.ends.lengths.float())
    assert torch.equal(rollouts.rewards.bool(), rollouts.ends.happened(HORIZON))


def test_a_termination_in_the_last_step_is_one():
    ends = run(task=FunctionTask(termination=ends_at(torch.full((ROLLOUTS,), HORIZON)))).ends
    assert ends.lengths.tolist() == [HORIZON] * ROLLOUTS
    assert ends.terminated.all()


def test_rewards_behind_the_end_need_not_be_finite():
    def reward(_observations, _actions, outcomes):
        steps = outcomes[..., :MEMBERS].sum(-1)
        return torch.where(steps > 3, torch.nan, 1.0)

    rollouts = run(task=FunctionTask(reward, ends_at(torch.full((ROLLOUTS,), 3))))
    assert rollouts.undiscounted_returns.eq(3).all()
    with pytest.raises(NonFiniteError, match="An imagined reward is not finite"):
        run(task=FunctionTask(reward, ends_at(torch.full((ROLLOUTS,), 4))))


def test_learned_signals_reach_reward_and_termination_but_not_the_observations():
    task = FunctionTask(
        reward=lambda observations, actions, outcomes: outcomes[..., -2],
        termination=lambda observations, actions, outcomes: outcomes[..., -1] > 55,
        learned=("reward", "termination"),
    )
    rollouts = run(model=SignallingModel(), task=task)
    assert rollouts.observations.shape == (HORIZON + 1, ROLLOUTS, MEMBERS + 2)
    assert rollouts.ends.lengths.eq(6).all()  # 10 x 6 is the first above 55
    assert rollouts.undiscounted_returns.eq(1 + 2 + 3 + 4 + 5 + 6).all()
