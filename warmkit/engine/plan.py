"""The output before any weight is read: shards, headers, and the place of every byte."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from warmkit.common.json_files import dump_json
from warmkit.errors import UsageError
from warmkit.formats.dtypes import DType
from warmkit.formats.safetensors_file import build_header
from warmkit.formats.tensors import Counted
from warmkit.sources.beside import split_name
from warmkit.sources.weight_names import INDEX, SINGLE

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_size(text: str | int) -> int:
    """Return a size in bytes: `5GB`, `500MB`, `1GiB`, or a plain number of bytes.

    Raises:
        UsageError: If `text` is none of these, or zero.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", str(text).upper())
    if not match or (size := int(float(match[1]) * _UNITS.get(match[2], 0))) <= 0:
        raise UsageError(f"expected a size such as 5GB, 500MB or 1GiB, found {text!r}")
    return size


@dataclass(frozen=True)
class Output(Counted):
    """One tensor to be written: what it is and where it goes."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    shard: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Shard:
    """One file: its name, its first bytes and its size."""

    file: str
    header: bytes
    size: int


@dataclass(frozen=True)
class Plan:
    """All files of one output.

    Attributes:
        shards: In order.
        outputs: Every tensor by name, in the order of the first input.
        index: Content of `model.safetensors.index.json`, None for a single file.
    """

    shards: tuple[Shard, ...]
    outputs: dict[str, Output]
    index: bytes | None

    @property
    def nbytes(self) -> int:
        return sum(shard.size for shard in self.shards)


def plan_output(tensors: Iterable[Output], max_shard_size: int, metadata: dict[str, str]) -> Plan:
    """Place tensors into shards of at most `max_shard_size` bytes of data, in the order given.

    A tensor larger than that gets a shard of its own; what lies in a file beside the model's own stays in that, outside of the
    index. Inside a shard wider types come first, so that every tensor starts
    at a multiple of its element size.
    """
    bins: list[list[Output]] = [[]]
    others: dict[str, list[Output]] = {}
    room = max_shard_size
    for tensor in tensors:
        if (beside := split_name(tensor.name)[0]) is not None:
            others.setdefault(beside, []).append(tensor)
            continue
        if bins[-1] and tensor.nbytes > room:
            bins.append([])
            room = max_shard_size
        bins[-1].append(tensor)
        room -= tensor.nbytes
    shards, outputs = list[Shard](), dict[str, Output]()
    for number, content in enumerate(bins):
        file = SINGLE if len(bins) == 1 else f"model-{number + 1:05d}-of-{len(bins):05d}.safetensors"
        shard, placed = _lay_out(file, number, content, metadata)
        shards.append(shard)
        outputs |= placed
    own = {tensor.name: outputs[tensor.name] for content in bins for tensor in content}
    index = _index(shards, own) if len(shards) > 1 else None
    for file, content in others.items():
        shard, placed = _lay_out(file, len(shards), content, {"format": "pt"})
        shards.append(shard)
        own |= placed
    return Plan(tuple(shards), own, index)


def _lay_out(file: str, number: int, content: list[Output], metadata: dict[str, str]) -> tuple[Shard, dict[str, Output]]:
    ordered = sorted(content, key=lambda tensor: -tensor.dtype.itemsize)
    header = build_header(((split_name(t.name)[1], t.dtype, t.shape) for t in ordered), metadata)
    end, placed = len(header), dict[str, Output]()
    for tensor in ordered:
        placed[tensor.name] = Output(tensor.name, tensor.dtype, tensor.shape, number, end)
        end += tensor.nbytes
    return Shard(file, header, end), placed


def _index(shards: list[Shard], outputs: dict[str, Output]) -> bytes:
    total = sum(output.nbytes for output in outputs.values())
    mapping = {name: shards[output.shard].file for name, output in sorted(outputs.items())}
    return dump_json({"metadata": {"total_size": total}, "weight_map": mapping})


__all__ = ["INDEX", "Output", "Plan", "Shard", "parse_size", "plan_output"]
