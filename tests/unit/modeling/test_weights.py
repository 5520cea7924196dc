"""Adapters are scored and sampled as the models that they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import warmkit
from tests.cli.conftest import classifier
from tests.unit.layouts import lora
from warmkit.errors import MismatchError, UnsupportedError
from warmkit.modeling.causal_model import load_causal_model
from warmkit.modeling.reward_model import load_scorer


def test_an_adapter_scores_as_the_model_that_it_stands_for(tmp_path: Path) -> None:
    base = classifier(tmp_path / "base", "llama", 1)
    adapter = lora.adapter(tmp_path / "adapter", base, r=3, target_modules=["q_proj", "up_proj"], modules_to_save=["score"])
    warmkit.soup([f"{base}+{adapter}"], tmp_path / "dense")
    texts = [("the cat", " sings"), ("a small dog", " sleeps")]
    expected = load_scorer(tmp_path / "dense").score(texts)
    for source in (f"{base}+{adapter}", str(adapter)):
        assert load_scorer(source).score(texts) == pytest.approx(expected, abs=1e-5)
    assert load_scorer(base).score(texts) != pytest.approx(expected, abs=1e-3)


def test_a_policy_may_be_an_adapter(tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base")
    adapter = lora.adapter(tmp_path / "adapter", base, r=3, use_dora=True, target_modules=["q_proj", "lm_head"])
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        found = load_causal_model(f"{base}+{adapter}")(tokens).logits
        expected = lora.loaded(lora.save_dense(tmp_path / "dense", base, adapter))(tokens).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_adapter_that_the_model_cannot_take_is_refused(tmp_path: Path) -> None:
    base = classifier(tmp_path / "base", "llama", 1)
    adapter = lora.adapter(tmp_path / "adapter", base, r=3, target_modules=["q_proj"], modules_to_save=["score"])
    with pytest.raises(UnsupportedError, match="so it is no language model"):
        load_causal_model(f"{base}+{adapter}")


def vision_language(folder: Path, architecture: str) -> Path:
    """Write a model with a vision tower, whose tensors transformers calls otherwise on disk than in memory."""
    import transformers

    classifier(folder, "llama", 1)  # for its tokenizer
    size: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    text = {**size, "vocab_size": 300, "num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
    vision = {**size, "num_hidden_layers": 1, "image_size": 16, "patch_size": 8}
    made: dict[str, Any] = {"text_config": text, "vision_config": vision, "mm_tokens_per_image": 4, "num_labels": 1}
    config = transformers.Gemma3Config(**made)
    torch.manual_seed(0)
    getattr(transformers, architecture)(config).save_pretrained(folder)
    return folder


def as_version_4_names_it(adapter: Path) -> None:
    """Rename an adapter's modules as peft wrote them beside transformers 4."""
    file = adapter / "adapter_model.safetensors"
    renamed = {
        name.replace("model.model.language_model.", "model.language_model.model."): each
        for name, each in load_file(file).items()
    }
    assert all(".language_model.model.layers." in name or "score" in name for name in renamed)
    save_file(renamed, file)


@pytest.mark.parametrize("version", [4, 5])
def test_an_adapter_on_the_text_of_a_vision_language_reward_model_is_scored(version: int, tmp_path: Path) -> None:
    base = vision_language(tmp_path / "base", "Gemma3ForSequenceClassification")
    adapter = lora.adapter(
        tmp_path / "adapter", base, r=3, target_modules=r".*language_model.*q_proj", modules_to_save=["score"]
    )
    if version == 4:
        as_version_4_names_it(adapter)
    warmkit.soup([f"{base}+{adapter}"], tmp_path / "dense")
    texts = [("the cat", " sings"), ("a small dog", " sleeps")]
    expected = load_scorer(tmp_path / "dense").score(texts)
    assert load_scorer(f"{base}+{adapter}").score(texts) == pytest.approx(expected, abs=1e-5)
    assert load_scorer(base).score(texts) != pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("version", [4, 5])
def test_a_policy_may_be_an_adapter_on_the_text_of_a_vision_language_model(version: int, tmp_path: Path) -> None:
    base = vision_language(tmp_path / "base", "Gemma3ForConditionalGeneration")
    adapter = lora.adapter(tmp_path / "adapter", base, r=3, target_modules=r".*language_model.*q_proj")
    if version == 4:
        as_version_4_names_it(adapter)
    warmkit.soup([f"{base}+{adapter}"], tmp_path / "dense")
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        found, expected = (load_causal_model(str(each))(tokens).logits for each in (f"{base}+{adapter}", tmp_path / "dense"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def mixture(folder: Path, seed: int) -> Path:
    """Write a mixture of experts with a head, which transformers holds fused in memory and writes expert by expert."""
    import transformers

    classifier(folder, "llama", 1)  # for its tokenizer
    sizes = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    made: dict[str, Any] = {**sizes, "num_key_value_heads": 2, "num_local_experts": 2, "num_labels": 1, "pad_token_id": 0}
    config = transformers.MixtralConfig(**made)
    torch.manual_seed(0)
    model = transformers.MixtralForSequenceClassification(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


def test_experts_average_in_memory_as_they_do_on_disk(tmp_path: Path) -> None:
    models = [mixture(tmp_path / name, seed) for seed, name in enumerate("ab")]
    warmkit.soup(models, tmp_path / "disk")
    texts = [("the cat", " sings"), ("a small dog", " sleeps")]
    expected, scorer = load_scorer(tmp_path / "disk").score(texts), load_scorer(models[0])
    before = torch.get_rng_state()
    scorer.load_weights(warmkit.merged_state_dict(models, method="uniform"))
    assert scorer.score(texts) == pytest.approx(expected, abs=1e-6)
    assert scorer.score(texts) != pytest.approx(load_scorer(models[0]).score(texts), abs=1e-3)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_adapter_of_single_experts_is_scored_where_they_are_one_tensor(tmp_path: Path) -> None:
    """As peft wrote them where every expert was a module: transformers 4."""
    base, adapter = mixture(tmp_path / "base", 0), tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["w1"], "base_model_name_or_path": str(base)}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    module = "base_model.model.model.layers.1.block_sparse_moe.experts.1.w1"
    generator = torch.Generator().manual_seed(1)
    factors = {"lora_A": torch.randn(2, 16, generator=generator), "lora_B": torch.randn(24, 2, generator=generator)}
    save_file({f"{module}.{name}.weight": each for name, each in factors.items()}, adapter / "adapter_model.safetensors")
    warmkit.soup([f"{base}+{adapter}"], tmp_path / "dense")
    texts = [("the cat", " sings"), ("a small dog", " sleeps")]
    expected = load_scorer(tmp_path / "dense").score(texts)
    assert load_scorer(adapter).score(texts) == pytest.approx(expected, abs=1e-5)
    assert load_scorer(base).score(texts) != pytest.approx(expected, abs=1e-3)


def test_weights_of_another_architecture_are_refused_by_name(tmp_path: Path) -> None:
    scorer = load_scorer(mixture(tmp_path / "a", 0))
    with pytest.raises(MismatchError, match=r"weights do not fit: \['model\.layers\.0\.mlp\.gate_proj\.weight'"):
        scorer.load_weights({"model.layers.0.mlp.gate_proj.weight": torch.ones(24, 16)})
