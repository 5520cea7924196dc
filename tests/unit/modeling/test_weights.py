"""Adapters are scored and sampled as the models that they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import warmkit
from tests.cli.conftest import classifier
from tests.unit.checkpoints import lora
from warmkit.errors import MismatchError
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
    with pytest.raises(MismatchError, match=r"changes 'score\.weight', which LlamaForCausalLM has not"):
        load_causal_model(f"{base}+{adapter}")
