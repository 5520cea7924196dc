"""Adapters are scored and sampled as the models that they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import warmkit
from tests.cli.conftest import classifier
from tests.unit.checkpoints import lora
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


def mixture(folder: Path, seed: int) -> Path:
    """Write a mixture of experts with a head, which transformers holds fused in memory and writes expert by expert."""
    import transformers

    classifier(folder, "llama", 1)  # for its tokenizer
    sizes = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=2, num_labels=1, pad_token_id=0)
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


def test_weights_of_another_architecture_are_refused_by_name(tmp_path: Path) -> None:
    scorer = load_scorer(mixture(tmp_path / "a", 0))
    with pytest.raises(MismatchError, match=r"weights do not fit: \['model\.layers\.0\.mlp\.gate_proj\.weight'"):
        scorer.load_weights({"model.layers.0.mlp.gate_proj.weight": torch.ones(24, 16)})
