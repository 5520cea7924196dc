"""Weights of compressed-tensors: the numbers that it decompresses, or an error that names why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import warmkit
from tests.conftest import CONFIG, save, tensors_of, weights
from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.formats.quantised import is_dequantised
from warmkit.formats.tensors import result_dtype

DATA = Path(__file__).parents[2] / "data" / "quantised"
WRITTEN = sorted(each.name for each in DATA.glob("ct-*"))
Q = "model.layers.0.self_attn.q_proj.weight"
S, Z = f"{Q}_scale", f"{Q}_zero_point"
Change = Callable[[dict[str, torch.Tensor]], object]


def said_of(name: str) -> dict[str, torch.Tensor]:
    return load_file(DATA / "said" / f"{name}.safetensors")


def changed(folder: Path, name: str, change: Change = lambda _: None, weights: Any = None, **said: Any) -> Path:
    """Write a copy of a model with other tensors, another `quantization_config`, or other words on its weights."""
    folder.mkdir()
    tensors = load_file(DATA / name / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    content = json.loads((DATA / name / "config.json").read_text())
    content["quantization_config"] |= said
    if weights is not None:
        content["quantization_config"]["config_groups"]["group_0"]["weights"] |= weights
    (folder / "config.json").write_text(json.dumps(content))
    return folder


# ---- what the library reads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITTEN)
def test_every_number_is_that_of_compressed_tensors(name: str) -> None:
    opened, expected = warmkit.open_checkpoint(DATA / name), said_of(name)
    assert is_dequantised(opened)
    assert opened.keys() == expected.keys()
    for each, tensor in opened.items():
        found = tensor.load()
        if name == "ct-nvfp4" and found.dtype == torch.float32:  # the library rounds what it computes in float32
            found = found.bfloat16()
        assert torch.equal(found, expected[each]), each


@pytest.mark.parametrize("name", WRITTEN)
def test_a_merge_is_that_of_the_exact_weights_rounded_once(name: str, tmp_path: Path) -> None:
    one = tensors_of(DATA / name) if name == "ct-nvfp4" else said_of(name)
    two = {key: each * 3 for key, each in said_of(name).items()}
    config = json.loads((DATA / name / "config.json").read_text())
    del config["quantization_config"]
    other = save(tmp_path / "dense", two, config)
    result = warmkit.merge([DATA / name, other], output=tmp_path / "out", method="lerp", coefficients=[0.25, 0.75])
    assert any("quantised (compressed-tensors): 7 of 12 tensors are read as the bfloat16" in each for each in result.notes)
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == one.keys()
    for each, tensor in found.items():  # of 16-bit inputs: a float32 sum, which is exact here to its rounding
        exact = 0.25 * one[each].double() + 0.75 * two[each].double()
        assert torch.equal(tensor, exact.float().bfloat16()), each
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_the_product_is_rounded_to_the_type_of_the_scales(kind: torch.dtype, tmp_path: Path) -> None:
    scales = load_file(DATA / "ct-int8-zero" / "model.safetensors")[S].to(kind) * 1.01
    folder = changed(tmp_path / "m", "ct-int8-zero", lambda each: each.update({S: scales}))
    codes = load_file(folder / "model.safetensors")
    less = codes[Q].to(kind) - codes[Z].to(kind)
    found = warmkit.open_checkpoint(folder)[Q]
    assert found.load().dtype == kind
    assert torch.equal(found.load(), less * scales)
    assert result_dtype(found.entry).torch_name == "bfloat16"


def test_zero_points_that_a_symmetric_form_stores_are_used(tmp_path: Path) -> None:
    zeros = torch.full((32, 2), 3, dtype=torch.int8)
    folder = changed(tmp_path / "m", "ct-int4", lambda each: each.update({Z: zeros}))
    scales = load_file(folder / "model.safetensors")[S].repeat_interleave(16, 1)
    numbers = (said_of("ct-int4")[Q].float() / scales.float()).round()  # the codes again
    assert torch.equal(tensors_of(folder)[Q], (numbers - 3).bfloat16() * scales)


def test_a_block_may_be_written_as_older_configs_do(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", "ct-fp8-block", weights={"block_structure": "32x32"})
    assert torch.equal(tensors_of(folder)[Q], said_of("ct-fp8-block")[Q])


def test_activations_and_the_cache_are_left_out(tmp_path: Path) -> None:
    layer = "model.layers.0.self_attn"
    cache = {f"{layer}.{each}_scale": torch.ones(1) for each in "kv"}
    more = {**cache, f"{layer}.q_proj.input_zero_point": torch.zeros(1, dtype=torch.int8)}
    folder = changed(tmp_path / "m", "ct-fp8-tensor", lambda each: each.update(more), kv_cache_scheme={"num_bits": 8})
    stored = load_file(folder / "model.safetensors")
    assert any(name.endswith("input_scale") for name in stored)
    assert tensors_of(folder).keys() == said_of("ct-fp8-tensor").keys()


def test_groups_that_differ_are_told_apart_by_codes_and_shapes(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    floats = {each: load_file(DATA / "ct-fp8-block" / "model.safetensors")[each] for each in (name, f"{name}_scale")}
    groups = {
        each: json.loads((DATA / folder / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]
        for each, folder in (("a", "ct-int8-zero"), ("b", "ct-fp8-block"), ("c", "ct-fp8-channel"))
    }

    def mix(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update(floats)
        del tensors[f"{name}_zero_point"]

    folder = changed(tmp_path / "m", "ct-int8-zero", mix, config_groups=groups, format="mixed-precision")
    expected = {**said_of("ct-int8-zero"), name: said_of("ct-fp8-block")[name]}
    assert all(torch.equal(each, expected[key]) for key, each in tensors_of(folder).items())


def test_dense_weights_under_such_a_config_are_what_they_are(tmp_path: Path) -> None:
    config = {"quant_method": "compressed-tensors", "format": "dense", "config_groups": {}}
    opened = warmkit.open_checkpoint(save(tmp_path / "m", weights(1), {**CONFIG, "quantization_config": config}))
    assert "all of its weights are dense: read as they are" in opened.notes[0]


def test_adapters_on_a_quantised_base_are_merged_as_on_the_dense_one(tmp_path: Path) -> None:
    config = json.loads((DATA / "ct-int8" / "config.json").read_text())
    del config["quantization_config"]
    dense = save(tmp_path / "dense", said_of("ct-int8"), config)
    adapters = []
    for seed in (1, 2):
        adapters.append(tmp_path / f"adapter-{seed}")
        adapters[-1].mkdir()
        torch.manual_seed(seed)
        module = f"base_model.model.{Q.removesuffix('.weight')}"
        factors = {f"{module}.lora_A.weight": torch.randn(2, 32), f"{module}.lora_B.weight": torch.randn(32, 2)}
        save_file(factors, adapters[-1] / "adapter_model.safetensors")
        (adapters[-1] / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    for name, base in (("one", DATA / "ct-int8"), ("two", dense)):
        warmkit.merge([f"{base}+{each}" for each in adapters], output=tmp_path / name, init=base, method="slerp")
    one, two = (load_file(tmp_path / each / "model.safetensors") for each in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one[Q], said_of("ct-int8")[Q])


# ---- what is refused -----------------------------------------------------------------------------------------------------

P, SHAPE = f"{Q}_packed", f"{Q}_shape"
WRONG: dict[str, tuple[str, Change, dict[str, Any], str]] = {
    "no scales": (
        "ct-fp8-channel",
        lambda each: each.pop(S),
        {},
        f"'{Q}' holds codes (F8_E4M3) and its scales '{S}' are missing",
    ),
    "no scales of whole numbers": (
        "ct-int8",
        lambda each: each.pop(S),
        {},
        f"quantised weights (packed: tensor '{Q}') cannot be averaged",
    ),
    "no weight": ("ct-int8", lambda each: each.pop(Q), {}, f"'{S}' belongs to a weight, which is missing"),
    "a zero point alone": (
        "ct-int8-zero",
        lambda each: (each.pop(Q), each.pop(S)),
        {},
        "belongs to a weight, which is missing",
    ),
    "not compressed": (
        "ct-int8",
        lambda each: each.update({Q: each[Q].bfloat16()}),
        {},
        f"'{S}' belongs to a weight, which is BF16 and not compressed",
    ),
    "other scales": (
        "ct-int8",
        lambda each: each.update({S: torch.ones(16, 1)}),
        {},
        f"'{S}' has shape [16, 1], which for '{Q}' [32, 32] fits none of its groups (channel)",
    ),
    "other size of blocks": (
        "ct-fp8-block",
        lambda _: None,
        {"weights": {"block_structure": [16, 16]}},
        "fits none of its groups (block [16, 16])",
    ),
    "other codes": ("ct-int8", lambda _: None, {"weights": {"type": "float"}}, "(none has 8-bit codes of I8)"),
    "scales of whole numbers": (
        "ct-int8",
        lambda each: each.update({S: torch.ones(32, 1, dtype=torch.uint8)}),
        {},
        "is U8, expected numbers (F32, BF16, F16)",
    ),
    "zero points that are none": (
        "ct-int8-zero",
        lambda each: each.update({Z: each[Z].float()}),
        {},
        f"'{Z}' is F32 [32, 1], expected I8 [32, 1], one for each scale",
    ),
    "zero points of another shape": (
        "ct-int8-zero",
        lambda each: each.update({Z: each[Z][:16].clone()}),
        {},
        f"'{Z}' is I8 [16, 1], expected I8 [32, 1], one for each scale",
    ),
    "a vector": (
        "ct-int8",
        lambda each: each.update({Q: each[Q][0].clone()}),
        {},
        "holds codes of shape [32], expected a matrix",
    ),
    "a format that is not read": (
        "ct-int8",
        lambda _: None,
        {"format": "marlin-24"},
        "in the format 'marlin-24', which is not read",
    ),
    "rotations": (
        "ct-int8",
        lambda _: None,
        {"transform_config": {"config_groups": {"u": {}}}},
        "compressed-tensors with a transf",
    ),
    "sparse": (
        "ct-int8",
        lambda _: None,
        {"sparsity_config": {"format": "sparse-24-bitmask"}},
        "with a sparsity_config, which is n",
    ),
    "no groups": (
        "ct-int8",
        lambda _: None,
        {"config_groups": ["FP8"]},
        "expected config_groups in quantization_config to map",
    ),
    "blocks without a size": (
        "ct-fp8-block",
        lambda _: None,
        {"weights": {"block_structure": [32]}},
        "strategy 'block' needs sizes that are natural numbers, found [32]",
    ),
    "a strategy that is not read": (
        "ct-int8",
        lambda _: None,
        {"weights": {"strategy": "tensor_group"}},
        "config_groups.group_0.weights in quantization_config: num_bits 8, strategy 'tensor_group', which is not read",
    ),
    "packed without scales": (
        "ct-int4",
        lambda each: each.pop(S),
        {},
        f"'{P}' holds codes (I32) and its scales '{S}' are missing",
    ),
    "packed without a shape": ("ct-int4", lambda each: each.pop(SHAPE), {}, f"'{SHAPE}', the shape of '{P}', is missing"),
    "a shape of floats": (
        "ct-int4",
        lambda each: each.update({SHAPE: torch.ones(2)}),
        {},
        f"'{SHAPE}', the shape of '{P}', is F32 [2], expected I64 [2]",
    ),
    "another shape": (
        "ct-int4-channel",
        lambda each: each.update({SHAPE: torch.tensor([32, 50])}),
        {},
        f"'{P}' [32, 5] with scales [32, 1] is no weight of [32, 50] that a group in config_groups describes",
    ),
    "a shape of more rows": (
        "ct-int4",
        lambda each: each.update({SHAPE: torch.tensor([1 << 40, 32])}),
        {},
        f"'{SHAPE}' says [1099511627776, 32], '{P}' is [32, 4]",
    ),
    "a shape that is negative": (
        "ct-int4",
        lambda each: each.update({SHAPE: torch.tensor([32, -1])}),
        {},
        f"'{SHAPE}' says [32, -1], '{P}' is [32, 4]",
    ),
    "a shape alone": ("ct-int4", lambda each: (each.pop(P), each.pop(S)), {}, "belongs to a weight, which is missing"),
    "words of another type": (
        "ct-int4",
        lambda each: each.update({P: each[P].to(torch.int64)}),
        {},
        f"'{P}' is I64 [32, 4], expected I32, a matrix",
    ),
    "another size of groups": (
        "ct-int4",
        lambda _: None,
        {"weights": {"group_size": 8}},
        "[32, 6] with scales [32, 3] is no weight of [32, 48] that a group in config_groups describes",
    ),
    "another number of bits": (
        "ct-int4",
        lambda _: None,
        {"weights": {"num_bits": 8}},
        "is no weight of [32, 48] that a group",
    ),
    "bits that are not read": (
        "ct-int4",
        lambda _: None,
        {"weights": {"num_bits": 3}},
        "'int' of 3 bits, packed, which is not read",
    ),
    "zero points that are not packed": (
        "ct-int4-zero",
        lambda each: each.update({Z: torch.zeros(32, 2, dtype=torch.int8)}),
        {},
        f"'{Z}' is I8 [32, 2], expected I32 [4, 2], packed zero points of groups or channels",
    ),
    "a strategy that is no word": (
        "ct-int8",
        lambda _: None,
        {"weights": {"strategy": [1]}},
        "num_bits 8, strategy [1], which is",
    ),
    "FP4 without scales": ("ct-nvfp4", lambda each: each.pop(S), {}, f"'{P}' [32, 16] with no _scale, _global_scale F32 [1]"),
    "FP4 without a global scale": (
        "ct-nvfp4",
        lambda each: each.pop(f"{Q}_global_scale"),
        {},
        "with _scale F8_E4M3 [32, 2], no _global_scale: expected FP8 scales of a group in config_groups and a global scale",
    ),
    "FP4 with global scales of rows": (
        "ct-nvfp4",
        lambda each: each.update({f"{Q}_global_scale": torch.ones(32)}),
        {},
        "_scale F8_E4M3 [32, 2], _global_scale F32 [32]: expected",
    ),
    "FP4 in other groups": (
        "ct-nvfp4",
        lambda _: None,
        {"weights": {"group_size": 32}},
        "_scale F8_E4M3 [16, 2], _global_scale F32 [1]: expected",
    ),
    "MXFP4 with scales that are numbers": (
        "ct-mxfp4",
        lambda each: each.update({S: torch.ones(32, 1)}),
        {},
        f"'{P}' [32, 16] with _scale F32 [32, 1], no _global_scale: expected",
    ),
    "FP4 with zero points": (
        "ct-mxfp4",
        lambda each: each.update({Z: torch.zeros(32, 1)}),
        {},
        f"'{P}' is FP4 with zero points, which is not read",
    ),
    "FP4 of eight bits": ("ct-nvfp4", lambda _: None, {"weights": {"num_bits": 8}}, "'float' of 8 bits, packed, which is not"),
    "a global scale alone": ("ct-nvfp4", lambda each: (each.pop(P), each.pop(S)), {}, "(packed: tensor"),
    "an order of columns": (
        "ct-int8",
        lambda each: each.update({Q.replace("weight", "weight_g_idx"): torch.zeros(32, dtype=torch.int32)}),
        {},
        "quantised weights (packed: tensor 'model.layers.0.self_attn.q_proj.weight_g_idx')",
    ),
    "a scale of scales": (
        "ct-int8",
        lambda each: each.update({Q.replace("weight", "weight_global_scale"): torch.ones(1)}),
        {},
        "quantised weights (packed: tensor 'model.layers.0.self_attn.q_proj.weight_global_scale')",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_named_and_nothing_is_written(what: str, tmp_path: Path) -> None:
    name, change, said, expected = WRONG[what]
    if "format" in said:
        content = json.loads((DATA / name / "config.json").read_text())["quantization_config"]["config_groups"]
        said = {"config_groups": {"group_0": {**content["group_0"], "format": said["format"]}}}
    folder = changed(tmp_path / "m", name, change, **said)
    with pytest.raises(CheckpointError) as refusal:
        warmkit.merge([folder, DATA / name], output=tmp_path / "out", method="lerp")
    assert isinstance(refusal.value, FormatError | UnsupportedError)
    assert expected in str(refusal.value)
    assert not (tmp_path / "out").exists()
