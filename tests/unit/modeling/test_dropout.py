"""One probability reaches every dropout, those inside functional attention included."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unit.training import tiny
from warmkit.modeling.dropout import set_dropout
from warmkit.modeling.reward_model import RewardModel

TEXT = [("the cat", " sings")]


def with_dropout(folder: Path, architecture: str, probability: float | None) -> RewardModel:
    reward_model = tiny.load(tiny.model(architecture, folder / architecture), architecture, dropout=probability)
    with torch.no_grad():
        reward_model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    return reward_model


def scores(reward_model: RewardModel, count: int = 6) -> list[float]:
    """Score one text several times in training mode."""
    tokens = reward_model.encoder.encode(TEXT)
    reward_model.model.train()
    with torch.no_grad():
        return [round(float(reward_model.forward(tokens)[0]), 6) for _ in range(count)]


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_dropout_is_heard_in_training_and_not_in_evaluation(architecture: str, tmp_path: Path) -> None:
    loud, silent = with_dropout(tmp_path, architecture, 0.5), with_dropout(tmp_path, architecture, 0.0)
    assert len(set(scores(loud))) > 1
    assert len(set(scores(silent))) == 1
    assert loud.score(TEXT) == silent.score(TEXT)
    assert loud.model.training, "evaluation gives back the mode that it found"


def test_llama_drops_in_attention_alone(tmp_path: Path) -> None:
    reward_model = with_dropout(tmp_path, "llama", 0.5)
    assert not any(isinstance(module, nn.Dropout) for module in reward_model.model.modules())
    assert {layer.self_attn.attention_dropout for layer in reward_model.model.model.layers} == {0.5}
    assert reward_model.model.config.attention_dropout == 0.5


@pytest.mark.parametrize("architecture", ["gpt2", "bert"])
def test_every_dropout_of_a_model_is_set(architecture: str, tmp_path: Path) -> None:
    model = with_dropout(tmp_path, architecture, 0.25).model
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert len(layers) > 2 * tiny.LAYERS
    assert {layer.p for layer in layers} == {0.25}
    named = {key: value for key, value in vars(model.config).items() if "dropout" in key or "pdrop" in key}
    assert set(named.values()) == {0.25}, named


def test_by_default_a_model_keeps_its_own_dropout(tmp_path: Path) -> None:
    source = tiny.make(tmp_path / "init", "bert", hidden_dropout_prob=0.3)
    layers = [each.p for each in tiny.load(source).model.modules() if isinstance(each, nn.Dropout)]
    assert 0.3 in layers
    assert 0.0 in layers


def test_what_is_no_probability_is_left_alone() -> None:
    holder = nn.Module()
    holder.dropout_fast, holder.layerdrop, holder.dropout = True, 0.1, 0.1
    assert set_dropout(holder, 0.5) == 1
    assert (holder.dropout_fast, holder.layerdrop, holder.dropout) == (True, 0.1, 0.5)
