from __future__ import annotations

import pytest
import torch

from mbrl_async.dynamics.precision import dtype_of


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_is_bf16_where_the_processor_multiplies_it(capabilities, dtype, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    assert dtype_of("auto", "cpu") is dtype


def test_what_is_asked_for_is_had_whatever_the_processor(monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    assert dtype_of("bf16", "cpu") is torch.bfloat16
    assert dtype_of("float32", "cpu") is torch.float32
