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

_PARTS = (
    "lora_A|lora_B|lora_E|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|hada_w1_a|hada_w1_b|hada_w2_a|hada_w2_b|ia3_l|"
    "lokr_w1|lokr_w1_a|lokr_w1_b|lokr_w2|lokr_w2_a|lokr_w2_b|vera_lambda_b|vera_lambda_d|trainable_tokens_delta|"
    "oft_R|boft_R|boft_s|hra_u|miss_block"
)
_PART = re.compile(rf"(?P<module>.+?)(?:\.token_adapter)?\.(?P<part>{_PARTS})(?:\.(?P<kind>weight|bias))?")
_SHARED = re.compile(r"(?:.+\.)?(vera_[AB])")
_OTHER = re.compile(r"lora_|hada_|ia3_|lokr_|vera_|token_adapter|trainable_tokens|\bb?oft_|\bhra_|\bmiss_")


@dataclass
class Module:
    """The parts of one module's adapter, by their names in the file without `.weight`.

    Attributes:
        name: Of the module.
        parts: Its tensors.
        key: What expressions of the config are matched with: the module's name, or that of one of its parameters.
    """

    name: str
    parts: dict[str, Tensor] = field(default_factory=lambda: {})
    key: str = ""

    def __post_init__(self) -> None:
        self.key = self.key or self.name

    def pair(self, adapter: Adapter, first: str, second: str, experts: int = 1) -> tuple[Tensor, Tensor]:
        """Return the two factors, [rank experts, in] and [out, rank experts].

        Raises:
            FormatError: If one is missing, or of another rank than the config says.
            UnsupportedError: If one is no matrix.
        """
        for name, other in ((first, second), (second, first)):
            if name not in self.parts:
                raise FormatError(f"{adapter.file}: module {self.name!r} has {other} and no {name}: the file is not complete")
        a, b, rank = self.parts[first], self.parts[second], adapter.config.rank_of(self.key)
        if len(a.shape) != 2 or len(b.shape) != 2:
            raise UnsupportedError(
                f"{adapter.file}: module {self.name!r} is no matrix (lora_A {list(a.shape)}, lora_B {list(b.shape)})"
            )
        if (a.shape[0], b.shape[1]) != (rank * experts, rank * experts):
            times = f" for each of {experts} experts" if experts != 1 else ""
            raise FormatError(
                f"{adapter.file}: module {self.name!r} has factors {list(a.shape)} and {list(b.shape)}, "
                f"{adapter.config.path.name} says rank {rank}{times}"
            )
        return a, b


@dataclass(frozen=True)
class Adapter:
    """An adapter's file, sorted: what is added to modules, tensors that it holds whole, and those that modules share."""

    config: AdapterConfig
    file: Path
    modules: dict[str, Module]
    whole: dict[str, StoredTensor]
    shared: dict[str, Tensor] = field(default_factory=lambda: {})


def read_adapter(directory: Path, config: AdapterConfig) -> Adapter:
    """Read the header of the file in an adapter's directory.

    Raises:
        CheckpointError: If it is not there, malformed, or of a variant that is not read.
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
        UnsupportedError: If one belongs to a variant that is not read.
    """
    modules, whole, shared = dict[str, Module](), dict[str, StoredTensor](), dict[str, Tensor]()
    for entry in entries:
        name = entry.name.removeprefix(PREFIX)
        if match := _PART.fullmatch(name):
            part = match["part"] + (".bias" if match["kind"] == "bias" else "")
            modules.setdefault(match["module"], Module(match["module"])).parts[part] = entry
        elif match := _SHARED.fullmatch(name):
            shared[match[1]] = entry
        elif _OTHER.search(name) or not isinstance(entry, StoredTensor):
            raise UnsupportedError(f"{file}: tensor {entry.name!r} belongs to a variant of {config.kind} that is not read here")
        else:
            whole[re.sub(r"\.(base_layer|modules_to_save|ln_tuning_layers)\.", ".", name)] = entry
        if entry.dtype.kind != "float":
            raise UnsupportedError(f"{file}: tensor {entry.name!r} is {entry.dtype.name}, expected floating-point numbers")
    return Adapter(config, file, modules, whole, shared)
