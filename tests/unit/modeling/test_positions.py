"""A text may be as long as the model's positions reach, whatever the config calls them."""

from __future__ import annotations

from typing import Any

import pytest

from warmkit.errors import UsageError
from warmkit.modeling.positions import position_count, room_for

transformers = pytest.importorskip("transformers")

STRETCHED = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("LlamaConfig", {"max_position_embeddings": 77}, 77),
        ("GPT2Config", {"n_positions": 77}, 77),
        ("MptConfig", {"max_seq_len": 77}, 77),
        ("RwkvConfig", {"context_length": 77}, 77),
        ("Qwen2Config", {"max_position_embeddings": 100, "rope_parameters": STRETCHED}, 400),
        ("RobertaConfig", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("Gemma3Config", {"text_config": {"max_position_embeddings": 77}}, 77),
        ("BloomConfig", {}, None),
        ("MambaConfig", {}, None),
    ],
)
def test_positions_have_many_names(kind: str, changes: dict[str, Any], expected: int | None) -> None:
    config = getattr(transformers, kind)(**changes)
    assert position_count(config) == expected
    assert room_for(config) == min(4096, expected or 4096)
    assert room_for(config, 60) == 60
    if expected is None:
        assert room_for(config, 100_000) == 100_000
    else:
        with pytest.raises(UsageError, match=f"max_length {expected + 1}: .* has {expected} positions"):
            room_for(config, expected + 1)


def test_a_roberta_reads_a_text_of_all_its_positions_and_no_longer_one() -> None:
    import torch

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    model = transformers.RobertaModel(transformers.RobertaConfig(max_position_embeddings=22, pad_token_id=1, **small))
    most = position_count(model.config)
    assert most == 20
    model(input_ids=torch.full((1, most), 5))
    with pytest.raises((IndexError, RuntimeError), match="index"):
        model(input_ids=torch.full((1, most + 1), 5))
