"""The anchor follows its closed form, in float32, and shares what is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training import tiny
from warmkit.training.adapters import add_adapters
from warmkit.training.anchor import Anchor
from warmkit.training.recipe import LoraSection

transformers = pytest.importorskip("transformers")

IDS = torch.tensor([[5, 6, 7, 8]])


def opened(folder: Path, lora: bool, architecture: str = "llama") -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny.model(architecture, folder / architecture)).eval()
    return add_adapters(model, LoraSection(rank=2), "CAUSAL_LM", 0).eval() if lora else model


def learned(model: Any) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}


def walk(model: Any, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("mu", [0.0, 0.01, 0.3, 1.0])
def test_the_moving_average_is_its_closed_form(mu: float, lora: bool, tmp_path: Path) -> None:
    """theta_ema(n) = (1 - mu)^n theta(0) + sum_k mu (1 - mu)^(n - k) theta(k)."""
    model = opened(tmp_path, lora)
    anchor, past = Anchor(model, "ema", mu), [learned(model)]
    for step in range(5):
        walk(model, step)
        anchor.update()
        past.append(learned(model))
    shares = [(1 - mu) ** 5, *(mu * (1 - mu) ** (5 - k) for k in range(1, 6))]
    assert set(anchor.copies) == set(past[0])
    for name, copy in anchor.copies.items():
        wanted = sum(share * each[name].double() for share, each in zip(shares, past))
        assert torch.allclose(copy.double(), wanted, atol=1e-6), name


@pytest.mark.parametrize("architecture", tiny.DECODERS)  # GPT-2's embedding is its head too
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_it_speaks_with_its_copies_and_leaves_the_policy_alone(lora: bool, architecture: str, tmp_path: Path) -> None:
    model = opened(tmp_path, lora, architecture).train()
    walk(model, 9)
    anchor, before = Anchor(model, "init"), model(input_ids=IDS).logits
    walk(model, 1)
    anchor.update()
    said = anchor(input_ids=IDS).logits
    assert torch.equal(said, before)
    assert not said.requires_grad
    assert model.training
    assert not torch.allclose(model(input_ids=IDS).logits, before, atol=1e-3)


def test_frozen_weights_are_not_copied(tmp_path: Path) -> None:
    anchor = Anchor(opened(tmp_path, lora=True), "ema", 0.01)
    assert anchor.copies
    assert all("lora_" in name for name in anchor.copies)


def test_a_bfloat16_policy_has_a_float32_anchor_that_moves(tmp_path: Path) -> None:
    model = opened(tmp_path, lora=False).bfloat16()
    anchor = Anchor(model, "ema", 0.01)
    walk(model, 0)
    before = {name: copy.clone() for name, copy in anchor.copies.items()}
    anchor.update()
    for name, copy in anchor.copies.items():
        assert copy.dtype == torch.float32
        assert not torch.equal(copy, before[name])


def test_its_state_is_restored(tmp_path: Path) -> None:
    model = opened(tmp_path, lora=False)
    first, second = Anchor(model, "ema", 0.5), Anchor(model, "ema", 0.5)
    walk(model, 0)
    first.update()
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(first.copies[name], second.copies[name]) for name in first.copies)
