"""Adapters that hold the head of a classifier, as TRL writes them, are read as peft and transformers read them."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import warmkit
from warmkit.errors import FormatError, MismatchError
from warmkit.layouts.adapter_heads import classifier_of
from warmkit.modeling.reward_model import load_scorer

transformers = pytest.importorskip("transformers")
TRL = Path(__file__).parents[2] / "data" / "trl_reward_models"
PAIR = ["llama-lora-1", "llama-lora-2"]
BASES = {**dict.fromkeys(PAIR, "llama-base"), "qwen-lora": "qwen-base", "llama-adapter": "llama-adapter/base"}


def by_peft(name: str, base: Path | None = None) -> Any:
    """Return the classifier that peft merges; TRL gave it the padding of the tokenizer that it saved."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForSequenceClassification.from_pretrained(base or TRL / BASES[name], num_labels=1)
        model = PeftModel.from_pretrained(model, TRL / name).merge_and_unload().eval()
    model.config.pad_token_id = transformers.AutoTokenizer.from_pretrained(TRL / name).pad_token_id
    return model


def expected(name: str) -> dict[str, Any]:
    return json.loads((TRL / name / "scores.json").read_text())


@torch.no_grad()
def scores(model: Any, rows: list[list[int]]) -> list[float]:
    return [float(model(torch.tensor([ids])).logits) for ids in rows]


@pytest.mark.parametrize("name", BASES)
def test_the_written_model_is_the_classifier_of_transformers(name: str, tmp_path: Path) -> None:
    warmkit.soup([TRL / name], tmp_path / "out")
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    model, told = load(tmp_path / "out", output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    reference = by_peft(name)
    assert model.state_dict().keys() == reference.state_dict().keys()
    for key, value in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=2e-6, atol=2e-6)
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["architectures"] == [type(reference).__name__]
    assert (said["id2label"], said["label2id"], model.config.num_labels) == ({"0": "LABEL_0"}, {"LABEL_0": 0}, 1)
    assert said["pad_token_id"] == reference.config.pad_token_id
    for side in ("chosen", "rejected"):  # of a text alone any padding will do; of these some end with it
        assert scores(model.eval(), expected(name)[f"{side}_ids"]) == pytest.approx(expected(name)[side], abs=1e-5)


@pytest.mark.parametrize("name", ["qwen-lora", "llama-adapter"])
def test_the_tokenizer_is_the_one_that_the_adapter_was_trained_with(name: str, tmp_path: Path) -> None:
    warmkit.soup([TRL / name], tmp_path / "out")
    theirs, found = (transformers.AutoTokenizer.from_pretrained(place) for place in (TRL / name, tmp_path / "out"))
    assert found.chat_template == theirs.chat_template is not None
    assert found.pad_token_id == theirs.pad_token_id is not None


def test_heads_are_averaged_with_all_else(tmp_path: Path) -> None:
    dense = [by_peft(name) for name in PAIR]
    warmkit.soup([TRL / name for name in PAIR], tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == dense[0].state_dict().keys()
    assert not torch.equal(dense[0].score.weight, dense[1].score.weight)
    for key, value in found.items():
        mean = (dense[0].state_dict()[key] + dense[1].state_dict()[key]) / 2
        torch.testing.assert_close(value, mean, rtol=2e-6, atol=2e-6)


def test_adapters_average_with_dense_models_and_slide_from_their_base(tmp_path: Path) -> None:
    dense = by_peft(PAIR[0])
    dense.save_pretrained(tmp_path / "dense")
    warmkit.soup([tmp_path / "dense", TRL / PAIR[1]], tmp_path / "out")
    warmkit.soup([TRL / name for name in PAIR], tmp_path / "both")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "both"))
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=2e-6, atol=2e-6)
    models = [TRL / name for name in PAIR]
    warmkit.merge(models, tmp_path / "slid", init=TRL / "llama-base", method="lerp", eta=0.5, heads="models")
    slid, init = (load_file(place / "model.safetensors") for place in (tmp_path / "slid", TRL / "llama-base"))
    torch.testing.assert_close(slid["score.weight"], other["score.weight"])
    key = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(slid[key], (init[key] + other[key]) / 2, rtol=2e-6, atol=2e-6)
    assert json.loads((tmp_path / "slid" / "config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]


def test_a_base_saved_without_its_prefix_and_a_half_precision_one(tmp_path: Path) -> None:
    for place in ("bare", "half"):
        shutil.copytree(TRL / "llama-base", tmp_path / place)
    stored = load_file(TRL / "llama-base" / "model.safetensors")
    bare = {name.removeprefix("model."): value for name, value in stored.items() if name != "lm_head.weight"}
    write(tmp_path / "bare", bare, {"architectures": ["LlamaModel"]})
    write(tmp_path / "half", {name: value.bfloat16() for name, value in stored.items()}, {"dtype": "bfloat16"})
    for place, close in (("bare", 1e-5), ("half", 0.05)):
        warmkit.soup([f"{tmp_path / place}+{TRL / PAIR[0]}"], tmp_path / "out", dtype="float32", force=True)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
        reference = scores(by_peft(PAIR[0], tmp_path / place).float(), expected(PAIR[0])["chosen_ids"])
        assert scores(model, expected(PAIR[0])["chosen_ids"]) == pytest.approx(reference, abs=close)
    texts = [("two plus", " three gold"), ("no", " five")]
    as_it_is = load_scorer(TRL / PAIR[0]).score(texts)
    assert load_scorer(f"{tmp_path / 'bare'}+{TRL / PAIR[0]}").score(texts) == pytest.approx(as_it_is, abs=1e-5)


def write(folder: Path, weights: dict[str, torch.Tensor], config: Mapping[str, Any]) -> None:
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))


# ---- whose head it is -----------------------------------------------------------------------------------------------


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., str]:
    """Copy an adapter with another config or other tensors."""

    def change(config: Mapping[str, Any], edit: Callable[[dict[str, torch.Tensor]], Any] = lambda tensors: None) -> str:
        shutil.copytree(TRL / PAIR[0], tmp_path / "adapter")
        tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
        edit(tensors)
        save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors")
        file = tmp_path / "adapter" / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
        return f"{TRL / 'llama-base'}+{tmp_path / 'adapter'}"

    return change


HEAD = "base_model.model.score.weight"


@pytest.mark.parametrize("task", ["FEATURE_EXTRACTION", "CAUSAL_LM", None])
def test_a_task_that_names_no_classifier_does_not_matter(task: str | None, changed: Callable[..., str]) -> None:
    found = warmkit.open_checkpoint(changed({"task_type": task}))
    assert found.config["architectures"] == ["LlamaForSequenceClassification"]
    assert torch.equal(found["score.weight"].load(), load_file(TRL / PAIR[0] / "adapter_model.safetensors")[HEAD])
    assert "lm_head.weight" not in found


def test_names_of_older_versions(changed: Callable[..., str]) -> None:
    older = "base_model.model.score.modules_to_save.weight"
    found = warmkit.open_checkpoint(changed({}, lambda tensors: tensors.update({older: tensors.pop(HEAD)})))
    assert torch.equal(found["score.weight"].load(), load_file(TRL / PAIR[0] / "adapter_model.safetensors")[HEAD])


def test_heads_of_other_tasks_are_refused(changed: Callable[..., str]) -> None:
    biased = changed({"task_type": None}, lambda tensors: tensors.update({HEAD.replace("weight", "bias"): torch.ones(1)}))
    with pytest.raises(MismatchError, match=r"it brings 'score\.\w+', which is not there"):
        warmkit.open_checkpoint(biased)
    file = Path(biased.partition("+")[2]) / "adapter_config.json"
    tokens = {"base_model_class": "LlamaForTokenClassification", "parent_library": "transformers"}
    for config in ({"task_type": "TOKEN_CLS"}, {"task_type": None, "auto_mapping": tokens}):
        shutil.copy(TRL / PAIR[0] / "adapter_model.safetensors", file.parent)
        file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
        with pytest.raises(
            MismatchError, match=r"it brings 'score\.weight', which is not there; save the base with that module"
        ):
            warmkit.open_checkpoint(biased)


def test_several_labels_make_a_classifier_of_classes(changed: Callable[..., str]) -> None:
    found = warmkit.open_checkpoint(changed({}, lambda tensors: tensors.update({HEAD: torch.ones(3, 16)})))
    assert found.config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}


def test_a_head_that_was_not_saved_is_said(changed: Callable[..., str]) -> None:
    trained = {"base_model_class": "LlamaForSequenceClassification", "parent_library": "transformers"}
    lost = changed({"task_type": None, "auto_mapping": trained}, lambda tensors: tensors.pop(HEAD))
    found = warmkit.open_checkpoint(lost)
    assert any("its head is in no file (it was not in peft's modules_to_save)" in note for note in found.notes)
    assert found.config["architectures"] == ["LlamaForCausalLM"]


def test_factors_on_a_head_that_was_drawn_are_refused(changed: Callable[..., str]) -> None:
    def factors(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[HEAD]
        tensors |= {HEAD.replace("weight", "lora_A.weight"): torch.ones(2, 16)}
        tensors |= {HEAD.replace("weight", "lora_B.weight"): torch.ones(1, 2)}

    with pytest.raises(MismatchError, match=r"it adapts 'score\.weight', a head that was drawn at random and is in no file"):
        warmkit.open_checkpoint(changed({"task_type": None}, factors))


def test_a_padding_that_is_no_token_is_refused(changed: Callable[..., str]) -> None:
    source = changed({})
    file = Path(source.partition("+")[2]) / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pad_token": "<none>"}))
    with pytest.raises(FormatError, match="pad_token '<none>' is none of the tokens of its tokenizer"):
        warmkit.open_checkpoint(source)


def test_classes_are_those_of_transformers() -> None:
    """Of every architecture whose classifier reads with `score`; XLM and Reformer read otherwise."""
    from transformers.models.auto import modeling_auto as auto

    classifiers = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    models = [auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES]
    known = [(kind, each[kind]) for each in models for kind in classifiers.keys() & each.keys() - {"xlm", "reformer"}]
    assert len(known) > 60
    for kind, name in known:
        assert classifier_of({"architectures": [name], "model_type": kind}) == classifiers[kind]
    assert classifier_of({}) is None
