"""Precision of matrix products: float32, bfloat16 over float32 weights, or what the device computes fast."""

from __future__ import annotations

from typing import Any, Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]
INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Names that torch gives to instructions for bfloat16 products, of x86 and of Arm."""


def fast_precision(device: torch.device | str | None = None) -> Literal["float32", "bfloat16"]:
    """Return the precision whose matrix products are fast on a device: `bfloat16` where it has instructions for them.

    Without them a CPU converts every number: on one with AVX2 alone products took a hundred times as long as in float32.

    Args:
        device: By default the one that models are loaded to: the first GPU, else the CPU.
    """
    kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type
    if kind == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if kind == "cpu" and _has_bfloat16_instructions() else "float32"


def _has_bfloat16_instructions() -> bool:
    cpu: Any = torch.cpu
    if hasattr(cpu, "get_capabilities"):  # since torch 2.10
        known = cpu.get_capabilities()
        return any(known.get(name) for name in INSTRUCTIONS)
    return any(getattr(cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which products are computed in a precision; `auto` is what the device computes fast."""
    chosen = fast_precision(device) if precision == "auto" else precision
    return torch.autocast(device.type, torch.bfloat16, enabled=chosen == "bfloat16")


def slow_precision(precision: str) -> str | None:
    """Return a line where a precision that was asked for is slow here, else None."""
    if precision != "bfloat16" or fast_precision() == "bfloat16":
        return None
    return "precision: bfloat16 is slow here, the processor has no instructions for it; auto takes what is fast"
