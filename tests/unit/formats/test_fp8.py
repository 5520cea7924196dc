"""FP8 weights with scales of blocks: the numbers that the libraries read, or an error that names why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.finegrained_fp8 import Fp8Quantize

import warmkit
from tests.conftest import CONFIG, save, tensors_of, weights
from tests.unit.sources.web import Web, serving
from warmkit.engine import recode
from warmkit.errors import CheckpointError, FormatError, NonFiniteError, UnsupportedError, VerificationError
from warmkit.formats import coded, held
from warmkit.formats.dtypes import DTYPES
from warmkit.formats.tensors import result_dtype

DATA = Path(__file__).parents[2] / "data" / "quantised"
Q = "model.layers.0.self_attn.q_proj.weight"
EIGHT = torch.float8_e4m3fn
Change = Callable[[dict[str, torch.Tensor]], object]


def by_transformers(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).state_dict()


def changed(folder: Path, change: Change = lambda _: None, **said: Any) -> Path:
    """Write a copy of `fp8-a` with other tensors, or another `quantization_config`."""
    folder.mkdir()
    tensors = load_file(DATA / "fp8-a" / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    content = json.loads((DATA / "fp8-a" / "config.json").read_text())
    content["quantization_config"] |= said
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def of_one(folder: Path, weight: torch.Tensor, scales: torch.Tensor, **said: Any) -> warmkit.Checkpoint:
    tensors = {"up.weight": weight, "up.weight_scale_inv": scales}
    return warmkit.open_checkpoint(save(folder, tensors, {**CONFIG, "quantization_config": {"quant_method": "fp8", **said}}))


def codes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(50).to(EIGHT)


# ---- what the libraries read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fp8-a", "fp8-b"])
def test_every_number_is_that_of_transformers(name: str) -> None:
    found, expected = tensors_of(DATA / name), by_transformers(DATA / name, torch.float32)
    assert found.keys() == expected.keys()
    for each, tensor in found.items():
        assert torch.equal(tensor.float(), expected[each]), each


def test_blocks_that_are_cut_are_those_of_compressed_tensors() -> None:
    found, expected = tensors_of(DATA / "fp8-cut"), load_file(DATA / "said" / "fp8-cut.safetensors")
    assert found.keys() == expected.keys()
    assert any(size % 32 for each in expected.values() for size in each.shape), "nothing is cut"
    for each, tensor in found.items():
        assert torch.equal(tensor, expected[each]), each


def test_weights_are_rounded_to_the_type_of_the_model_as_transformers_rounds_them(tmp_path: Path) -> None:
    warmkit.merge([DATA / "fp8-a"], output=tmp_path / "dense", method="uniform")
    expected = by_transformers(DATA / "fp8-a", torch.bfloat16)
    found = load_file(tmp_path / "dense" / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    config = json.loads((tmp_path / "dense" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    assert {each.dtype for each in loaded.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("models", [("fp8-a", "fp8-b"), ("fp8-a", "sft"), ("sft", "fp8-b")])
def test_a_merge_is_that_of_the_exact_weights_rounded_once(models: tuple[str, str], tmp_path: Path) -> None:
    result = warmkit.merge([DATA / each for each in models], output=tmp_path / "out", method="lerp", coefficients=[0.25, 0.75])
    one, two = (by_transformers(DATA / each, torch.float32) for each in models)
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in found.items():
        exact = 0.25 * one[name].double() + 0.75 * two[name].double()
        assert torch.equal(tensor, exact.float().bfloat16()), name
    assert sum("quantised (fp8): 7 of 12 tensors are read as the bfloat16" in each for each in result.notes) == sum(
        each.startswith("fp8") for each in models
    )


def test_angles_and_liti_see_the_dense_model(tmp_path: Path) -> None:
    models = [DATA / "fp8-a", DATA / "fp8-b"]
    config = json.loads((DATA / "sft" / "config.json").read_text())
    dense = [save(tmp_path / each.name, by_transformers(each, torch.float32), config) for each in models]
    quantised, plain = (warmkit.compare(each, init=DATA / "sft").groups for each in (models, dense))
    assert [each.name for each in quantised] == [each.name for each in plain]
    for one, two in zip(quantised, plain):  # of other types, so sums have another order
        assert one.task_vector_norms == pytest.approx(two.task_vector_norms, rel=1e-12)
        assert one.pairs[0].weight_angle == pytest.approx(two.pairs[0].weight_angle, rel=1e-9)
    warmkit.liti(models[0], init=DATA / "sft", eta=0.5, output=tmp_path / "liti")
    init, exact = tensors_of(DATA / "sft"), by_transformers(models[0], torch.float32)
    for name, tensor in load_file(tmp_path / "liti" / "model.safetensors").items():
        assert torch.equal(tensor, (0.5 * init[name].double() + 0.5 * exact[name].double()).float().bfloat16())


def test_the_same_bytes_in_any_pieces_and_with_any_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = set()
    for threads, piece, kept in ((1, 1 << 18, 12), (2, 100, 12), (8, 37, 1)):  # scales are dropped and read again
        monkeypatch.setattr(coded, "PIECE", piece)
        monkeypatch.setattr(held, "KEPT", kept)
        out = tmp_path / f"{threads}"
        warmkit.merge([DATA / "fp8-a", DATA / "fp8-b", DATA / "fp8-a"], out, method="uniform", threads=threads)
        written.add((out / "model.safetensors").read_bytes())
    assert len(written) == 1


def test_a_merge_that_is_streamed_is_the_same(tmp_path: Path) -> None:
    with serving(Web(DATA)) as server:
        far = [f"{server.address}/{each}" for each in ("fp8-a", "fp8-b")]
        warmkit.merge(far, output=tmp_path / "far", method="slerp-weights")
    warmkit.merge([DATA / "fp8-a", DATA / "fp8-b"], output=tmp_path / "near", method="slerp-weights")
    far, near = (load_file(tmp_path / each / "model.safetensors") for each in ("far", "near"))
    assert all(torch.equal(far[name], near[name]) for name in near)


# ---- forms of scales -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_scales_of_any_type_are_multiplied_in_float32(kind: torch.dtype, tmp_path: Path) -> None:
    weight, scales = codes(300, 130), torch.rand(3, 2, generator=torch.Generator().manual_seed(1)).to(kind)
    found = of_one(tmp_path / "m", weight, scales)["up.weight"]
    whole = scales.float().repeat_interleave(128, 0)[:300].repeat_interleave(128, 1)[:, :130]
    assert torch.equal(found.load(), weight.float() * whole)
    assert (found.dtype, result_dtype(found.entry)) == (DTYPES["F32"], DTYPES["BF16"])


@pytest.mark.parametrize("kind", [torch.float8_e8m0fnu, torch.uint8])
def test_scales_that_are_exponents_are_those_of_transformers(kind: torch.dtype, tmp_path: Path) -> None:
    def exponents(tensors: dict[str, torch.Tensor]) -> None:
        for name in [each for each in tensors if each.endswith("_scale_inv")]:
            tensors[name] = tensors[name].to(torch.float8_e8m0fnu).view(kind)

    folder = changed(tmp_path / "m", exponents, scale_fmt="ue8m0")
    found, expected = tensors_of(folder), by_transformers(folder, torch.float32)
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor.float(), expected[each]) for each, tensor in found.items())


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_scale_of_a_whole_matrix(shape: tuple[int, ...], tmp_path: Path) -> None:
    weight, scales = codes(20, 30), torch.full(shape, 0.3)
    found = of_one(tmp_path / "m", weight, scales, weight_block_size=None)
    assert torch.equal(found["up.weight"].load(), weight.float() * torch.tensor(0.3))


@pytest.mark.parametrize(("size", "shape"), [([16, 8], (3, 2, 3)), (None, (3, 1, 1)), (None, (3,))])
def test_a_stack_of_experts_has_scales_of_each(size: list[int] | None, shape: tuple[int, ...], tmp_path: Path) -> None:
    weight, scales = codes(3, 20, 24), torch.rand(shape)
    tensors = {"experts.down_proj": weight, "experts.down_proj_scale_inv": scales}
    config = {**CONFIG, "quantization_config": {"quant_method": "fp8", "weight_block_size": size}}
    found = tensors_of(save(tmp_path / "m", tensors, config))
    high, wide = size or (20, 24)
    grid = scales.reshape(3, -(-20 // high), -(-24 // wide))
    whole = grid.repeat_interleave(high, 1)[:, :20].repeat_interleave(wide, 2)
    assert found.keys() == {"experts.down_proj"}
    assert torch.equal(found["experts.down_proj"], weight.float() * whole)


@pytest.mark.parametrize("kind", ["float32", "float16"])
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_type_of_a_result_is_that_of_the_config(key: str, kind: str, tmp_path: Path) -> None:
    config = {**CONFIG, key: kind, "quantization_config": {"quant_method": "fp8", "weight_block_size": [4, 4]}}
    tensors = {"up.weight": codes(4, 4), "up.weight_scale_inv": torch.ones(1, 1)}
    opened = warmkit.open_checkpoint(save(tmp_path / "m", tensors, config))
    assert result_dtype(opened["up.weight"].entry).torch_name == kind
    assert (opened.config[key], opened.config.get("quantization_config")) == (kind, None)


def test_a_type_that_no_weights_have_becomes_bfloat16(tmp_path: Path) -> None:
    config = {**CONFIG, "torch_dtype": "float8_e4m3fn", "quantization_config": {"quant_method": "fp8"}}
    opened = warmkit.open_checkpoint(
        save(tmp_path / "m", {"w.weight": codes(4, 4), "w.weight_scale_inv": torch.ones(1, 1)}, config)
    )
    assert opened.config["torch_dtype"] == "bfloat16"


def test_scales_of_activations_are_left_out(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", lambda each: each.update({Q.replace("weight", "activation_scale"): torch.ones(())}))
    assert tensors_of(folder).keys() == tensors_of(DATA / "fp8-a").keys()


def test_dense_weights_under_a_config_that_says_fp8_are_what_they_are(tmp_path: Path) -> None:
    config = {**CONFIG, "quantization_config": {"quant_method": "fp8"}}
    opened = warmkit.open_checkpoint(save(tmp_path / "m", weights(1, torch.bfloat16), config))
    assert "its config says quantised (fp8), and all of its weights are dense: read as they are" in opened.notes[0]
    assert all(torch.equal(opened[name].load(), each) for name, each in weights(1, torch.bfloat16).items())
    assert "quantization_config" not in opened.config


def test_an_adapter_is_added_to_the_dense_base_and_a_note_says_so(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    a, b = torch.randn(2, 64), torch.randn(64, 2)
    module = f"base_model.model.{Q.removesuffix('.weight')}"
    save_file({f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    opened = warmkit.open_checkpoint(f"{DATA / 'fp8-a'}+{adapter}")
    assert any("its base is quantised; the result is the dense weights of both" in each for each in opened.notes)
    expected = by_transformers(DATA / "fp8-a", torch.float32)[Q].double() + 2 * b.double() @ a.double()
    torch.testing.assert_close(opened[Q].load().double(), expected, rtol=1e-6, atol=1e-6)
    assert result_dtype(opened[Q].entry).torch_name == "bfloat16"


# ---- what is refused -----------------------------------------------------------------------------------------------------


def test_a_code_that_is_no_number_is_found_and_named(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", lambda each: each[Q].view(torch.uint8).__setitem__((3, 4), 0x7F))
    with pytest.raises(NonFiniteError, match=rf"tensor '{Q}' of .*m holds NaN or infinity"):
        warmkit.merge([folder, DATA / "fp8-b"], output=tmp_path / "out", method="lerp")
    assert not (tmp_path / "out").exists()


S = f"{Q}_scale_inv"
WRONG: dict[str, tuple[Change, dict[str, Any], str]] = {
    "no scales": (lambda each: each.pop(S), {}, f"'{Q}' is FP8 and its scales '{S}' are missing"),
    "no weight": (lambda each: each.pop(Q), {}, f"'{S}' holds scales, and its weight is missing"),
    "dense weight": (lambda each: each.update({Q: each[Q].float()}), {}, f"'{S}' holds scales, and its weight is F32"),
    "other grid": (lambda each: each.update({S: torch.ones(2, 3)}), {}, f"'{S}' has shape [2, 3]; '{Q}' [64, 64] in blocks of"),
    "transposed": (
        lambda each: each.update({"model.layers.0.mlp.up_proj.weight_scale_inv": torch.ones(2, 3)}),
        {},
        "in blocks of [32, 32] needs [3, 2]: weight_block_size in config.json is wrong",
    ),
    "other size of blocks": (lambda _: None, {"weight_block_size": [128, 128]}, "in blocks of [128, 128] needs [1, 1]"),
    "no size of blocks": (lambda _: None, {"weight_block_size": None}, "in one block (weight_block_size null) needs [1, 1]"),
    "size that is none": (
        lambda _: None,
        {"weight_block_size": [32, 0]},
        "weight_block_size in quantization_config must be two",
    ),
    "size of words": (lambda _: None, {"weight_block_size": "128"}, "weight_block_size in quantization_config must be two"),
    "exponents": (
        lambda each: each.update({S: torch.ones(2, 2, dtype=torch.uint8)}),
        {},
        "is U8, expected numbers (F32, BF16)",
    ),
    "a vector": (
        lambda each: each.update({Q: each[Q].reshape(-1).clone(), S: torch.ones(1)}),
        {},
        f"'{Q}' is FP8 of shape [4096], expected a matrix",
    ),
    "AutoFP8": (
        lambda each: each.update({Q.replace("weight", "weight_scale"): each.pop(S)}),
        {},
        "as AutoFP8 and Quark write them, which is not read",
    ),
    "whole numbers too": (
        lambda each: each.update({"lm_head.weight": torch.ones(48, 64, dtype=torch.int8)}),
        {},
        "quantised weights (packed: tensor 'lm_head.weight') cannot be averaged",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_named_and_nothing_is_written(what: str, tmp_path: Path) -> None:
    change, said, expected = WRONG[what]
    folder = changed(tmp_path / "m", change, **said)
    with pytest.raises(CheckpointError) as refusal:
        warmkit.merge([folder, DATA / "fp8-b"], output=tmp_path / "out", method="lerp")
    assert isinstance(refusal.value, FormatError | UnsupportedError)
    assert expected in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_fp8_without_a_config_asks_for_it(tmp_path: Path) -> None:
    shutil.copy(DATA / "fp8-a" / "model.safetensors", tmp_path / "lone.safetensors")
    with pytest.raises(UnsupportedError, match=r"is F8_E4M3, a quantised type .* give the folder with all of them"):
        warmkit.open_checkpoint(tmp_path / "lone.safetensors")


@pytest.mark.parametrize("form", ["float", "bfloat16", "ue8m0"])
def test_a_merge_is_quantised_again_as_transformers_quantises(form: str, tmp_path: Path) -> None:
    def other_scales(tensors: dict[str, torch.Tensor]) -> None:
        kind = {"float": torch.float32, "bfloat16": torch.bfloat16, "ue8m0": torch.float8_e8m0fnu}[form]
        tensors.update({name: each.to(kind) for name, each in tensors.items() if name.endswith("_scale_inv")})

    models = [changed(tmp_path / "a", other_scales, **({"scale_fmt": form} if form == "ue8m0" else {})), DATA / "fp8-b"]
    warmkit.merge(models, output=tmp_path / "dense", method="lerp")
    result = warmkit.merge(models, output=tmp_path / "out", method="lerp", container="same")
    dense, found = load_file(tmp_path / "dense" / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    config = SimpleNamespace(weight_block_size=[32, 32], scale_fmt=form if form == "ue8m0" else "float")
    quantise: Any = Fp8Quantize(SimpleNamespace(quantization_config=config))
    squares = [0.0, 0.0]
    read = tensors_of(tmp_path / "out")
    for name, weight in dense.items():
        if f"{name}_scale_inv" not in found:
            assert torch.equal(found[name], weight), name
            continue
        said = quantise.convert({name: weight})
        if form != "bfloat16":  # which transformers does not write
            assert torch.equal(found[name].view(torch.uint8), said[name].view(torch.uint8)), name
            assert torch.equal(found[f"{name}_scale_inv"].float(), said[f"{name}_scale_inv"].float()), name
        squares[0] += (read[name].double() - weight.double()).square().sum().item()
        squares[1] += weight.double().square().sum().item()
    error = (squares[0] / squares[1]) ** 0.5
    assert 0.005 < error < 0.05
    assert f"quantised again (fp8), as {models[0]} is: relative error {error:.2%} of the coded weights" in result.notes
    assert json.loads((tmp_path / "out" / "warmkit.json").read_text())["container"]["relative_error"] == pytest.approx(error)
    loaded = by_transformers(tmp_path / "out", torch.float32)
    assert all(torch.equal(tensor.float(), loaded[name]) for name, tensor in read.items())
    assert warmkit.verify(tmp_path / "out").tensors == 12


def test_cut_blocks_and_stacks_of_experts_are_quantised_again(tmp_path: Path) -> None:
    warmkit.merge([DATA / "fp8-cut"], output=tmp_path / "cut", method="uniform", container="same")
    config = {**CONFIG, "quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 8]}}
    experts = {"experts.down_proj": codes(3, 20, 30), "experts.down_proj_scale_inv": torch.rand(3, 2, 4)}
    warmkit.merge([save(tmp_path / "m", experts, config)], output=tmp_path / "stack", method="uniform", container="same")
    for one, two in ((DATA / "fp8-cut", tmp_path / "cut"), (tmp_path / "m", tmp_path / "stack")):
        before, after = tensors_of(one), tensors_of(two)
        for name, tensor in before.items():
            assert (after[name] - tensor).norm() <= 0.03 * tensor.norm(), name


def test_a_code_that_was_altered_is_found(tmp_path: Path) -> None:
    warmkit.merge([DATA / "fp8-a", DATA / "fp8-b"], output=tmp_path / "out", method="lerp", container="same")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    tensors[Q].view(torch.uint8)[0, 0] ^= 1
    save_file(tensors, tmp_path / "out" / "model.safetensors", {"format": "pt"})
    with pytest.raises(VerificationError, match=r"model.safetensors: altered"):
        warmkit.verify(tmp_path / "out")


@pytest.mark.parametrize("name", ["ct-int8", "ct-nvfp4", "bnb-nf4", "bnb-int8", "gptq-4", "awq"])
def test_other_forms_are_not_quantised_again(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"--as same quantises again in fp8 \(scales of blocks\) and mxfp4"):
        warmkit.merge([DATA / name], output=tmp_path / "out", method="uniform", container="same")


def test_one_scale_of_a_whole_matrix_is_not_written_again_where_it_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recode, "BAND", 100)
    tensors = {"up.weight": codes(20, 30), "up.weight_scale_inv": torch.ones(())}
    config = {**CONFIG, "quantization_config": {"quant_method": "fp8", "weight_block_size": None}}
    with pytest.raises(UnsupportedError, match=r"and its weights are fp8, 'up.weight' for one"):
        warmkit.merge([save(tmp_path / "m", tensors, config)], output=tmp_path / "out", method="uniform", container="same")
