from __future__ import annotations

import pytest
import torch

from mbrl_async.runtime.digest import digest

TENSORS = {"weights": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor(0.5), "steps": torch.tensor([3])}


def test_neither_order_nor_memory_layout_nor_gradients_matter():
    transposed = TENSORS["weights"].T.contiguous().T
    parameter = torch.nn.Parameter(TENSORS["bias"].clone())
    assert digest({"steps": TENSORS["steps"], "bias": parameter, "weights": transposed}) == digest(TENSORS)


@pytest.mark.parametrize(
    "other",
    [
        {"weights": TENSORS["weights"].nextafter(torch.tensor(torch.inf))},
        {"weights": TENSORS["weights"].reshape(3, 2)},
        {"steps": torch.tensor([3], dtype=torch.int32)},
        {"bias": torch.tensor(-0.5)},
        {"more": torch.zeros(0)},
    ],
    ids=["value", "shape", "type", "sign", "name"],
)
def test_everything_else_does(other):
    assert digest(TENSORS | other) != digest(TENSORS)


def test_negative_zero_is_not_zero():
    assert digest({"x": torch.tensor(-0.0)}) != digest({"x": torch.tensor(0.0)})
