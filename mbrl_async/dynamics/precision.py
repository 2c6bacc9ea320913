"""How precisely the products between hidden layers are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

Precision = Literal["float32", "bf16"]
PrecisionChoice = Literal["auto", "float32", "bf16"]
"""auto: bf16 where the processor has instructions for such products, which then take half the time."""

DTYPES: Mapping[Precision, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}

INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
"""Names that torch has for those of a CPU."""


def dtype_of(precision: PrecisionChoice, device: torch.device | str) -> torch.dtype:
    """What the choice means on this device."""
    if precision == "auto":
        return DTYPES["bf16" if multiplies_bf16(torch.device(device)) else "float32"]
    return DTYPES[precision]


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bf16; one without them computes each much slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name, False)) for name in INSTRUCTIONS)
