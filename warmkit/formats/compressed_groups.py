"""What the config of compressed-tensors says of weights: groups, each with a form of codes and scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.coded import Block
from warmkit.formats.dtypes import E4M3, DType
from warmkit.formats.packed_codes import BITS

PACKING = "pack-quantized"
FOURS = ("nvfp4-pack-quantized", "mxfp4-pack-quantized")
READ = ("float-quantized", "int-quantized", "naive-quantized", PACKING, *FOURS, "dense")
STRATEGIES = ("tensor", "channel", "block", "group")


@dataclass(frozen=True)
class Weights:
    """What one of the `config_groups` says of its weights.

    Attributes:
        kind: `int` or `float`.
        bits: Of a code.
        strategy: What has a scale of its own: `tensor`, `channel`, `block` or `group`.
        size: Rows and columns of a block, or [1, columns] of a group; None for the others.
        packed: Whether codes lie packed in words.
        symmetric: Whether code 0 stands for 0, so that no zero points need be stored.
    """

    kind: str
    bits: int
    strategy: str
    size: Block | None
    packed: bool
    symmetric: bool

    def block(self, rows: int, columns: int) -> Block:
        """Return rows and columns of what has a scale of its own in a matrix."""
        whole = (max(1, rows), max(1, columns))
        size = {"tensor": whole, "channel": (1, whole[1])}.get(self.strategy, self.size or whole)
        return min(size[0], whole[0]), min(size[1], whole[1])

    def holds(self, codes: DType) -> bool:
        """Say whether codes of a type, each a byte, may be those of this group."""
        if self.packed:
            return False
        return self.kind == "float" and self.bits == 8 if codes == E4M3 else self.kind == "int" and self.bits <= 8


def weights_of_groups(checkpoint: Checkpoint, said: Mapping[str, Any]) -> Iterator[Weights]:
    """Yield what the groups of a config say of weights.

    Raises:
        FormatError: If they are no groups.
        UnsupportedError: If their format is not read, or weights are transformed or sparse besides.
    """
    for key in ("sparsity_config", "transform_config", "moe_sparsity_config"):
        value = said.get(key)
        if value and not (isinstance(value, dict) and value.get("format") == "dense"):
            raise UnsupportedError(f"{checkpoint.source}: compressed-tensors with a {key}, {_advice('which is not read')}")
    groups = said.get("config_groups")
    if not isinstance(groups, dict) or not all(isinstance(each, dict) for each in groups.values()):
        raise FormatError(
            f"{checkpoint.source}: expected config_groups in quantization_config to map names to groups, found {groups!r:.60}"
        )
    for name, group in cast("dict[str, dict[str, Any]]", groups).items():
        form = group.get("format") or said.get("format")
        if form not in READ:
            raise UnsupportedError(
                f"{checkpoint.source}: compressed-tensors in the format {form!r}, {_advice('which is not read')}"
            )
        if isinstance(weights := group.get("weights"), dict):
            where = f"{checkpoint.source}: config_groups.{name}.weights in quantization_config"
            yield _weights(where, weights, str(form))


def _advice(why: str) -> str:
    return f"{why} (read are {', '.join(READ)}); merge the models they were made from, and quantise the result"


def _weights(where: str, said: Mapping[str, Any], form: str) -> Weights:
    kind, bits, strategy = said.get("type", "int"), said.get("num_bits", 8), said.get("strategy")
    if strategy is None:
        size = said.get("group_size")
        strategy = "tensor" if size is None else "channel" if size == -1 else "group"
    if strategy == "tensor_group" and form in FOURS:  # groups, and a scale of the whole matrix
        strategy = "group"
    sizes: dict[str, Any] = {"block": _structure(said.get("block_structure")), "group": [1, said.get("group_size")]}
    size = sizes.get(str(strategy))
    if strategy in ("block", "group") and not _is_block(size):
        raise FormatError(f"{where}: strategy {strategy!r} needs sizes that are natural numbers, found {size!r:.40}")
    if strategy not in STRATEGIES or said.get("dynamic") or type(bits) is not int:
        raise UnsupportedError(f"{where}: num_bits {bits!r:.20}, strategy {strategy!r:.20}, {_advice('which is not read')}")
    packed = form == PACKING or form in FOURS
    if packed and not (kind == "int" and bits in BITS if form == PACKING else (kind, bits, strategy) == ("float", 4, "group")):
        raise UnsupportedError(
            f"{where}: {kind!r:.20} of {bits} bits, packed, {_advice('which is not read: only int of 4 and 8, FP4 are')}"
        )
    return Weights(str(kind), bits, strategy, (size[0], size[1]) if size else None, packed, said.get("symmetric", True) is True)


def _structure(said: Any) -> Any:
    """Return the size of a block, which older configs write as `128x128`."""
    numbers = said.split("x") if isinstance(said, str) else []
    return [int(each) for each in numbers] if numbers and all(each.isdecimal() for each in numbers) else said


def _is_block(size: Any) -> bool:
    return isinstance(size, list) and len(size) == 2 and all(type(each) is int and 0 < each < 1 << 31 for each in size)
