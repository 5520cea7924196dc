"""The table of quantised weights that are read, and how: dense weights in place of codes and scales.

A form is one file of this folder and one row here, with its test and its row on the page of inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from warmkit.formats import awq, bitsandbytes, compressed_tensors, fp8, gptq, mxfp4, torchao
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.coded import CodedTensor
from warmkit.formats.dtypes import BY_TORCH_NAME, OUTPUT_NAMES, DType
from warmkit.formats.gguf_file import GgufTensor
from warmkit.formats.mxfp4 import ExpertsTensor
from warmkit.formats.tensors import Tensor

KEY, DTYPE_KEYS = "quantization_config", ("dtype", "torch_dtype")


@dataclass(frozen=True)
class QuantisedForm:
    """A way in which codes and scales stand for weights.

    Attributes:
        method: What `quant_method` in a config calls it; its row on `docs/inputs.md` says the same.
        dense_entries: From a checkpoint, its `quantization_config` and the type of the model's weights to its tensors, those
            of codes and scales as the weights that they stand for. What it does not know stays, and is refused later.
        rescales: Whether the method multiplies channels of weights and divides what is before them.
    """

    method: str
    dense_entries: Callable[[Checkpoint, Mapping[str, Any], DType], dict[str, Tensor]]
    rescales: bool = False


FORMS = (
    QuantisedForm("fp8", fp8.dense_entries),
    QuantisedForm("compressed-tensors", compressed_tensors.dense_entries),
    QuantisedForm("mxfp4", mxfp4.dense_entries),
    QuantisedForm("bitsandbytes", bitsandbytes.dense_entries),
    QuantisedForm("gptq", gptq.dense_entries),
    QuantisedForm("torchao", torchao.dense_entries),
    QuantisedForm("awq", awq.dense_entries, rescales=True),
)


def dequantised(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with dense weights in place of codes and scales, and a config that is true of it; others as they are.

    Raises:
        FormatError: If codes and scales do not fit each other.
        UnsupportedError: If they are of a kind that is not read.
    """
    said = checkpoint.config.get(KEY)
    method = said.get("quant_method") if isinstance(said, dict) else None
    form = next((each for each in FORMS if each.method == method), None)
    if form is None:
        return checkpoint
    stands_for = type_of_weights(checkpoint.config)
    entries = form.dense_entries(checkpoint, checkpoint.config[KEY], stands_for)
    note = f"{checkpoint.source}: {_said(entries, form.method, stands_for)}"
    return replace(
        checkpoint,
        entries=entries,
        notes=(*checkpoint.notes, note),
        own_config=_dense(checkpoint.config, stands_for),
        rescaled=form.rescales and entries.keys() != checkpoint.entries.keys(),
    )


def is_dequantised(checkpoint: Checkpoint) -> bool:
    """Say whether numbers of a checkpoint are computed from codes and scales."""
    return any(isinstance(each, CodedTensor | ExpertsTensor | GgufTensor) for each in checkpoint.entries.values())


def type_of_weights(config: Mapping[str, Any]) -> DType:
    """Return the type in which a quantised model computes, and its dense weights are: bfloat16 where its config is silent."""
    parts = (config, config.get("text_config"))
    names = [part.get(key) for part in parts if isinstance(part, dict) for key in DTYPE_KEYS]
    plain = [name.removeprefix("torch.") for name in names if isinstance(name, str)]
    return BY_TORCH_NAME[next((name for name in plain if name in OUTPUT_NAMES), "bfloat16")]


def _said(entries: Mapping[str, Tensor], method: str, stands_for: DType) -> str:
    coded = sum(isinstance(each, CodedTensor | ExpertsTensor) for each in entries.values())
    if not coded:
        return f"its config says quantised ({method}), and all of its weights are dense: read as they are"
    kind = stands_for.torch_name
    return f"quantised ({method}): {coded} of {len(entries)} tensors are read as the {kind} weights that they stand for"


def _dense(config: Mapping[str, Any], stands_for: DType) -> dict[str, Any]:
    """Return the config of the dense weights."""
    kept = {key: value for key, value in config.items() if key != KEY}
    return kept | dict.fromkeys([key for key in DTYPE_KEYS if key in kept] or ["torch_dtype"], stands_for.torch_name)
