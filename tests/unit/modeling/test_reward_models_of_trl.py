"""Reward models that TRL trained score here as they do there: files of TRL 1.16, scores of its own forward pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from warmkit.data.preferences import Pair, read_pairs
from warmkit.evaluation.comparisons import encode_pairs, score
from warmkit.modeling.reward_model import load_reward_model, load_scorer
from warmkit.training.reward_modeling import save_reward_model

transformers = pytest.importorskip("transformers")
HOME = Path(__file__).parents[2] / "data" / "trl_reward_models"
MODELS = sorted(each.parent.name for each in HOME.glob("*/scores.json"))


def path_of(name: str) -> str:
    folder = HOME / name
    return f"{folder / 'base'}+{folder}" if (folder / "base").exists() else str(folder)


def expected(name: str) -> dict[str, Any]:
    return json.loads((HOME / name / "scores.json").read_text())


def pairs(name: str) -> list[Pair]:
    return read_pairs(HOME / name / "rows.jsonl")


def test_every_kind_is_there() -> None:
    assert [
        *("gemma-chats", "llama-adapter", "llama-chats", "llama-chats-2", "llama-lora-1", "llama-lora-2", "llama-own-eos"),
        *("llama-texts", "qwen-chats", "qwen-lora", "qwen-texts"),
    ] == MODELS


@pytest.mark.parametrize("name", MODELS)
def test_a_reward_model_of_trl_reads_the_tokens_that_it_was_trained_on(name: str) -> None:
    data = encode_pairs(pairs(name), load_scorer(path_of(name)).encoder)
    assert [each.ids for each in data.chosen] == expected(name)["chosen_ids"]
    assert [each.ids for each in data.rejected] == expected(name)["rejected_ids"]


@pytest.mark.parametrize("name", MODELS)
def test_a_reward_model_of_trl_scores_as_in_trl(name: str) -> None:
    model = load_scorer(path_of(name))
    found = score(model, encode_pairs(pairs(name), model.encoder))
    assert found.chosen.tolist() == pytest.approx(expected(name)["chosen"], abs=1e-5)
    assert found.rejected.tolist() == pytest.approx(expected(name)["rejected"], abs=1e-5)
    assert len({round(each, 4) for each in found.chosen}) > 4, "the model tells texts apart"


def test_a_model_without_padding_is_read_as_one_text_at_a_time(tmp_path: Path) -> None:
    """The last token is read then, whatever it is; transformers itself refuses a batch."""
    shutil.copytree(HOME / "llama-chats", tmp_path / "rm")
    config = tmp_path / "rm" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "pad_token_id": None}))
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    ours = load_scorer(tmp_path / "rm")
    data = encode_pairs(pairs("llama-chats"), ours.encoder)
    with torch.no_grad():
        alone = [float(theirs(torch.tensor([each.ids])).logits) for each in data.chosen]
    assert score(ours, data).chosen.tolist() == pytest.approx(alone, abs=1e-5)
    assert alone != pytest.approx(expected("llama-chats")["chosen"], abs=0.1), "another token is read than with padding"


@pytest.mark.parametrize("name", ["llama-chats", "qwen-texts", "llama-own-eos", "llama-adapter", "qwen-lora"])
def test_a_reward_model_of_trl_that_is_written_again_scores_the_same(name: str, tmp_path: Path) -> None:
    save_reward_model(load_reward_model(path_of(name), device="cpu"), tmp_path / "again")
    model = load_scorer(tmp_path / "again")
    found = score(model, encode_pairs(pairs(name), model.encoder))
    assert found.chosen.tolist() == pytest.approx(expected(name)["chosen"], abs=1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(HOME / name)
    assert json.loads((tmp_path / "again" / "config.json").read_text())["pad_token_id"] == tokenizer.pad_token_id


@pytest.mark.parametrize("name", ["llama-chats", "qwen-texts"])
def test_features_are_those_of_the_token_that_is_read(name: str) -> None:
    model = load_scorer(path_of(name))
    tokens = encode_pairs(pairs(name), model.encoder).chosen
    assert model.head(model.features(tokens))[:, 0].tolist() == pytest.approx(expected(name)["chosen"], abs=1e-5)
