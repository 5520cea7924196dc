"""Models in GGUF, read by gguf's own dequantiser, under the names and in the order of rows that transformers gives them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.dtypes import DTYPES, DType
from warmkit.formats.gguf_header import Entry, read_header
from warmkit.formats.tensors import Counted, Tensor
from warmkit.sources.files import Files, WeightFile, refuse_irregular

END = ".gguf"
EXPERT = "*"  # stands for the number of an expert
PIECE = 1 << 18  # numbers that are computed at a time
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GEMMA = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
EXPERTS = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.*.gate_proj",
    "ffn_up_exps": "mlp.experts.*.up_proj",
    "ffn_down_exps": "mlp.experts.*.down_proj",
}
SHARED = {
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
PHI = {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
STARCODER = {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}
ASIDE = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")  # which follow from the config


@dataclass(frozen=True)
class Architecture:
    """What llama.cpp's converter does to a model of an architecture.

    Attributes:
        layer: The names of a layer's parts, there and in transformers.
        turned: Whether rows of Q and K lie in pairs, as its rotary embedding takes them.
        raised: Whether one was added to the weights of norms.
    """

    layer: Mapping[str, str] = field(default_factory=lambda: LAYER)
    turned: bool = False
    raised: bool = False


ARCHITECTURES = {
    "llama": Architecture(turned=True),
    "qwen2": Architecture(),
    "qwen3": Architecture(),
    "gemma2": Architecture({**LAYER, **GEMMA}, raised=True),
    "gemma3": Architecture({**LAYER, **GEMMA}, raised=True),
    "qwen2moe": Architecture({**LAYER, **EXPERTS, **SHARED}),
    "qwen3moe": Architecture({**LAYER, **EXPERTS}),
    "phi3": Architecture({**LAYER, **PHI}),
    "starcoder2": Architecture({**LAYER, **STARCODER}),
    "stablelm": Architecture({key: name for key, name in LAYER.items() if key not in ("attn_q_norm", "attn_k_norm")}),
    "nemotron": Architecture(raised=True),
}


@dataclass(frozen=True, eq=False)
class GgufTensor(Counted):
    """A tensor of blocks of codes and scales, read a row at a time.

    Attributes:
        name: In transformers.
        shape: Of the numbers.
        file: Where it lies.
        offset: First byte.
        kind: Of gguf's types.
        row: Bytes of a row.
        heads: Into which rows are divided that lie in pairs; 0 where they lie in their order.
        less: What to take off every number.
    """

    name: str
    shape: tuple[int, ...]
    file: WeightFile
    offset: int
    kind: Any
    row: int
    heads: int
    less: int

    @property
    def dtype(self) -> DType:
        return DTYPES["F32"]

    @property
    def stands_for(self) -> DType:
        return DTYPES["BF16"]

    def read(self, files: Files, start: int, view: memoryview) -> None:
        out, columns, done = np.frombuffer(view, np.float32), self.shape[-1], 0
        most = max(1, PIECE // columns) if out.size else 1
        while done < out.size:
            row, first = divmod(start + done, columns)
            count = min(most, -(-(first + out.size - done) // columns))
            found = self._rows(files, row, count).reshape(-1)[first : first + out.size - done]
            out[done : done + found.size] = found
            done += found.size

    def _rows(self, files: Files, first: int, count: int) -> NDArray[np.float32]:
        raw = np.empty((count, self.row), np.uint8)
        if self.heads:
            for line, place in zip(raw, _pairs(np.arange(first, first + count), self.shape[0] // self.heads)):
                files.read(self.file, self.offset + int(place) * self.row, line.data)
        else:
            files.read(self.file, self.offset + first * self.row, raw.reshape(-1).data)
        with np.errstate(all="ignore"):  # of codes that are no numbers, which the merge finds
            found: NDArray[np.float32] = _gguf().quants.dequantize(raw, self.kind)
        return found - np.float32(self.less) if self.less else found

    def ahead(self, files: Files, start: int, elements: int) -> None:
        """Announce nothing: it is a file of this machine."""


def _pairs(rows: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return where rows of heads of a width lie: first halves and second halves take turns."""
    head, place = np.divmod(rows, width)
    second, number = np.divmod(place, width // 2)
    return head * width + 2 * number + second


def files_at(path: Path) -> list[str]:
    """Return the names of the GGUF files at a path."""
    if not path.is_dir():
        return [path.name] if path.name.endswith(END) else []
    return sorted(each.name for each in path.iterdir() if each.name.endswith(END))


def open_model(source: str, path: Path) -> Checkpoint:
    """Open a GGUF file, or a folder with one.

    Raises:
        FormatError: If it is malformed, or one of several.
        UnsupportedError: If gguf is not installed, or its architecture, a tensor or a type is not read.
    """
    names = files_at(path)
    if len(names) != 1:
        raise FormatError(f"{path}: {len(names)} files in GGUF ({', '.join(names[:4])}); give one of them")
    file = path / names[0] if path.is_dir() else path
    refuse_irregular(file)
    said, tensors = read_header(file)
    kind = said.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise UnsupportedError(
            f"{file}: GGUF of the architecture {kind!r:.40} is not read (read are {', '.join(ARCHITECTURES)}); give the model "
            f"that it was made from, or save it with transformers (from_pretrained(FOLDER, gguf_file={file.name!r}))"
        )
    entries = dict[str, Tensor]()
    for stored in tensors:
        if stored.name not in ASIDE:
            entry = _entry(stored, file, ARCHITECTURES[kind], _heads(said, str(kind)))
            entries |= {each.name: each for each in _experts(entry)}
    note = f"{source}: GGUF of {kind}: its blocks are read as the bfloat16 weights that they stand for"
    return Checkpoint(source, path, entries, (file,), notes=(note,))


def _gguf() -> Any:
    try:
        return import_module("gguf")
    except ImportError:
        raise UnsupportedError(
            "GGUF is read with the package gguf, which is not installed: pip install 'warmkit[gguf]'"
        ) from None


def _heads(said: Mapping[str, Any], kind: str) -> tuple[Any, Any]:
    heads = said.get(f"{kind}.attention.head_count")
    return heads, said.get(f"{kind}.attention.head_count_kv", heads)


def _entry(stored: Entry, path: Path, how: Architecture, heads: tuple[Any, Any]) -> GgufTensor:
    name, shape = stored.name, stored.shape
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    part = (how.layer if found[1] else WHOLE).get(found[2]) if found else None
    if found is None or part is None:
        raise UnsupportedError(
            f"{path}: tensor {name!r} is none that is known of its architecture; give the model that it was made from"
        )
    form, block, size = _form(path, stored)
    row = shape[-1] // block * size
    if shape[-1] % block or stored.offset + row * math.prod(shape[:-1]) > path.stat().st_size:
        raise FormatError(
            f"{path}: tensor {name!r} of shape {list(shape)} in blocks of {block} ends beyond the file, or within a block; the "
            "file was cut"
        )
    count = {"attn_q": heads[0], "attn_k": heads[1]}.get(found[2]) if how.turned else 0
    if count != 0 and count is not None and (type(count) is not int or count < 1 or shape[0] % (2 * count)):
        raise FormatError(f"{path}: tensor {name!r} has {shape[0]} rows, which are not those of {count!r:.20} heads")
    named = f"model.layers.{found[1]}.{part}.{found[3]}" if found[1] else f"{part}.{found[3]}"
    less = int(how.raised and name.endswith("_norm.weight"))
    if found[2] == "ffn_gate_inp_shexp" and len(shape) == 1:
        shape = (1, *shape)  # a vector there
    return GgufTensor(named, shape, path, stored.offset, form, row, count or 0, less)


def _experts(entry: GgufTensor) -> list[GgufTensor]:
    """Return the matrices of single experts of a stack, other tensors as they are."""
    if EXPERT not in entry.name:
        return [entry]
    if len(entry.shape) != 3:
        raise FormatError(f"{entry.file}: {entry.name!r} is of shape {list(entry.shape)}, expected [experts, out, in]")
    count, *shape = entry.shape
    size = shape[0] * entry.row
    return [
        replace(entry, name=entry.name.replace(EXPERT, str(each)), shape=(*shape,), offset=entry.offset + each * size)
        for each in range(count)
    ]


def _form(path: Path, stored: Entry) -> tuple[Any, int, int]:
    """Return gguf's type of a tensor, and numbers and bytes of its blocks."""
    library = _gguf()
    try:
        form = library.GGMLQuantizationType(stored.kind)
        block, size = library.GGML_QUANT_SIZES[form]
        library.quants.dequantize(np.zeros((1, size), np.uint8), form)
    except (ValueError, KeyError, NotImplementedError):
        raise UnsupportedError(
            f"{path}: tensor {stored.name!r} is of type {stored.kind}, which this version of gguf does not dequantise"
        ) from None
    return form, block, size
