"""Losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from warmkit.training.losses import bradley_terry, completion_nll


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ([0.0], [0.0], math.log(2)),
        ([1.0], [0.0], math.log(1 + math.exp(-1))),
        ([0.0], [2.0], math.log(1 + math.exp(2))),
        ([1.0, 0.0], [0.0, 2.0], (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2),
        ([1000.0], [0.0], 0.0),
        ([0.0], [1000.0], 1000.0),
    ],
)
def test_bradley_terry_is_the_mean_negative_log_likelihood(chosen: list[float], rejected: list[float], expected: float) -> None:
    assert float(bradley_terry(torch.tensor(chosen), torch.tensor(rejected))) == pytest.approx(expected, rel=1e-6)


def test_bradley_terry_pulls_the_two_rewards_apart_with_the_probability_of_the_mistake() -> None:
    rewards = torch.tensor([[0.5], [1.5]], requires_grad=True)
    bradley_terry(rewards[0], rewards[1]).backward()
    mistake = 1 / (1 + math.exp(0.5 - 1.5))
    assert rewards.grad is not None
    assert rewards.grad.flatten().tolist() == pytest.approx([-mistake, mistake])


def test_bradley_terry_does_not_see_what_both_rewards_share() -> None:
    chosen, rejected = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    assert float(bradley_terry(chosen + 3, rejected + 3)) == pytest.approx(float(bradley_terry(chosen, rejected)))


def test_completion_nll_reads_each_learned_token_from_the_place_before_it() -> None:
    logits = torch.full((1, 4, 5), -math.inf)
    for place, token in enumerate((3, 1, 4)):
        logits[0, place, token] = 0.0  # certain of the next token
    ids = torch.tensor([[2, 3, 1, 4]])
    assert float(completion_nll(logits, ids, torch.tensor([[0, 1, 1, 1]]).bool())) == 0


def test_completion_nll_is_the_mean_over_the_learned_tokens_of_all_rows() -> None:
    logits = torch.zeros(2, 3, 4)
    logits[1, 1, 2] = math.log(5)  # p = 5/8 of token 2, against 1/4 everywhere else
    ids = torch.tensor([[0, 1, 3], [1, 1, 2]])
    learned = torch.tensor([[0, 1, 1], [0, 0, 1]]).bool()
    assert float(completion_nll(logits, ids, learned)) == pytest.approx((2 * math.log(4) - math.log(5 / 8)) / 3)


def test_tokens_that_are_not_learned_give_no_gradient() -> None:
    logits = torch.randn(1, 4, 5, requires_grad=True)
    completion_nll(logits, torch.tensor([[0, 1, 2, 3]]), torch.tensor([[1, 0, 1, 0]]).bool()).backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum(-1).ne(0).tolist() == [[False, True, False, False]]


def test_margins_and_centering_are_the_formulas_of_trl() -> None:
    """As `RewardTrainer.compute_loss` of TRL 1.16.0 writes them."""
    draw = torch.Generator().manual_seed(0)
    chosen, rejected, margin = (torch.randn(5, generator=draw) for _ in range(3))
    theirs = -torch.nn.functional.logsigmoid(chosen - rejected - margin).mean() + 0.01 * torch.mean((chosen + rejected) ** 2)
    assert float(bradley_terry(chosen, rejected, margin, 0.01)) == pytest.approx(float(theirs), rel=1e-6)
    assert float(bradley_terry(chosen, rejected, torch.zeros(5))) == float(bradley_terry(chosen, rejected))
