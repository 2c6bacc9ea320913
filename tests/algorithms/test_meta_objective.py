import pytest
import torch

from mbrl_async.algorithms.adaptation import Adaptation, split, thin
from mbrl_async.algorithms.meta_objective import MetaObjective
from mbrl_async.algorithms.trust_region import TrustRegion
from mbrl_async.types import NonFiniteError
from tests.algorithms.meta_problem import HORIZON, RATE, TASKS, problem, surrogate_and_kl
from tests.algorithms.settings import trust_region_settings

EXACT = {"rtol": 1e-10, "atol": 1e-12}  # float64, sums in another order


def make_objective(given, rows=1000, interval=1, check=lambda: None):
    adaptation = Adaptation(given.stack, split(*given.before, rows), RATE, check)
    return MetaObjective(
        stack=given.stack,
        start=given.start,
        adaptation=adaptation,
        adapted=adaptation.adapted(given.start),
        samples=split(*given.after, rows),
        thinned=(thin(*given.before, interval), thin(*given.after, interval)),
        check_interrupted=check,
    )


def make_trust_region(**changes):
    return TrustRegion(**trust_region_settings(**changes))


def other_parameters(given):
    generator = torch.Generator().manual_seed(5)
    return given.start + 0.05 * torch.randn(len(given.start), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("rows", [1, 8, 1000])
def test_surrogate_and_kl_are_those_of_a_loop_over_the_tasks(rows):
    given = problem()
    parameters = other_parameters(given)
    expected = surrogate_and_kl(given, parameters.clone().requires_grad_())
    together = make_objective(given, rows).surrogate_and_kl(parameters)
    assert together == pytest.approx([float(each.detach()) for each in expected], rel=1e-11)


@pytest.mark.parametrize("rows", [1, 1000])
def test_the_gradient_goes_through_the_inner_step_exactly(rows):
    given = problem()
    parameters = given.start.clone().requires_grad_()
    surrogate, _ = surrogate_and_kl(given, parameters)
    (expected,) = torch.autograd.grad(surrogate, parameters)
    value, gradient = make_objective(given, rows).surrogate_and_gradient()
    assert value == pytest.approx(float(surrogate.detach()), rel=1e-11)
    torch.testing.assert_close(gradient, expected, **EXACT)


def test_the_gradient_is_that_of_finite_differences():
    given = problem()
    objective = make_objective(given)
    _, gradient = objective.surrogate_and_gradient()
    step = 1e-5
    for index in range(len(given.start)):
        change = torch.zeros_like(given.start)
        change[index] = step
        ends = [objective.surrogate_and_kl(given.start + sign * change)[0] for sign in (1, -1)]
        # Central differences: an error of step^2 = 1e-10 times third derivatives, and rounding of 1e-16 / step.
        assert float(gradient[index]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-8)


def test_the_curvature_is_the_hessian_of_the_mean_kl_after_adaptation():
    given = problem()
    hessian = torch.autograd.functional.hessian(
        lambda parameters: surrogate_and_kl(given, parameters)[1], given.start
    )  # (P, P)
    product = make_objective(given).curvature(damping=0.0)
    dense = torch.stack([product(column) for column in torch.eye(len(given.start), dtype=torch.float64)], dim=1)
    torch.testing.assert_close(dense, hessian, rtol=1e-8, atol=1e-10)
    first_order = Adaptation(given.stack, split(*given.before), RATE, lambda: None).pull_back(
        given.start, torch.ones(TASKS, len(given.start), dtype=torch.float64)
    )
    assert (first_order / TASKS - 1).abs().max() > 0.1, "the inner step hardly bends anything: nothing was tested"


def test_the_curvature_is_that_of_finite_differences_of_the_kl():
    given = problem()
    objective = make_objective(given)
    product = objective.curvature(damping=0.0)
    vector = torch.randn(len(given.start), generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    step = 1e-3
    ends = [objective.surrogate_and_kl(given.start + sign * step * vector)[1] for sign in (1, -1)]
    # KL is 0 without slope at the start. The error is step^2 = 1e-6 times fourth derivatives.
    assert float(vector @ product(vector)) == pytest.approx(sum(ends) / step**2, rel=1e-3)


def test_damping_is_added_to_the_diagonal():
    given = problem()
    vector = torch.ones_like(given.start)
    products = [make_objective(given).curvature(damping)(vector) for damping in (0.5, 0.0)]
    torch.testing.assert_close(products[0] - products[1], 0.5 * vector)


def test_a_thinned_curvature_is_that_of_the_thinned_problem():
    given = problem()
    vector = torch.randn(len(given.start), generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    thinned = make_objective(given, interval=HORIZON).curvature(0.0)(vector)
    assert not torch.allclose(thinned, make_objective(given).curvature(0.0)(vector))
    # Linear, symmetric and positive, as conjugate gradients need it.
    product, other = make_objective(given, interval=2).curvature(0.0), torch.ones_like(vector)
    torch.testing.assert_close(vector @ product(other), other @ product(vector), **EXACT)
    assert vector @ product(vector) > 0


@pytest.mark.parametrize("step_size", [1e-4, 0.01, 0.5])
def test_no_update_leaves_the_trust_region_after_adaptation(step_size):
    given = problem()
    objective = make_objective(given, interval=2)
    maximum = make_trust_region(step_size=step_size).maximise(objective)
    surrogate, kl = surrogate_and_kl(given, maximum.parameters.clone().requires_grad_())
    start, _ = surrogate_and_kl(given, given.start.clone().requires_grad_())
    assert maximum.accepted
    assert maximum.metrics["kl"] == pytest.approx(float(kl.detach()), rel=1e-9)
    assert 0 < maximum.metrics["kl"] <= step_size
    assert maximum.metrics["surrogate_gain"] == pytest.approx(float((surrogate - start).detach()), rel=1e-8)
    assert maximum.metrics["surrogate_gain"] > 0
    adapted = Adaptation(given.stack, split(*given.before), RATE, lambda: None).adapted(maximum.parameters)
    assert torch.equal(objective.adapted, adapted)


def test_a_gradient_that_is_not_finite_is_refused():
    given = problem()
    given.after[1][0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="The policy gradient is not finite"):
        make_trust_region().maximise(make_objective(given))
