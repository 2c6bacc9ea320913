import itertools
from dataclasses import replace

import pytest
import torch

from mbrl_async.algorithms.adaptation import Adaptation, HessianProduct, inner_gradient, rows_of, split, thin
from mbrl_async.types import Interrupted, RolloutEnds
from tests.algorithms.meta_problem import HORIZON, RATE, ROLLOUTS, TASKS, adapt_one, problem

EXACT = {"rtol": 1e-11, "atol": 1e-13}  # float64, sums in another order


def make_adaptation(given, rows=1000, check=lambda: None):
    return Adaptation(given.stack, split(*given.before, rows), RATE, check)


@pytest.mark.parametrize("rows", [1, 2 * ROLLOUTS, 1000])
def test_every_task_takes_a_gradient_step_of_its_own(rows):
    given = problem()
    adapted = make_adaptation(given, rows).adapted(given.start)
    for task in range(TASKS):
        alone = adapt_one(given.policy, given.start.clone().requires_grad_(), *given.before, task)
        torch.testing.assert_close(adapted[task], alone.detach(), **EXACT)


def test_the_gradient_is_that_of_finite_differences():
    given = problem()
    (samples,) = split(*given.before)

    def losses(parameters):
        gaussian = given.stack.distribution(rows_of(parameters, TASKS), samples.observations)
        return -(gaussian.log_probability(samples.actions) * samples.advantages).mean(1)  # (J,)

    gradient = inner_gradient(given.stack, rows_of(given.start, TASKS).requires_grad_(), samples)
    step = 1e-5
    for index in range(len(given.start)):
        change = torch.zeros_like(given.start)
        change[index] = step
        slope = (losses(given.start + change) - losses(given.start - change)) / (2 * step)
        # Central differences: an error of step^2 = 1e-10 times third derivatives, and rounding of 1e-16 / step.
        torch.testing.assert_close(gradient[:, index], slope, rtol=1e-6, atol=1e-8)


def test_hessian_products_are_those_of_finite_differences():
    given = problem()
    (samples,) = split(*given.before)
    vectors = torch.randn(TASKS, len(given.start), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    step = 1e-5
    ends = [
        inner_gradient(given.stack, (rows_of(given.start, TASKS) + sign * step * vectors).requires_grad_(), samples)
        for sign in (1, -1)
    ]
    products = HessianProduct(given.stack, given.start, samples)(vectors)
    torch.testing.assert_close(products, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-7)


def test_pulling_back_is_the_transposed_jacobian_of_the_adaptation():
    given = problem()
    cotangents = torch.randn(TASKS, len(given.start), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = torch.zeros_like(given.start)
    for task in range(TASKS):
        jacobian = torch.autograd.functional.jacobian(
            lambda parameters, task=task: adapt_one(given.policy, parameters, *given.before, task), given.start
        )
        expected += jacobian.T @ cotangents[task]
    for rows in (1, 1000):
        pulled = make_adaptation(given, rows).pull_back(given.start, cotangents)
        torch.testing.assert_close(pulled, expected, **EXACT)


def test_a_task_does_not_depend_on_the_others():
    given = problem()
    before = make_adaptation(given).adapted(given.start)
    rollouts, advantages = given.before
    for tensor in (rollouts.observations, rollouts.actions, advantages):
        tensor[:, 1] = 7.0 + tensor[:, 1]
    after = make_adaptation(given).adapted(given.start)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.allclose(before[1], after[1])


def test_pieces_hold_every_sample_once():
    given = problem()
    rollouts, advantages = given.before
    pieces = split(rollouts, advantages, rows=2 * ROLLOUTS)
    assert len(pieces) == 3, "five steps are two and two and one"
    observations = torch.cat([piece.observations for piece in pieces], dim=1)
    assert torch.equal(observations, rollouts.observations[:-1].transpose(0, 1).flatten(1, 2))
    weights = torch.cat([piece.weights for piece in pieces], dim=1)
    torch.testing.assert_close(weights, torch.full((TASKS, HORIZON * ROLLOUTS), 1 / 20, dtype=torch.float64))


def test_thinned_samples_are_every_so_manieth_step_and_stand_for_all():
    rollouts, advantages = problem().before
    samples = thin(rollouts, advantages, 2)
    assert torch.equal(samples.advantages, advantages[::2].transpose(0, 1).flatten(1))
    assert torch.equal(samples.actions, rollouts.actions[::2].transpose(0, 1).flatten(1, 2))
    torch.testing.assert_close(samples.weights.sum(1), torch.ones(TASKS, dtype=torch.float64))


def test_steps_behind_an_end_weigh_nothing_and_the_others_of_a_task_alike():
    rollouts, advantages = problem().before
    lengths = torch.tensor([[5, 1, 2, 3], [5, 5, 5, 5], [1, 1, 1, 1]])
    rollouts = replace(rollouts, ends=RolloutEnds(lengths, torch.ones(TASKS, ROLLOUTS, dtype=torch.bool)))
    weights = torch.cat([piece.weights for piece in split(rollouts, advantages, rows=ROLLOUTS)], dim=1)
    happened = rollouts.ends.happened(HORIZON).transpose(0, 1).flatten(1)  # (J, T R)
    expected = torch.where(happened, 1 / torch.tensor([[11], [20], [4]]).double(), 0.0)
    torch.testing.assert_close(weights, expected)  # float64
    torch.testing.assert_close(thin(rollouts, advantages, 2).weights.sum(1), torch.ones(TASKS).double())


def test_of_rollouts_that_end_early_steps_are_taken_more_often_and_what_never_happened_is_left_out():
    rollouts, advantages = problem().before
    lengths = torch.tensor([[2, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 3]])
    rollouts = replace(rollouts, ends=RolloutEnds(lengths, torch.ones(TASKS, ROLLOUTS, dtype=torch.bool)))
    samples = thin(rollouts, advantages, 5)  # of mean length 14 / 12 of 5 steps: each
    assert samples.weights.shape == (TASKS, 6)
    assert samples.weights.count_nonzero(dim=1).tolist() == [5, 4, 6]
    expected = [*advantages[0, 2], advantages[1, 2, 3], advantages[2, 2, 3]]
    assert samples.advantages[2].tolist() == [float(each) for each in expected]
    assert torch.equal(samples.observations[0, 4], rollouts.observations[1, 0, 0])
    torch.testing.assert_close(samples.weights.sum(1), torch.ones(TASKS).double())


def test_it_can_be_interrupted_between_any_two_pieces():
    for last in range(HORIZON):
        calls = itertools.count()

        def check(calls=calls, last=last):
            if next(calls) == last:
                raise Interrupted

        given = problem()
        with pytest.raises(Interrupted):
            make_adaptation(given, rows=1, check=check).adapted(given.start)
