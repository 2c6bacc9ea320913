from __future__ import annotations

import torch

from mbrl_async.dynamics.adam import MemberwiseAdam


def test_is_torch_adam_for_each_member_on_the_steps_that_it_took() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    gradients = torch.randn(6, 3, 20, generator=generator, dtype=torch.float64)
    steps = [[0, 1, 2], [0, 2], [2], [0, 1], [1, 2], [0]]  # members that take part in each step

    references = [torch.nn.Parameter(row.clone()) for row in start]
    optimisers = [torch.optim.Adam([reference], lr=0.01) for reference in references]
    ours = MemberwiseAdam.start(start.clone(), learning_rate=0.01)
    for gradient, members in zip(gradients, steps, strict=True):
        for member in members:
            references[member].grad = gradient[member].clone()
            optimisers[member].step()
        chosen = torch.tensor(members)
        part = ours.copy_of(chosen)
        part.step(gradient[chosen])
        ours.take_over(chosen, part)
    # The fused kernel orders its float64 arithmetic otherwise than the reference: some 1e-16 a step.
    torch.testing.assert_close(ours.parameters, torch.stack(list(references)).detach(), rtol=1e-12, atol=1e-12)


def test_a_copy_that_is_dropped_leaves_no_trace() -> None:
    ours = MemberwiseAdam.start(torch.ones(2, 5), learning_rate=0.1)
    before = [tensor.clone() for tensor in ours.tensors]
    ours.copy_of(torch.tensor([0, 1])).step(torch.ones(2, 5))
    assert all(torch.equal(tensor, old) for tensor, old in zip(ours.tensors, before, strict=True))
