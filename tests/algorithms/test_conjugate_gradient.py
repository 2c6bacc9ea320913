import pytest
import torch

from mbrl_async.algorithms.conjugate_gradient import conjugate_gradient


def positive_definite(size, seed=0):
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / size + 0.1 * torch.eye(size, dtype=torch.float64)


def target(size, seed=1):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_as_many_iterations_as_unknowns_solve_the_system():
    matrix = positive_definite(12)
    solution = conjugate_gradient(matrix.mv, target(12), iterations=12)
    # It stops at a relative residual of 1e-5; the condition number is below 100.
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, target(12)), rtol=0, atol=1e-3)


def test_each_iteration_is_the_best_in_its_krylov_space():
    matrix, right = positive_definite(30), target(30)
    space = torch.stack([torch.linalg.matrix_power(matrix, power) @ right for power in range(4)], dim=1)
    weights = torch.linalg.solve(space.T @ matrix @ space, space.T @ right)  # minimises the energy over the space
    torch.testing.assert_close(
        conjugate_gradient(matrix.mv, right, iterations=4), space @ weights, rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_the_curvature_along_the_solution_is_known_without_a_product(iterations):
    matrix, right = positive_definite(40), target(40)
    solution = conjugate_gradient(matrix.mv, right, iterations)
    # A property of the method in exact arithmetic; float64 and 10 iterations lose little of it.
    assert (solution @ matrix @ solution).item() == pytest.approx((solution @ right).item(), rel=1e-10)


def test_products_are_counted_and_saved_once_the_system_is_solved():
    calls = []

    def product(vector):
        calls.append(vector)
        return 2.0 * vector  # solved by the first iteration

    assert torch.equal(conjugate_gradient(product, target(5), iterations=10), target(5) / 2)
    assert len(calls) == 1


def test_a_zero_target_has_a_zero_solution():
    assert torch.equal(conjugate_gradient(positive_definite(5).mv, torch.zeros(5), 10), torch.zeros(5))


def test_the_target_is_left_as_it_was():
    right = target(5)
    conjugate_gradient(positive_definite(5).mv, right, iterations=5)
    assert torch.equal(right, target(5))
