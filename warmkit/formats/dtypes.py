"""Tensor types: which are averaged, which are copied, which are codes, which are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from warmkit.errors import UsageError, nearest


@dataclass(frozen=True)
class DType:
    """One safetensors element type.

    Attributes:
        name: The name in a safetensors header, `BF16` for instance.
        itemsize: Bytes per element.
        kind: `float` types are averaged; `exact` ones must agree in all inputs and are copied; `code` ones mean nothing
            without the scales beside them.
        storage: Name of the numpy type that the merge kernels see. float16 is stored as int16 and bfloat16 as
            uint16, so that one type says which of the two a block holds.
        torch_name: Attribute of `torch`, also the value written to `config.json`.
        largest: Largest finite value, for the overflow message; 0 for exact types.
    """

    name: str
    itemsize: int
    kind: Literal["float", "exact", "code"]
    storage: str
    torch_name: str
    largest: float = 0.0


_TABLE = (
    DType("F64", 8, "float", "float64", "float64", 1.7976931348623157e308),
    DType("F32", 4, "float", "float32", "float32", 3.4028234663852886e38),
    DType("F16", 2, "float", "int16", "float16", 65504.0),
    DType("BF16", 2, "float", "uint16", "bfloat16", 3.3895313892515355e38),
    DType("I64", 8, "exact", "int64", "int64"),
    DType("I32", 4, "exact", "int32", "int32"),
    DType("I16", 2, "exact", "int16", "int16"),
    DType("I8", 1, "exact", "int8", "int8"),
    DType("U64", 8, "exact", "uint64", "uint64"),
    DType("U32", 4, "exact", "uint32", "uint32"),
    DType("U16", 2, "exact", "uint16", "uint16"),
    DType("U8", 1, "exact", "uint8", "uint8"),
    DType("BOOL", 1, "exact", "bool", "bool"),
)
DTYPES: dict[str, DType] = {dtype.name: dtype for dtype in _TABLE}
BY_TORCH_NAME: dict[str, DType] = {dtype.torch_name: dtype for dtype in _TABLE}

E4M3 = DType("F8_E4M3", 1, "code", "uint8", "float8_e4m3fn")
E8M0 = DType("F8_E8M0", 1, "code", "uint8", "float8_e8m0fnu")
# Known to the format, refused by name: averaging their codes is meaningless, or their scale lives elsewhere.
QUANTISED = frozenset(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F6_E2M3", "F6_E3M2"))

_ALIASES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "fp64": "float64"}
OUTPUT_NAMES = ("float32", "bfloat16", "float16", "float64")


def parse_output_dtype(name: str) -> DType:
    """Return the float type called `name` (`bfloat16`, or an alias such as `bf16`).

    Raises:
        UsageError: If `name` is no float type.
    """
    full = _ALIASES.get(name.lower(), name.lower()).removeprefix("torch.")
    if full not in OUTPUT_NAMES:
        raise UsageError(f"unknown dtype {name!r}{nearest(full, OUTPUT_NAMES)}")
    return BY_TORCH_NAME[full]
