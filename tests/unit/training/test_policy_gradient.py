"""The policy gradient is the exact gradient of E[r] - beta KL, and the KLs are those of an enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from warmkit.errors import UsageError
from warmkit.modeling.batching import positions
from warmkit.modeling.generation import Completion, Sampling
from warmkit.modeling.log_probabilities import exact_kl, log_distribution
from warmkit.modeling.rollouts import lay_out, measure
from warmkit.training.policy_gradient import advantages, clipped_loss, regularized, reinforce_loss

transformers = pytest.importorskip("transformers")

BETA = 0.3


# ---- a bandit with two arms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_the_gradient_of_a_two_armed_bandit_is_exact(beta: float) -> None:
    theta = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    anchor = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    rewards = torch.tensor([1.0, 3.0], dtype=torch.float64)
    spoken = log_distribution(theta, 1.0)
    odds = spoken.exp().detach()
    gains = regularized(rewards, beta, spoken, anchor)
    reinforce_loss(gains * odds * 2, spoken).backward()  # the mean over arms, weighted by how often each is pulled
    assert theta.grad is not None
    # d/dtheta_0 of sum p (r - beta log p/q) is p_0 p_1 (g_0 - g_1) with g = r - beta log p/q
    slope = float(odds[0] * odds[1] * (gains[0] - gains[1]))
    assert (-theta.grad).tolist() == pytest.approx([slope, -slope], rel=1e-12)


# ---- a language of three tokens and at most two of them --------------------------------------------------------------

END = 2
SENTENCES = [[END], *([first, second] for first in (0, 1) for second in (0, 1, END))]
PROMPT = [0, 1, 1]
REWARDS = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0, 3.0, -2.0], dtype=torch.float64)
SAMPLING = Sampling(0.8, 2, (END,), 0)


def language(seed: int) -> Any:
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=3, n_embd=8, n_layer=1, n_head=2, n_positions=16, initializer_range=0.5, eos_token_id=END, **off
    )
    return transformers.GPT2LMHeadModel(config).double().train()  # Llama's norm computes in float32


def enumerated(policy: Any, anchor: Any, how: Sampling = SAMPLING) -> dict[str, torch.Tensor]:
    """Measure every sentence of the language once."""
    completions = [Completion(ids, ids[-1] == END) for ids in SENTENCES]
    return measure(policy, {"anchor": anchor}, [PROMPT] * len(SENTENCES), completions, how, torch.device("cpu"))


def gradient(of: torch.Tensor, model: Any) -> torch.Tensor:
    found = torch.autograd.grad(of, list(model.parameters()), retain_graph=True)
    return torch.cat([each.flatten() for each in found])


def exact(policy: Any, measured: dict[str, torch.Tensor], beta: float = BETA) -> torch.Tensor:
    """Return the gradient of E[r] - beta KL(pi, anchor) by enumeration."""
    odds, ratio = measured["policy"].exp(), measured["policy"] - measured["anchor"]
    return gradient((odds * (REWARDS - beta * ratio)).sum(), policy)


def expected(policy: Any, measured: dict[str, torch.Tensor], baseline: str, prompts: int, samples: int) -> torch.Tensor:
    """Return the mean of the estimator over all batches that could be sampled, each as often as it is."""
    batches = torch.tensor(list(itertools.product(range(len(SENTENCES)), repeat=prompts * samples)))
    gains = regularized(REWARDS, BETA, measured["policy"], measured["anchor"])
    odds = measured["policy"].detach()[batches].sum(1).exp()
    values = torch.full((prompts,), 0.7, dtype=torch.float64)
    taken = torch.stack([advantages(row.view(prompts, samples), baseline, values).flatten() for row in gains[batches]])
    weighted = taken * (odds * len(batches))[:, None]
    return -gradient(reinforce_loss(weighted.flatten(), measured["policy"][batches].flatten()), policy)


BASELINES: list[tuple[str, int, int]] = [
    ("none", 1, 1),
    ("none", 1, 2),
    ("none", 1, 4),
    ("value", 1, 1),
    ("value", 2, 2),
    ("leave-one-out", 1, 2),
    ("leave-one-out", 1, 4),
    ("leave-one-out", 2, 2),
    ("batch", 2, 1),
    ("batch", 4, 1),
    ("batch", 1, 4),
]


@pytest.mark.parametrize(("baseline", "prompts", "samples"), BASELINES)
def test_the_mean_of_the_estimator_is_the_exact_gradient(baseline: str, prompts: int, samples: int) -> None:
    policy, anchor = language(0), language(1)
    measured = enumerated(policy, anchor)
    assert float(measured["policy"].detach().exp().sum()) == pytest.approx(1.0, abs=1e-12), "these are all sentences"
    shrunk = 1 - 1 / (prompts * samples) if baseline == "batch" else 1.0
    wanted = exact(policy, measured) * shrunk
    assert float(wanted.abs().max()) > 0.01
    assert torch.allclose(expected(policy, measured, baseline, prompts, samples), wanted, atol=1e-11)


@pytest.mark.parametrize("banned", [(), (1,)])
def test_the_kls_are_those_of_an_enumeration(banned: tuple[int, ...]) -> None:
    policy, anchor = language(0), language(1)
    how = Sampling(0.8, 2, (END,), 0, banned)
    with torch.no_grad():
        measured = enumerated(policy, anchor, how)
    possible = measured["policy"] > -torch.inf
    odds, sampled = measured["policy"].exp()[possible], (measured["policy"] - measured["anchor"])[possible]
    assert int(possible.sum()) == (3 if banned else 7)
    assert float(odds.sum()) == pytest.approx(1.0, abs=1e-12)
    whole = float((odds * sampled).sum())
    assert whole > 0.01
    assert float((odds * measured["kl_anchor"][possible]).sum()) == pytest.approx(whole, abs=1e-12)
    assert float((odds * measured["entropy"][possible]).sum()) == pytest.approx(
        -float((odds * measured["policy"][possible]).sum()), abs=1e-12
    )


def test_masking_both_keeps_the_kl_a_penalty() -> None:
    policy, anchor = torch.randn(50, 6), torch.randn(50, 6)
    both = exact_kl(log_distribution(policy, 0.9, [2, 3]), log_distribution(anchor, 0.9, [2, 3]))
    assert bool((both >= 0).all())
    assert bool(exact_kl(log_distribution(policy, 0.9, [2]), log_distribution(policy, 0.9, [2])).eq(0).all())


def test_one_sample_leaves_none_to_compare_with() -> None:
    with pytest.raises(UsageError, match="leave-one-out needs two samples a prompt or more, found 1; use batch"):
        advantages(torch.ones(3, 1), "leave-one-out")


# ---- layout ---------------------------------------------------------------------------------------------------------


def alone(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> float:
    """Return log pi(y|x) of one row without any padding."""
    logits = model(torch.tensor([[*prompt, *completion]])).logits[0]
    spoken = log_distribution(logits, SAMPLING.temperature)
    spoken = spoken.detach()
    return sum(float(spoken[len(prompt) + place - 1, token]) for place, token in enumerate(completion))


def test_padding_changes_neither_log_probabilities_nor_gradients() -> None:
    policy = language(0)
    prompts = [[0], [1, 0, 1, 1], [0, 1], [1], [0, 0, 0, 1, 1, 0, 1]]
    answers = [[0, 1, 0, 0, 1, END], [END], [1, 1, END], [0, 1], [0, END]]
    completions = [Completion(ids, ids[-1] == END) for ids in answers]
    found = measure(policy, {}, prompts, completions, SAMPLING, torch.device("cpu"))["policy"]
    assert found.detach().tolist() == pytest.approx([alone(policy, *each) for each in zip(prompts, answers)], abs=1e-12)
    parts = [measure(policy, {}, [x], [y], SAMPLING, torch.device("cpu"))["policy"] for x, y in zip(prompts, completions)]
    assert torch.allclose(gradient(found.sum(), policy), gradient(torch.cat(parts).sum(), policy), atol=1e-11)


def test_completions_start_in_one_column() -> None:
    layout = lay_out([[5], [6, 7]], [[1, 2], [3]], 0, "cpu")
    ids, mask = layout.left
    assert ids.tolist() == [[0, 5, 1, 2], [6, 7, 3, 0]]
    assert mask.tolist() == [[0, 1, 1, 1], [1, 1, 1, 0]]
    assert positions(mask).tolist() == [[0, 0, 1, 2], [0, 1, 2, 2]]
    assert layout.right[0].tolist() == [[5, 1, 2], [6, 7, 3]]
    assert layout.counted.tolist() == [[True, True], [True, False]]


# ---- formulas that people name ----------------------------------------------------------------------------------------


def test_advantages_of_groups_are_those_of_grpo() -> None:
    """As TRL 1.16.0 computes them with `scale_rewards="group"`: over the sample standard deviation plus 1e-4."""
    rewards = torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]])
    deviation = float(np.std([1.0, 2.0, 6.0], ddof=1))
    found = advantages(rewards, "group")
    assert found[0].tolist() == pytest.approx([(each - 3.0) / (deviation + 1e-4) for each in (1.0, 2.0, 6.0)], rel=1e-6)
    assert found[1].tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(UsageError, match="group needs two samples"):
        advantages(torch.ones(2, 1), "group")


def test_clipped_loss_is_that_of_trls_rloo() -> None:
    """The smaller of the ratio's gain and the clamped ratio's, of whole completions."""
    draw = torch.Generator().manual_seed(0)
    sampled, gain = torch.randn(64, generator=draw), torch.randn(64, generator=draw)
    policy = (sampled + 0.4 * torch.randn(64, generator=draw)).requires_grad_()
    ratio = torch.exp(policy - sampled)
    theirs = -torch.min(ratio * gain, torch.clamp(ratio, 1 - 0.2, 1 + 0.2) * gain).mean()
    ours = clipped_loss(gain, policy, sampled, 0.2)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-6)
    assert torch.equal(*(torch.autograd.grad(each, policy, retain_graph=True)[0] for each in (ours, theirs)))


def test_the_clipped_loss_begins_as_reinforce() -> None:
    gain, policy = torch.tensor([1.0, -2.0]), torch.tensor([-1.0, -3.0], requires_grad=True)
    one, two = clipped_loss(gain, policy, policy.detach(), 0.2), reinforce_loss(gain, policy)
    assert torch.equal(*(torch.autograd.grad(each, policy)[0] for each in (one, two)))
