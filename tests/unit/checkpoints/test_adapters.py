"""Adapters stand for the dense weights that peft itself makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import warmkit
from tests.unit.checkpoints import lora

LLAMA = ["q_proj", "k_proj", "down_proj", "lm_head"]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {"r": 4, "lora_alpha": 6, "target_modules": LLAMA}),
    "every linear layer": ("mistral", {"r": 3, "target_modules": "all-linear"}),
    "rslora": ("llama", {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": LLAMA}),
    "patterns": (
        "llama",
        {
            "r": 4,
            "target_modules": LLAMA,
            "rank_pattern": {"q_proj": 7, r"layers\.1\.mlp\.down_proj": 2},
            "alpha_pattern": {"k_proj": 12, "^model.layers.0.self_attn.q_proj": 3},
        },
    ),
    "patterns and rslora": ("llama", {"r": 4, "target_modules": LLAMA, "use_rslora": True, "rank_pattern": {"q_proj": 9}}),
    "dora": ("llama", {"r": 4, "use_dora": True, "target_modules": LLAMA}),
    "conv1d": ("gpt2", {"r": 4, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "conv1d, dora": ("gpt2", {"r": 4, "target_modules": ["c_attn", "c_proj"], "use_dora": True, "fan_in_fan_out": True}),
    "conv1d beside linear": ("gpt2", {"r": 4, "target_modules": ["c_proj", "lm_head"], "changes": {"tie_word_embeddings": False}}),
    "embeddings": ("llama", {"r": 4, "target_modules": ["embed_tokens", "q_proj"]}),
    "embeddings, dora": ("llama", {"r": 4, "target_modules": ["embed_tokens"], "use_dora": True}),
    "modules to save": ("llama", {"r": 4, "target_modules": ["v_proj"], "modules_to_save": ["lm_head", "model.norm"]}),
    "a head": ("bert", {"r": 4, "target_modules": ["query", "value"], "task": "SEQ_CLS"}),
    "all biases": ("bert", {"r": 4, "target_modules": ["query", "dense"], "bias": "all"}),
    "lora's biases": ("qwen2", {"r": 4, "target_modules": ["q_proj", "v_proj"], "bias": "lora_only"}),
    "a bias of lora_B": ("qwen2", {"r": 4, "target_modules": ["q_proj"], "lora_bias": True}),
    "rank one": ("llama", {"r": 1, "target_modules": LLAMA}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_stands_for_the_weights_that_peft_merges(kind: str, tmp_path: Path) -> None:
    architecture, config = KINDS[kind]
    config = dict(config)
    base = lora.base(tmp_path / "base", architecture, **config.pop("changes", {}))
    adapter = lora.adapter(tmp_path / "adapter", base, **config)
    expected, before = lora.dense(base, adapter), warmkit.open_checkpoint(base)
    found = warmkit.open_checkpoint(f"{base}+{adapter}")
    assert list(found) == list(before)
    changed = 0
    for name in found:
        torch.testing.assert_close(found[name].load(), expected[name], rtol=2e-6, atol=2e-6)
        changed += not torch.equal(found[name].load(), before[name].load())
    assert changed
