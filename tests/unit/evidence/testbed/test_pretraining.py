"""Pre-training in miniature: what is written, what loads, what a kill leaves."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.training.tiny import bytes_of
from warmkit.common.random_streams import generator
from warmkit.errors import UsageError
from warmkit.evidence.testbed import pretraining
from warmkit.evidence.testbed.language import END, LENGTH, VOCABULARY
from warmkit.evidence.testbed.pretraining import PLACES, Shape, batch, pretrain
from warmkit.modeling.causal_model import load_causal_model
from warmkit.modeling.reward_model import load_reward_model
from warmkit.modeling.tokens import tokenizer_of

TINY = Shape(width=8, layers=1, heads=2)


def test_the_checkpoints_of_a_trajectory_load_and_differ(tmp_path: Path) -> None:
    found = pretrain(tmp_path / "sft", 0, steps=10, batch_size=2, shape=TINY)
    assert [each.name for each in found] == ["at-80", "at-90", "at-100"]
    assert len({bytes_of(each) for each in found}) == 3
    model = load_causal_model(str(found[-1]))
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (8, 1)
    assert load_reward_model(found[-1], device="cpu").head.in_features == 8


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    first, again, other = (pretrain(tmp_path / name, seed, 3, 2, shape=TINY) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert [bytes_of(each) for each in first] == [bytes_of(each) for each in again]
    assert bytes_of(first[-1]) != bytes_of(other[-1])


def test_what_is_there_is_not_trained_again(tmp_path: Path) -> None:
    found = pretrain(tmp_path / "sft", 0, 2, 2, shape=TINY)
    before = (found[-1] / "model.safetensors").stat().st_mtime_ns
    assert pretrain(tmp_path / "sft", 0, 2, 2, shape=TINY) == found
    assert (found[-1] / "model.safetensors").stat().st_mtime_ns == before


def _killed_at(step: int, folder: Path, patch: pytest.MonkeyPatch, **how: Any) -> None:
    """Train until a step, and die there; a state is saved every third step."""

    def die(done: int, total: int) -> None:
        nonlocal step
        step -= done
        if step == 0:
            raise KeyboardInterrupt

    patch.setattr(pretraining, "SAVE_EVERY", 3)
    with pytest.raises(KeyboardInterrupt):
        pretrain(folder, 0, 10, 2, shape=TINY, advance=die, **how)


def test_a_killed_training_goes_on_from_its_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pretrain(tmp_path / "whole", 0, 10, 2, shape=TINY)
    _killed_at(9, tmp_path / "sft", monkeypatch)
    assert (tmp_path / ".sft.partial" / "at-90").exists()
    assert not (tmp_path / "sft").exists()
    calls: list[tuple[int, int]] = []
    found = pretrain(tmp_path / "sft", 0, 10, 2, shape=TINY, advance=lambda *call: calls.append(call))
    assert [bytes_of(each) for each in found] == [bytes_of(each) for each in whole]
    assert calls == [(9, 10), (1, 10)]
    assert sorted(each.name for each in tmp_path.rglob("*") if each.parent.name in (tmp_path.name, "sft")) == sorted(
        ["whole", "sft", "at-80", "at-90", "at-100"]
    )


def test_a_state_of_other_settings_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pretrain(tmp_path / "whole", 1, 10, 2, shape=TINY)
    _killed_at(9, tmp_path / "sft", monkeypatch)
    assert [bytes_of(each) for each in pretrain(tmp_path / "sft", 1, 10, 2, shape=TINY)] == [bytes_of(each) for each in whole]


def test_batches_are_what_they_were_since_this_version_of_the_language() -> None:
    """Another digest is another language: raise `language.VERSION`."""
    digest = hashlib.sha256()
    for ending in (False, True):
        draw = generator("pretraining texts", 3)
        for each in (tensor for _ in range(5) for tensor in batch(64, draw, ending)):
            digest.update(each.numpy().tobytes())
    assert digest.hexdigest() == "06ac96f78ec9f4fd6632239e5a4e4db1d61e0aacc6988135534118aed0cb6783"


def test_the_loss_falls(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    texts = batch(64, draw)
    found = pretrain(tmp_path / "sft", 0, 120, 16, 1e-2, shape=TINY, keep=[0.01, 1.0])
    with torch.no_grad():
        losses = [float(pretraining.loss(load_causal_model(str(each)).cpu(), *texts)) for each in found]
    assert losses[1] < losses[0] - 1


def test_padding_changes_no_loss() -> None:
    torch.manual_seed(0)
    model = pretraining.new_model(TINY)
    texts, tags = batch(4, np.random.default_rng(0), ending=True)
    wider = torch.nn.functional.pad(texts, (0, 3))
    with torch.no_grad():
        torch.testing.assert_close(pretraining.loss(model, wider, tags), pretraining.loss(model, texts, tags))


@pytest.mark.parametrize("ending", [False, True])
def test_a_text_is_a_prompt_a_response_an_end_and_tags(ending: bool) -> None:
    texts, tags = batch(50, np.random.default_rng(0), ending)
    lengths = (texts == PLACES[END]).int().argmax(1)
    assert ((texts == PLACES[END]).sum(1) == 1).all()
    assert (len(set(lengths.tolist())) > 1) == ending
    assert int(lengths.max()) == 3 + LENGTH
    torch.testing.assert_close(tags.sum(1), torch.ones(50))


def test_the_tokenizer_reads_what_it_writes(tmp_path: Path) -> None:
    [path] = pretrain(tmp_path / "sft", 0, 1, 2, shape=TINY, keep=[1.0])
    tokenizer = tokenizer_of(str(path))
    ids = tokenizer("sea wood : great wave of indeed")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["sea", "wood", ":", "great", "wave", "of", "indeed"]
    assert tokenizer.decode(ids[3:], skip_special_tokens=True) == "great wave of indeed"
    assert len(tokenizer) == len(VOCABULARY)


@pytest.mark.parametrize("keep", [[], [0.5], [1.0, 0.5, 1.0]])
def test_a_trajectory_ends_with_the_sft_model(tmp_path: Path, keep: list[float]) -> None:
    with pytest.raises(UsageError, match="end with 1"):
        pretrain(tmp_path / "sft", 0, 2, 2, shape=TINY, keep=keep)
