"""Optimisers step, rates move as the recipe says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from warmkit.errors import UsageError
from warmkit.training.optimizers import build_optimizer, check_warmup, rate
from warmkit.training.recipe_sections import Optimization


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_an_optimiser_lowers_a_loss(name: str) -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(4, 3), torch.randn(16, 4)
    optimizer = build_optimizer(layer, Optimization(lr=0.05, optimizer=name))
    losses: list[float] = []
    for _ in range(30):
        loss = layer(inputs).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


def test_the_first_step_of_adamw_is_the_rate_times_the_sign() -> None:
    layer = nn.Linear(3, 1, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.tensor([[1.0, -2.0, 30.0]])
    build_optimizer(layer, Optimization(lr=0.1, epsilon=0.0)).step()
    assert torch.allclose(layer.weight - before, torch.tensor([[-0.1, 0.1, -0.1]]))


def test_adafactor_takes_its_rate_from_outside() -> None:
    layer = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.mul_(1000)  # its own rule would take larger steps on larger weights
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.ones(1, 3)
    build_optimizer(layer, Optimization(lr=0.1, optimizer="adafactor")).step()
    assert torch.allclose(before - layer.weight, torch.full((1, 3), 0.1), rtol=1e-3)


def test_weight_decay_spares_vectors() -> None:
    layer = nn.Linear(4, 3)
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    layer.weight.grad, layer.bias.grad = torch.zeros_like(layer.weight), torch.zeros_like(layer.bias)
    build_optimizer(layer, Optimization(lr=0.1, weight_decay=0.5)).step()
    assert torch.allclose(layer.weight, before[0] * 0.95)
    assert torch.equal(layer.bias, before[1])


def test_frozen_parameters_do_not_learn() -> None:
    layer = nn.Linear(4, 3)
    layer.weight.requires_grad_(False)
    groups = build_optimizer(layer, Optimization()).param_groups
    assert [each for group in groups for each in group["params"]] == [layer.bias]


def rates(steps: int = 10, **how: object) -> list[float]:
    return [rate(Optimization(lr=1.0, steps=steps, **how), step, steps) for step in range(steps)]


def test_a_constant_rate_is_constant() -> None:
    assert rates(schedule="constant") == [1.0] * 10


def test_the_rate_warms_up_from_above_zero() -> None:
    assert rates(warmup=4)[:6] == [0.25, 0.5, 0.75, 1, 1, 1]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_fall_from_the_rate_and_stay_above_zero(schedule: str) -> None:
    values = rates(warmup=2, schedule=schedule)
    assert values[2] == 1
    assert values[2:] == sorted(values[2:], reverse=True)
    assert values[-1] > 0


def test_cosine_is_half_way_down_half_way_through() -> None:
    assert rates(schedule="cosine")[5] == pytest.approx(0.5)
    assert rates(schedule="cosine")[2] == pytest.approx(0.5 + 0.5 * math.cos(math.pi * 0.2))


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    check_warmup(Optimization(warmup=6), 6, "sft")
    check_warmup(Optimization(warmup=6), 8, "policy", before=2)
    with pytest.raises(
        UsageError, match=r"^rm\.warmup 6: the rate would never reach rm\.lr in a run of 5 steps; set rm\.warmup lower"
    ):
        check_warmup(Optimization(warmup=6), 5, "rm")
    with pytest.raises(UsageError, match=r"^policy\.warmup 6: .* a run of 8 steps of which value\.warmup takes 3;"):
        check_warmup(Optimization(warmup=6), 8, "policy", before=3)
    with pytest.raises(UsageError, match=r"^value\.warmup 8: the policy would learn nothing in a run of 8 steps"):
        check_warmup(Optimization(), 8, "policy", before=8)
