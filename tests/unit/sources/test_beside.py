"""Weights beside the model's own file: merged under their file, or named; nothing of a model is lost without a word."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, BertModel, BertTokenizerFast, LlamaConfig, LlamaForCausalLM

import warmkit
from tests.conftest import CONFIG, save, weights
from warmkit.errors import CheckpointError, FormatError, MismatchError, UnsupportedError, UsageError

HEAD = "value_head.safetensors"
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32}


def head(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"v_head.summary.weight": torch.randn(1, 8, generator=generator), "v_head.summary.bias": torch.zeros(1)}


def with_head(path: Path, seed: int, file: str = HEAD, shards: int = 1) -> Path:
    """Write a reward model as LLaMA-Factory does: a causal model, its scalar head in a file beside it."""
    save(path, weights(seed), shards=shards)
    save_file(head(seed), path / file, metadata={"format": "pt"})
    return path


def embedder(path: Path, seed: int) -> Path:
    """Write an embedding model as sentence-transformers does, with a dense layer after the pooling."""
    folders = ["", "1_Pooling", "2_Dense", "3_Normalize"]
    save(path, weights(seed))
    (path / "modules.json").write_text(json.dumps([{"idx": n, "name": f"{n}", "path": f} for n, f in enumerate(folders)]))
    for folder, config in (("1_Pooling", {"pooling_mode": "mean"}), ("2_Dense", {"in_features": 8, "out_features": 4})):
        (path / folder).mkdir()
        (path / folder / "config.json").write_text(json.dumps(config))
    dense = {"linear.weight": torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)), "linear.bias": torch.ones(4)}
    save_file(dense, path / "2_Dense" / "model.safetensors")
    return path


# ---- merged under their file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2])
def test_a_value_head_beside_the_model_is_merged_under_its_file(shards: int, tmp_path: Path) -> None:
    paths = [with_head(tmp_path / f"m{seed}", seed, shards=shards) for seed in (1, 2)]
    result = warmkit.soup(paths, tmp_path / "out", max_shard_size="2KB" if shards > 1 else "5GB")
    merged = load_file(tmp_path / "out" / HEAD)
    expected = {name: (value + head(2)[name]) / 2 for name, value in head(1).items()}
    assert merged.keys() == expected.keys()
    assert all(torch.allclose(merged[name], value) for name, value in expected.items())
    assert HEAD in result.files
    index = tmp_path / "out" / "model.safetensors.index.json"
    assert index.is_file() is (shards > 1)
    assert "v_head" not in (index.read_text() if index.is_file() else "")
    assert set(warmkit.open_checkpoint(tmp_path / "out")) == {*weights(0), *(f"{HEAD}:{name}" for name in head(1))}
    warmkit.verify(tmp_path / "out")


def test_the_model_that_lies_beside_a_head_has_the_bytes_that_it_has_alone(tmp_path: Path) -> None:
    paths = [with_head(tmp_path / f"m{seed}", seed) for seed in range(3)]
    warmkit.merge(paths[1:], tmp_path / "both", init=paths[0])
    for path in paths:
        (path / HEAD).unlink()
    warmkit.merge(paths[1:], tmp_path / "alone", init=paths[0])
    files = [tmp_path / name / "model.safetensors" for name in ("both", "alone")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_modules_of_sentence_transformers_are_merged_in_their_folders(tmp_path: Path) -> None:
    paths = [embedder(tmp_path / f"m{seed}", seed) for seed in range(3)]
    warmkit.merge(paths[1:], tmp_path / "out", init=paths[0], method="lerp")
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"2_Dense/model.safetensors", "2_Dense/config.json", "1_Pooling/config.json", "modules.json"} <= files
    one, two = (load_file(path / "2_Dense" / "model.safetensors")["linear.weight"] for path in paths[1:])
    torch.testing.assert_close(load_file(tmp_path / "out/2_Dense/model.safetensors")["linear.weight"], (one + two) / 2)
    warmkit.verify(tmp_path / "out")


def test_a_sweep_of_modules_is_written_and_replaced(tmp_path: Path) -> None:
    paths = [embedder(tmp_path / f"m{seed}", seed) for seed in range(3)]
    for force in (False, True):
        warmkit.merge(paths[1:], tmp_path / "out", init=paths[0], method="lerp", eta=[0.5, 1.0], force=force)
    assert (tmp_path / "out" / "eta-0.5" / "2_Dense" / "model.safetensors").is_file()
    warmkit.verify(tmp_path / "out")


@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers_itself_embeds_with_the_merge(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    models = importlib.import_module("sentence_transformers.models")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]))
    config = BertConfig(**{**SMALL, "vocab_size": 8, "max_position_embeddings": 32})
    paths, denses = [tmp_path / "m0", tmp_path / "m1"], []
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(tmp_path / f"bert{seed}")
        BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / f"bert{seed}")
        first, dense = models.Transformer(str(tmp_path / f"bert{seed}")), models.Dense(16, 8)
        library.SentenceTransformer(modules=[first, models.Pooling(16), dense]).save(str(path))
        denses.append(dense.linear.weight.detach())
    warmkit.soup(paths, tmp_path / "out")
    model = library.SentenceTransformer(str(tmp_path / "out"))
    torch.testing.assert_close(model[2].linear.weight.detach().cpu(), (denses[0] + denses[1]) / 2)
    assert model.encode(["a b c"]).shape == (1, 8)


def test_weights_of_a_store_are_merged_with_what_lies_beside_them(tmp_path: Path) -> None:
    store, paths = MemoryFileSystem(), [embedder(tmp_path / f"m{seed}", seed) for seed in (1, 2)]
    for path in paths:
        store.put(str(path), f"/beside/{path.name}", recursive=True)
    try:
        warmkit.soup([f"memory://beside/{path.name}" for path in paths], tmp_path / "far")
    finally:
        store.rm("/beside", recursive=True)
    warmkit.soup(paths, tmp_path / "near")
    for file in ("model.safetensors", "2_Dense/model.safetensors", "2_Dense/config.json"):
        assert (tmp_path / "far" / file).read_bytes() == (tmp_path / "near" / file).read_bytes()


def test_a_pickled_model_with_a_head_beside_it_is_merged_with_the_head(tmp_path: Path) -> None:
    for seed in (1, 2):
        path = with_head(tmp_path / f"m{seed}", seed)
        torch.save(weights(seed), path / "pytorch_model.bin")
        (path / "model.safetensors").unlink()
    warmkit.soup([tmp_path / "m1", tmp_path / "m2"], tmp_path / "out", allow_pickle=True)
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == weights(0).keys()
    assert load_file(tmp_path / "out" / HEAD).keys() == head(0).keys()
    with pytest.raises(UnsupportedError, match="only pickle files"):
        warmkit.open_checkpoint(tmp_path / "m1")


# ---- not in all of them --------------------------------------------------------------------------------------------------


def test_a_head_that_one_model_lacks_is_named(tmp_path: Path) -> None:
    one, two = with_head(tmp_path / "m1", 1), save(tmp_path / "m2", weights(2))
    with pytest.raises(MismatchError, match=f"missing tensor '{HEAD}:v_head.summary.weight'"):
        warmkit.soup([one, two], tmp_path / "out")
    with pytest.raises(MismatchError, match=rf"extra tensor '{HEAD}:v_head.summary.weight'[\s\S]*--exclude '{HEAD}:\*'"):
        warmkit.soup([two, one], tmp_path / "out")


def test_what_is_excluded_and_the_init_lacks_is_left_out_and_a_note_says_so(tmp_path: Path) -> None:
    init, one, two = save(tmp_path / "init", weights(0)), with_head(tmp_path / "m1", 1), with_head(tmp_path / "m2", 2)
    result = warmkit.merge([one, two], tmp_path / "out", init=init, exclude=[f"{HEAD}:*"])
    assert not (tmp_path / "out" / HEAD).exists()
    assert any(f"'{HEAD}:v_head.summary.bias' and 1 more" in note and "left out" in note for note in result.notes)
    warmkit.merge([one, two], tmp_path / "kept", init=with_head(tmp_path / "other", 5), exclude=[f"{HEAD}:*"])
    assert torch.equal(load_file(tmp_path / "kept" / HEAD)["v_head.summary.weight"], head(5)["v_head.summary.weight"])
    with pytest.raises(UsageError, match="matches no tensor"):
        warmkit.merge([one, two], tmp_path / "out2", init=init, exclude=["nothing:*"])


# ---- left aside, and said; or refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("consolidated.safetensors", "consolidated.00.pth", "model.fp16.safetensors", "model-00001-of-00002.safetensors"),
        *("pytorch_model.bin", "medusa.pt", "model.gguf", "tf_model.h5", "adapter_model.safetensors"),
    ],
)
def test_other_forms_of_the_weights_are_left_aside_with_a_note(name: str, tmp_path: Path) -> None:
    paths = [save(tmp_path / f"m{seed}", weights(seed)) for seed in (1, 2)]
    (paths[0] / name).write_bytes(b"other")
    result = warmkit.soup(paths, tmp_path / "out")
    assert result.notes == (f"{paths[0]}: {name} beside the weights: left aside, not merged and not copied",)
    assert not (tmp_path / "out" / name).exists()


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_0.pth", "training_args.bin", "scaler.pt"]
)
def test_the_state_of_a_run_is_left_behind_without_a_word(name: str, tmp_path: Path) -> None:
    paths = [save(tmp_path / f"m{seed}", weights(seed)) for seed in (1, 2)]
    (paths[0] / name).write_bytes(b"state")
    assert warmkit.soup(paths, tmp_path / "out").notes == ()


@pytest.mark.parametrize("name", ["value_head.bin", "medusa_lm_head.pt", "2_Dense/pytorch_model.bin"])
def test_weights_of_the_model_in_a_pickle_beside_it_are_refused_by_name(name: str, tmp_path: Path) -> None:
    path = embedder(tmp_path / "m", 1)
    (path / "2_Dense" / "model.safetensors").unlink()
    torch.save(head(1), path / name)
    with pytest.raises(UnsupportedError, match=rf"{name} holds weights of the model and is a pickle"):
        warmkit.open_checkpoint(path)


def test_a_head_that_is_saved_in_both_forms_is_read_as_safetensors(tmp_path: Path) -> None:
    path = with_head(tmp_path / "m", 1)
    torch.save(head(1), path / "value_head.bin")
    assert f"{HEAD}:v_head.summary.weight" in warmkit.open_checkpoint(path)


def test_a_head_alone_is_no_model(tmp_path: Path) -> None:
    path = with_head(tmp_path / "m", 1)
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors"):
        warmkit.open_checkpoint(path)


@pytest.mark.parametrize("content", [{}, [{}], [{"path": "../other"}], [{"path": "/etc"}], [{"path": 3}], [{"path": "c:\\x"}]])
def test_a_list_of_modules_of_another_form_is_named(content: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "m", weights(1))
    (path / "modules.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match=r"modules\.json: (expected a list of modules|points outside its directory)"):
        warmkit.open_checkpoint(path)


def test_a_quantised_file_beside_the_weights_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m", weights(1))
    save_file({"mtp.weight": torch.ones(4, 4, dtype=torch.int8)}, path / "mtp.safetensors")
    with pytest.raises(UnsupportedError, match="quantised weights"):
        warmkit.open_checkpoint(path)


def test_checkpoints_of_a_run_inside_the_directory_are_no_part_of_it(tmp_path: Path) -> None:
    path = save(tmp_path / "m", weights(1))
    with_head(path / "checkpoint-5", 2)
    opened = warmkit.open_checkpoint(path)
    assert set(opened) == set(weights(0))
    assert opened.notes == ()


# ---- companions that would make a result untrue ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_the_config_of_an_adapter_is_not_copied_into_a_dense_result(tmp_path: Path) -> None:
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(tmp_path / "base")
    for seed in (1, 2):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
        tuned.save_pretrained(tmp_path / f"m{seed}")
        tuned.merge_and_unload().save_pretrained(tmp_path / f"m{seed}")
    result = warmkit.soup([tmp_path / "m1", tmp_path / "m2"], tmp_path / "out")
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    assert any("adapter_model.safetensors beside the weights: left aside" in note for note in result.notes)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("m1", "m2"))
    name = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(loaded[name], (one[name] + two[name]) / 2)


@pytest.mark.parametrize("name", ["quantize_config.json", "hf_quant_config.json", "zero_to_fp32.py", "training_args.json"])
def test_what_describes_other_weights_or_a_run_is_not_copied(name: str, tmp_path: Path) -> None:
    paths = [save(tmp_path / f"m{seed}", weights(seed), CONFIG) for seed in (1, 2)]
    (paths[0] / name).write_text("{}")
    warmkit.soup(paths, tmp_path / "out")
    assert not (tmp_path / "out" / name).exists()


def test_several_chat_templates_and_remote_code_are_copied(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"m{seed}", weights(seed)) for seed in (1, 2)]
    (paths[0] / "additional_chat_templates").mkdir()
    names = ["additional_chat_templates/tools.jinja", "modeling_own.py", "processor_config.json", "source.spm", "merges.txt"]
    for name in names:
        (paths[0] / name).write_text("x")
    warmkit.soup(paths, tmp_path / "out")
    assert all((tmp_path / "out" / name).is_file() for name in names)
    shutil.rmtree(tmp_path / "out")
