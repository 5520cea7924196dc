"""The anchor follows its closed form, in float32, and shares what is frozen."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training import tiny
from warmkit.errors import UnsupportedError
from warmkit.training.anchor import Anchor, anchor_of
from warmkit.training.lora import add_adapters, merged
from warmkit.training.recipe_sections import LoraSection

transformers = pytest.importorskip("transformers")

IDS = torch.tensor([[5, 6, 7, 8]])
PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


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


def shares(mu: float, steps: int) -> list[float]:
    """Return the shares of every theta in theta_ema(n) = (1 - mu)^n theta(0) + sum_k mu (1 - mu)^(n - k) theta(k)."""
    return [(1 - mu) ** steps, *(mu * (1 - mu) ** (steps - k) for k in range(1, steps + 1))]


@pytest.mark.parametrize("mu", [0.0, 0.01, 0.3, 1.0])
def test_the_moving_average_is_its_closed_form(mu: float, tmp_path: Path) -> None:
    model = opened(tmp_path, lora=False)
    anchor, past = anchor_of(model, "ema", mu), [learned(model)]
    for step in range(5):
        walk(model, step)
        anchor.update()
        past.append(learned(model))
    assert set(anchor.copies) == set(past[0])
    for name, own in anchor.copies.items():
        wanted = sum(share * each[name].double() for share, each in zip(shares(mu, 5), past))
        assert torch.allclose(own.double(), wanted, atol=1e-6), name


def dense(model: Any) -> Any:
    """Return the plain model that a policy under adapters stands for."""
    return merged(copy.deepcopy(model))


@pytest.mark.parametrize("architecture", tiny.DECODERS)  # GPT-2's matrices lie transposed
@pytest.mark.parametrize("mu", [0.01, 0.3, 1.0])
def test_the_moving_average_of_adapters_is_that_of_the_matrices_they_stand_for(
    mu: float, architecture: str, tmp_path: Path
) -> None:
    model = opened(tmp_path, True, architecture)
    anchor, past = anchor_of(model, "ema", mu), [dense(model).state_dict()]
    factors = [learned(model)]
    for step in range(5):
        walk(model, step)
        anchor.update()
        past.append(dense(model).state_dict())
        factors.append(learned(model))
    wanted = dense(model)
    wanted.load_state_dict({name: sum(s * each[name] for s, each in zip(shares(mu, 5), past)) for name in past[0]})
    assert torch.allclose(anchor(input_ids=IDS).logits, wanted(input_ids=IDS).logits, atol=2e-4)
    averaged = {name: sum(s * each[name] for s, each in zip(shares(mu, 5), factors)) for name in factors[0]}
    model.load_state_dict(averaged, strict=False)
    apart = (model(input_ids=IDS).logits - wanted(input_ids=IDS).logits).abs().max()
    assert (apart < 1e-3) == (mu == 1.0), "averaged factors stand for another model"


def test_an_average_of_adapters_that_have_not_moved_says_what_the_base_says(tmp_path: Path) -> None:
    model = opened(tmp_path, lora=True)
    anchor = anchor_of(model, "ema", 0.3)
    assert torch.equal(anchor(input_ids=IDS).logits, model(input_ids=IDS).logits)
    anchor.update()
    assert torch.equal(anchor(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_the_policy_keeps_its_adapters_its_gradient_and_its_mode_beside_an_average(tmp_path: Path) -> None:
    model = opened(tmp_path, lora=True).train()
    walk(model, 0)
    anchor = anchor_of(model, "ema", 0.3)
    walk(model, 1)
    said = model(input_ids=IDS).logits
    assert not anchor(input_ids=IDS).logits.requires_grad
    said.sum().backward()
    assert model.training
    assert torch.equal(model(input_ids=IDS).logits, said)
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)


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
    model = opened(tmp_path, lora=True)
    assert all("lora_" in name for name in anchor_of(model, "init").copies)
    assert {name.rpartition(".")[2] for name in anchor_of(model, "ema", 0.01).copies} == PROJECTIONS


def test_a_bfloat16_policy_has_a_float32_anchor_that_moves(tmp_path: Path) -> None:
    model = opened(tmp_path, lora=False).bfloat16()
    anchor = Anchor(model, "ema", 0.01)
    walk(model, 0)
    before = {name: each.clone() for name, each in anchor.copies.items()}
    anchor.update()
    for name, own in anchor.copies.items():
        assert own.dtype == torch.float32
        assert not torch.equal(own, before[name])


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_its_state_is_restored(lora: bool, tmp_path: Path) -> None:
    model = opened(tmp_path, lora)
    first, second = anchor_of(model, "ema", 0.5), anchor_of(model, "ema", 0.5)
    walk(model, 0)
    first.update()
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(first.copies[name], second.copies[name]) for name in first.copies)


def test_an_adapter_on_a_tied_head_is_refused(tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny.model("gpt2", tmp_path / "gpt2"))
    with (
        pytest.warns(UserWarning, match="tie_word_embeddings"),
        pytest.raises(UnsupportedError, match=r"lm_head shares its weight"),
    ):
        add_adapters(model, LoraSection(targets=["c_attn", "lm_head"]), "CAUSAL_LM", 0)
