"""What is no set of weights to average: refused by name, with what to do, before a weight is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

import warmkit
from tests.conftest import CONFIG, save, weights
from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.dtypes import DTYPES
from warmkit.sources.foreign_forms import FORMS

pytestmark = [  # peers' own
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
]
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 32,
}
SCORER: dict[str, Any] = {**SMALL, "num_labels": 1}


def refusal(path: Path, error: type[Exception] = UnsupportedError) -> str:
    with pytest.raises(error) as caught:
        warmkit.open_checkpoint(path, allow_pickle=True)
    return str(caught.value)


# ---- adapters that were not merged ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
@pytest.mark.parametrize("dora", [False, True])
def test_a_full_save_of_an_unmerged_peft_model_is_refused(kind: str, dora: bool, tmp_path: Path) -> None:
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**SMALL)), LoraConfig(r=2, target_modules=["q_proj"], use_dora=dora))
    if kind == "pickle":
        torch.save(model.state_dict(), tmp_path / "model.pt")
    else:
        save_file(model.state_dict(), tmp_path / "model.safetensors")
    text = refusal(next(tmp_path.iterdir()))
    assert "layers of an adapter that were not merged" in text
    assert "q_proj.base_layer.weight" in text
    assert "merge_and_unload()" in text


def test_a_head_that_peft_holds_twice_is_refused(tmp_path: Path) -> None:
    model = LlamaForSequenceClassification(LlamaConfig(**SCORER))
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["score"]))
    heads = {name: tensor for name, tensor in tuned.state_dict().items() if "score" in name}
    assert len(heads) == 2
    save_file(heads, tmp_path / "model.safetensors")
    assert "base_model.model.score." in refusal(tmp_path)


def test_a_lone_file_of_factors_is_refused(tmp_path: Path) -> None:
    tuned = get_peft_model(LlamaForCausalLM(LlamaConfig(**SMALL)), LoraConfig(r=2, target_modules=["q_proj"]))
    tuned.save_pretrained(str(tmp_path))
    assert "give BASE+ADAPTER" in refusal(tmp_path / "adapter_model.safetensors")


@pytest.mark.parametrize("part", ["ia3_l", "hada_w1_a", "lokr_w1", "oft_R", "lora_up", "lora_E", "vera_lambda_b"])
def test_factors_of_other_kinds_are_refused(part: str, tmp_path: Path) -> None:
    save(tmp_path / "m", {**weights(1), f"model.layers.0.attn.{part}.default": torch.ones(2)})
    assert part in refusal(tmp_path / "m")


# ---- parts of a model, and nothing at all --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "shard-00001-model-00001-of-00001.safetensors"])
def test_a_shard_of_torchs_writer_of_safetensors_is_refused_alone(name: str, tmp_path: Path) -> None:
    dcp.save(weights(1), storage_writer=HuggingFaceStorageWriter(str(tmp_path), save_distributed=True), no_dist=True)
    (shard,) = tmp_path.glob("*.safetensors")
    text = refusal(shard.rename(tmp_path / name))
    assert "of torch's HuggingFaceStorageWriter" in text
    assert "folder" in text


def test_what_torch_has_put_together_from_them_is_read(tmp_path: Path) -> None:
    from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files

    (tmp_path / "shards").mkdir()
    (tmp_path / "whole").mkdir()
    writer = HuggingFaceStorageWriter(str(tmp_path / "shards"), save_distributed=True)
    dcp.save(weights(1), storage_writer=writer, no_dist=True)
    mapping = dict.fromkeys(weights(1), 1)
    consolidate_safetensors_files(str(tmp_path / "shards"), str(tmp_path / "whole"), mapping)
    opened = warmkit.open_checkpoint(tmp_path / "whole")
    assert all(torch.equal(opened[name].load(), value) for name, value in weights(1).items())


def test_what_zero_3_leaves_in_place_of_weights_is_refused(tmp_path: Path) -> None:
    hollow = {name: torch.empty(0, dtype=torch.bfloat16) for name in weights(1)}
    torch.save(hollow, tmp_path / "pytorch_model.bin")
    text = refusal(tmp_path / "pytorch_model.bin", FormatError)
    assert "'model.embed_tokens.weight' has shape [0]" in text
    assert "give the folder of global_stepN" in text


def test_a_model_that_zero_3_gathered_in_part_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "m", {**weights(1), "model.layers.1.mlp.weight": torch.empty(0)})
    assert "'model.layers.1.mlp.weight' has shape [0]" in refusal(tmp_path / "m", FormatError)


def test_a_checkpoint_without_a_number_is_no_model(tmp_path: Path) -> None:
    save(tmp_path / "m", {"a": torch.empty(0, 3), "b": torch.empty(0)})
    assert "not one number in its tensors" in refusal(tmp_path / "m", FormatError)


@pytest.mark.parametrize("form", [end.removeprefix(".") for end in FORMS])
@pytest.mark.parametrize("lone", [True, False])
def test_forms_that_are_not_read_are_refused_by_name(form: str, lone: bool, tmp_path: Path) -> None:
    file = tmp_path / f"m-00001-of-00002.{form}"
    file.write_bytes(b"GGUF")
    said = refusal(file if lone else tmp_path)
    assert file.name in said
    assert "holds weights in " in said


def test_a_part_of_a_distributed_checkpoint_is_refused_alone(tmp_path: Path) -> None:
    (tmp_path / "__0_0.distcp").write_bytes(b"PK")
    assert "give the folder with all of them" in refusal(tmp_path / "__0_0.distcp")


def test_the_folder_of_a_deepspeed_run_without_its_steps_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zero_to_fp32.py").touch()
    assert "DeepSpeed's zero_to_fp32.py, without the folder of a step" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["_flat_param", "model.layers.0._flat_param", "flat_param_0"])
def test_flat_parameters_are_refused(name: str, tmp_path: Path) -> None:
    torch.save({name: torch.ones(5)}, tmp_path / "rank0.pt")
    assert "flat parameters of FSDP" in refusal(tmp_path / "rank0.pt")


# ---- quantised weights ---------------------------------------------------------------------------------------------------

LAYER = "model.layers.0.mlp.down_proj"
QUANTISED: dict[str, dict[str, torch.Tensor]] = {
    "W8A8": {f"{LAYER}.weight": torch.ones(4, 4, dtype=torch.int8), f"{LAYER}.weight_scale": torch.ones(4, 1)},
    "integers alone": {f"{LAYER}.weight": torch.ones(4, 4, dtype=torch.int8)},
    "static scales of a float": {f"{LAYER}.weight": torch.ones(4, 4), f"{LAYER}.input_scale": torch.ones(1)},
    "packed": {f"{LAYER}.weight_packed": torch.ones(4, 2, dtype=torch.int32), f"{LAYER}.weight_shape": torch.ones(2)},
    "GPTQ": {f"{LAYER}.qweight": torch.ones(4, 2, dtype=torch.int32), f"{LAYER}.scales": torch.ones(4)},
    "bitsandbytes, 4 bits": {f"{LAYER}.weight": torch.ones(8, 1, dtype=torch.uint8), f"{LAYER}.weight.absmax": torch.ones(1)},
    "bitsandbytes, 8 bits": {f"{LAYER}.weight": torch.ones(4, 4, dtype=torch.int8), f"{LAYER}.SCB": torch.ones(4)},
    "mlx": {
        f"{LAYER}.weight": torch.ones(4, 1, dtype=torch.uint32),
        f"{LAYER}.scales": torch.ones(4),
        f"{LAYER}.biases": torch.ones(4),
    },
    "mxfp4": {"model.layers.0.mlp.experts.down_proj_blocks": torch.ones(2, 4, 2, dtype=torch.uint8)},
    "nvfp4": {f"{LAYER}.weight": torch.ones(4, 2, dtype=torch.uint8), f"{LAYER}.weight_scale_2": torch.ones(1)},
    "HQQ": {f"{LAYER}.W_q": torch.ones(4, 2, dtype=torch.uint8)},
    "AQLM": {f"{LAYER}.codes": torch.ones(4, 2, dtype=torch.int16), f"{LAYER}.codebooks": torch.ones(1, 4)},
    "ModelOpt": {f"{LAYER}.weight": torch.ones(4, 4), f"{LAYER}.input_quantizer._amax": torch.ones(1)},
    "EXL2": {f"{LAYER}.q_weight": torch.ones(4, 2, dtype=torch.int32)},
    "EXL3": {f"{LAYER}.trellis": torch.ones(1, 1, 4, dtype=torch.int16)},
    "QuIP": {f"{LAYER}.Qidxs": torch.ones(4, 2, dtype=torch.int64)},
    "SpQR": {f"{LAYER}.dense_weights": torch.ones(4, dtype=torch.int64)},
    "experts in fp8": {"model.layers.0.mlp.experts.down_proj_scale_inv": torch.ones(2, 4)},
    "torch, while it trains": {f"{LAYER}.weight": torch.ones(4, 4), f"{LAYER}.weight_fake_quant.scale": torch.ones(1)},
    "quanto": {f"{LAYER}.weight._data": torch.ones(4, 4, dtype=torch.int8), f"{LAYER}.weight._scale": torch.ones(4)},
}


@pytest.mark.parametrize("form", QUANTISED)
def test_quantised_weights_are_known_by_their_tensors_alone(form: str, tmp_path: Path) -> None:
    save(tmp_path / "m", {**weights(1), **QUANTISED[form]})  # a config that says nothing
    text = refusal(tmp_path / "m")
    assert "quantised weights (packed: tensor 'model.layers.0.mlp" in text
    assert "quantise the result" in text


@pytest.mark.parametrize("key", ["quantization_config", "quantization", "compression_config"])
def test_quantised_weights_are_known_by_their_config(key: str, tmp_path: Path) -> None:
    save(tmp_path / "m", weights(1), {**CONFIG, key: {"quant_method": "some", "bits": 4}})
    assert f"quantised weights (some: {key} in config.json)" in refusal(tmp_path / "m")


@pytest.mark.parametrize("part", [("text_config",), ("vision_config",), ("thinker_config", "text_config")])
def test_the_config_of_any_part_may_say_that_it_is_quantised(part: tuple[str, ...], tmp_path: Path) -> None:
    config: dict[str, Any] = {"quantization_config": {"quant_method": "some", "bits": 4}}
    for key in reversed(part):
        config = {key: {"model_type": "llama", **config}}
    save(tmp_path / "m", weights(1), {**CONFIG, **config})
    where = f"quantization_config in {' of '.join((*reversed(part), 'config.json'))}"
    assert f"quantised weights (some: {where})" in refusal(tmp_path / "m")


@pytest.mark.parametrize("nothing", [None, {}, False])
def test_a_config_without_a_word_of_it_is_no_quantised_one(nothing: Any, tmp_path: Path) -> None:
    save(tmp_path / "m", weights(1), {**CONFIG, "text_config": {"quantization_config": nothing}})
    assert set(warmkit.open_checkpoint(tmp_path / "m")) == set(weights(1))


def test_whole_numbers_that_are_buffers_are_no_quantised_weights(tmp_path: Path) -> None:
    buffers: dict[str, Any] = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8),
        "embeddings.position_ids": torch.arange(4).reshape(1, 4),
        "attn.relative_position_index": torch.ones(4, 4, dtype=torch.int64),
        "bn.num_batches_tracked": torch.tensor(3),
    }
    save(tmp_path / "m", {**weights(1), **buffers})
    opened = warmkit.open_checkpoint(tmp_path / "m")
    assert {opened[name].dtype for name in buffers} == {DTYPES["U8"], DTYPES["I64"]}


# ---- an index of one file ------------------------------------------------------------------------------------------------


def test_a_folder_with_one_file_and_an_index_of_it_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "m", weights(1))
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights(1), "model.safetensors")}))
    assert set(warmkit.open_checkpoint(path)) == set(weights(1))
    index.write_text(json.dumps({"weight_map": dict.fromkeys(weights(1), "model-00001-of-00001.safetensors")}))
    (path / "model-00001-of-00001.safetensors").write_bytes((path / "model.safetensors").read_bytes())
    assert "holds both" in refusal(path, FormatError)
