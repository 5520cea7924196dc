"""What an adapter's file holds: factors of modules, and tensors that it holds whole."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.formats.peft_names import PREFIX
from warmkit.formats.safetensors_file import read_header
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.layouts.adapter_config import CONFIG, WEIGHTS, AdapterConfig

_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.(?P<kind>weight|bias))?"
)


@dataclass
class Module:
    """The parts of one module's adapter, by their names in the file without `.weight`."""

    name: str
    parts: dict[str, Tensor] = field(default_factory=lambda: {})


@dataclass(frozen=True)
class Adapter:
    """An adapter's file, sorted: what is added to modules, and tensors that it holds whole."""

    config: AdapterConfig
    file: Path
    modules: dict[str, Module]
    whole: dict[str, StoredTensor]


def read_adapter(directory: Path, config: AdapterConfig) -> Adapter:
    """Read the header of the file in an adapter's directory.

    Raises:
        CheckpointError: If it is not there, malformed, or of a variant of LoRA that is not read.
    """
    file = directory / WEIGHTS
    if not file.is_file():
        if any(directory.glob("adapter_model.*")):
            raise UnsupportedError(
                f"{directory}: its weights are a pickle, which can run code when it is read; convert it once, where you trust "
                "it: load it with peft and save_pretrained(NEW)"
            )
        raise CheckpointError(f"{directory}: expected {WEIGHTS} beside {CONFIG}, found none")
    adapter = sorted_parts(config, file, read_header(file).entries)
    if not adapter.modules and not adapter.whole:
        raise FormatError(f"{file}: holds no tensors")
    return adapter


def sorted_parts(config: AdapterConfig, file: Path, entries: Iterable[Tensor]) -> Adapter:
    """Sort tensors that have the names of an adapter's file.

    Raises:
        UnsupportedError: If one belongs to a variant of LoRA that is not read.
    """
    modules, whole = dict[str, Module](), dict[str, StoredTensor]()
    for entry in entries:
        name = entry.name.removeprefix(PREFIX)
        if match := _PART.fullmatch(name):
            part = match["part"] + (".bias" if match["kind"] == "bias" else "")
            modules.setdefault(match["module"], Module(match["module"])).parts[part] = entry
        elif "lora_" in name or "token_adapter" in name or "trainable_tokens" in name or not isinstance(entry, StoredTensor):
            raise UnsupportedError(f"{file}: tensor {entry.name!r} belongs to a variant of LoRA that is not read here")
        else:
            whole[name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")] = entry
        if entry.dtype.kind != "float":
            raise UnsupportedError(f"{file}: tensor {entry.name!r} is {entry.dtype.name}, expected floating-point numbers")
    return Adapter(config, file, modules, whole)
