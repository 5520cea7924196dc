"""Reward models from a language model: their head, which the init lacks, is averaged; advice that works as it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

import warmkit
from tests.conftest import Run, save, weights
from warmkit.errors import MismatchError, UsageError

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32}


@pytest.fixture
def family(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A language model, and two reward models that were fine-tuned from it, as transformers saves them."""
    torch.manual_seed(0)
    sft = LlamaForCausalLM(LlamaConfig(**SMALL))
    sft.save_pretrained(tmp_path / "sft")
    for seed, name in enumerate("ab", start=1):
        torch.manual_seed(seed)
        model = LlamaForSequenceClassification(LlamaConfig(**SMALL, num_labels=1, pad_token_id=0))
        model.model.load_state_dict({k: v + 0.1 * torch.randn_like(v) for k, v in sft.model.state_dict().items()})
        model.save_pretrained(tmp_path / name)
    return tmp_path / "sft", tmp_path / "a", tmp_path / "b"


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


@pytest.mark.parametrize("method", ["slerp", "task-arithmetic", "ties"])
@pytest.mark.parametrize("eta", [1.0, 0.3])
def test_the_head_of_the_models_is_their_mean_and_the_inits_is_left_out(
    method: str, eta: float, family: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    sft, a, b = family
    result = warmkit.merge([a, b], tmp_path / "out", init=sft, method=method, eta=eta, heads="models")
    merged = tensors(tmp_path / "out")
    torch.testing.assert_close(merged["score.weight"], (tensors(a)["score.weight"] + tensors(b)["score.weight"]) / 2)
    assert merged.keys() == tensors(a).keys()
    assert any(
        "'score.weight': the mean of the models" in note and "its 'lm_head.weight' left out" in note for note in result.notes
    )
    model, loading = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loading["missing_keys"]
    assert model.config.num_labels == 1
    assert json.loads((tmp_path / "out" / "warmkit.json").read_text())["heads"] == ["score.weight"]
    warmkit.verify(tmp_path / "out")


def test_the_body_is_that_of_a_merge_without_heads(family: tuple[Path, Path, Path], tmp_path: Path) -> None:
    bodies = [
        save(tmp_path / f"body-{path.name}", {k: v for k, v in tensors(path).items() if k.startswith("model.")})
        for path in family
    ]
    warmkit.merge(bodies[1:], tmp_path / "bodies", init=bodies[0])
    warmkit.merge(family[1:], tmp_path / "out", init=family[0], heads="models")
    merged = tensors(tmp_path / "out")
    assert all(torch.equal(merged[name], value) for name, value in tensors(tmp_path / "bodies").items())


def test_the_mean_is_by_the_shares(family: tuple[Path, Path, Path], tmp_path: Path) -> None:
    sft, a, b = family
    warmkit.merge([a, b], tmp_path / "out", init=sft, lambda_=0.25, heads="models")
    expected = 0.75 * tensors(a)["score.weight"] + 0.25 * tensors(b)["score.weight"]
    torch.testing.assert_close(tensors(tmp_path / "out")["score.weight"], expected)


def test_the_advice_works_as_it_is_written(family: tuple[Path, Path, Path], run: Run, tmp_path: Path) -> None:
    sft, a, b = family
    first = run("merge", "--init", sft, a, b, "-o", "out")
    assert first.returncode == 1
    advice = re.search(
        r"(--heads models) averages what the models alone have \('score.weight'\)", " ".join(first.stderr.split())
    )
    assert advice is not None
    second = run("merge", "--init", sft, a, b, "-o", "out", *advice[1].split())
    assert second.returncode == 0, second.stderr
    assert "score.weight" in tensors(tmp_path / "out")


def test_heads_in_a_recipe(family: tuple[Path, Path, Path], run: Run, tmp_path: Path) -> None:
    sft, a, b = family
    recipe = f"merge:\n  init: {sft}\n  models: [{a}, {b}]\n  heads: models\noutput:\n  path: out\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    done = run("merge", "recipe.yaml")
    assert done.returncode == 0, done.stderr
    assert "score.weight" in tensors(tmp_path / "out")


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        (lambda sft, a, b: {"init": a, "models": [a, b]}, UsageError, "has no tensor that .* lacks"),
        (lambda sft, a, b: {"init": None, "models": [a, b], "method": "lerp"}, UsageError, "without --init leave it out"),
        (lambda sft, a, b: {"init": sft, "models": [a, sft]}, MismatchError, "is not in all models with one shape"),
        (lambda sft, a, b: {"init": sft, "models": [a, b], "heads": "model"}, UsageError, "unknown heads 'model'"),
    ],
)
def test_heads_that_cannot_be_averaged_are_named(
    how: Callable[..., dict[str, Any]], error: type[Exception], said: str, family: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        warmkit.merge(output=tmp_path / "out", **{"heads": "models", **how(*family)})


def test_no_advice_where_models_share_little_with_the_init(tmp_path: Path) -> None:
    init = save(tmp_path / "init", weights(0))
    models = [save(tmp_path / name, {f"other.{k}": v for k, v in weights(1).items()}) for name in "ab"]
    with pytest.raises(MismatchError) as refusal:
        warmkit.merge(models, tmp_path / "out", init=init)
    assert "--heads" not in str(refusal.value)
