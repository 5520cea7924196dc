"""Checkpoints that are refused: quantised, factors apart, a part of a model, nothing at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.safetensors_file import SHARDING

if TYPE_CHECKING:
    from warmkit.formats.checkpoint import Checkpoint
    from warmkit.formats.tensors import Tensor

_QUANTISED = frozenset(("quantization_config", "quantization", "compression_config", "quant_config"))  # keys of configs
# Parts of tensors in the forms of GPTQ, AWQ, bitsandbytes, compressed-tensors, block-wise fp8, HQQ, AQLM, quanto, torchao,
# ModelOpt, EXL2 and EXL3, QuIP, SpQR, and of training that rounds as it goes.
_PACKED = (
    *(".qweight", ".qzeros", ".g_idx", ".absmax", ".quant_map", ".weight_packed", ".weight_scale", ".weight_scale_inv"),
    *(".weight_scale_2", ".weight_global_scale", ".weight_zero_point", ".weight_scales", ".weight_shape", ".input_scale"),
    *(
        ".weight_g_idx",
        ".SCB",
        ".W_q",
        ".codebooks",
        "._data",
        "._weight_qdata",
        "._weight_scale",
        "._amax",
        ".q_weight",
        ".trellis",
        ".Qidxs",
    ),
    *("_scale_inv", ".activation_scale", ".dqweight", ".dense_weights", "._packed_params"),
)
_PACKED_PART = re.compile(r"\.(quant_state|weight_fake_quant|activation_post_process)\.")
_WHOLE_NUMBERS = re.compile(r"(.*\.)?(weight|\w*_proj|\w+_blocks)")  # names of matrices, which buffers do not have
_APART = re.compile(
    r"\.(base_layer|original_module|modules_to_save|lora_A|lora_B|lora_embedding_[AB]|lora_magnitude_vector|lora_[ED]|lora_down"
    r"|lora_up|ia3_l|vera_lambda_[bd]|hada_w[12]_[ab]|lokr_w[12](_[ab])?|oft_[rR]|token_adapter)(\.|$)"
)
_FLAT = re.compile(r"(.*\.)?_?flat_param(_\d+)?")


def refuse(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose tensors are not the weights of one whole model.

    Raises:
        UnsupportedError: Naming the tensor or key that says so, and what to do.
        FormatError: If there is not one number in it.
    """
    for check in (_sharded, _codes, _quantised, _unmerged, _flat, _empty):
        check(checkpoint)


def _first(names: Iterable[str], wanted: Callable[[str], Any]) -> str | None:
    return next(filter(wanted, names), None)


def _sharded(checkpoint: Checkpoint) -> None:
    if SHARDING in checkpoint.metadata:
        raise UnsupportedError(
            f"{checkpoint.source}: shards of torch's HuggingFaceStorageWriter ({SHARDING}), each with a part of every tensor; "
            "give a folder on this machine with all of them, under the names that the writer gave them (shard-00001-model-...)"
        )


def _codes(checkpoint: Checkpoint) -> None:
    name = _first(checkpoint.entries, lambda name: checkpoint.entries[name].dtype.kind == "code")
    if name is not None:
        tensor = checkpoint.entries[name]
        raise UnsupportedError(
            f"{tensor.file}: tensor {name!r} is {tensor.dtype.name}, a quantised type that cannot be averaged without the "
            "scales and the config.json that say what it stands for; give the folder with all of them, or merge the bfloat16 "
            "or float32 checkpoints and quantise the result"
        )


def _quantised(checkpoint: Checkpoint) -> None:
    place, content = _said_in(checkpoint.config, "config.json") or (None, None)
    packed = _first(checkpoint.entries, lambda name: _is_packed(name, checkpoint.entries[name]))
    if place is None and packed is None:
        return
    method = content.get("quant_method", "unknown method") if isinstance(content, dict) else "packed"
    where = f"tensor {packed!r}" if packed else place
    raise UnsupportedError(
        f"{checkpoint.source}: quantised weights ({method}: {where}) cannot be averaged; merge the checkpoints they were "
        "made from and quantise the result"
    )


def _said_in(config: Mapping[str, Any], where: str) -> tuple[str, Any] | None:
    """Return where a config, or that of a part at any depth, says that weights are quantised, and what it says of it."""
    for key, value in config.items():
        if key in _QUANTISED and value:
            return f"{key} in {where}", value
        found = _said_in(cast("dict[str, Any]", value), f"{key} of {where}") if isinstance(value, dict) else None
        if found is not None:
            return found
    return None


def _is_packed(name: str, tensor: Tensor) -> bool:
    if name.endswith(_PACKED) or _PACKED_PART.search(name):
        return True
    whole = tensor.dtype.kind == "exact" and tensor.dtype.name != "BOOL"
    return whole and len(tensor.shape) > 1 and _WHOLE_NUMBERS.fullmatch(name) is not None


def _unmerged(checkpoint: Checkpoint) -> None:
    if (name := _first(checkpoint.entries, _APART.search)) is not None:
        raise UnsupportedError(
            f"{checkpoint.source}: layers of an adapter that were not merged ({name!r}): the mean of factors is no mean of "
            "their products; save each with peft's merge_and_unload(), or give BASE+ADAPTER, with the adapter's own folder"
        )


def _flat(checkpoint: Checkpoint) -> None:
    if (name := _first(checkpoint.entries, _FLAT.fullmatch)) is not None:
        raise UnsupportedError(
            f"{checkpoint.source}: flat parameters of FSDP ({name!r}), many tensors in one; save a full or a sharded state dict"
        )


def _empty(checkpoint: Checkpoint) -> None:
    """Refuse what has no numbers: DeepSpeed's ZeRO-3 leaves a tensor of shape [0] for every parameter that is elsewhere."""
    hollow = _first(checkpoint.entries, lambda name: _is_hollow(name, checkpoint.entries[name]))
    if hollow is None and checkpoint.parameters:
        return
    what = f"{hollow!r} has shape [0]" if hollow else "not one number in its tensors"
    raise FormatError(
        f"{checkpoint.source}: no weights ({what}), as DeepSpeed's ZeRO-3 leaves them: they lie in the files of the optimizer; "
        "give the folder of global_stepN, with these"
    )


def _is_hollow(name: str, tensor: Tensor) -> bool:
    return tensor.shape == (0,) and name.endswith(".weight")
