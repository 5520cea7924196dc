"""Sampling with a cache is sampling without one; rows leave without a trace; banned tokens do not appear."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.training import tiny
from warmkit.errors import NonFiniteError
from warmkit.modeling.generation import Completion, Sampling, _draw, sample
from warmkit.modeling.log_probabilities import log_distribution
from warmkit.modeling.rollouts import measure

transformers = pytest.importorskip("transformers")

ENDS = tuple(range(4, 16))  # so many that rows leave at different times
PROMPTS = [[11, 12, 13], [14], [20, 21, 22, 23, 24, 25, 26], [30, 31], [40, 41, 42], [11, 12]]


@cache
def model(architecture: str) -> Any:
    own = tiny.tokenizer(architecture)
    torch.manual_seed(0)
    kind = {"llama": transformers.LlamaForCausalLM, "gpt2": transformers.GPT2LMHeadModel}[architecture]
    return kind(tiny.config(architecture, len(own), initializer_range=0.2)).eval()


def how(**changes: Any) -> Sampling:
    return replace(Sampling(0.9, 12, ENDS, 3), **changes)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def one_by_one(architecture: str, settings: Sampling) -> list[Completion]:
    """Sample without a cache, without padding, a row at a time."""
    shape = (len(PROMPTS), settings.samples, settings.max_new_tokens)
    draws = torch.from_numpy(draw().random(shape))
    found: list[Completion] = []
    for prompt, row in ((PROMPTS[i], draws[i, k]) for i in range(len(PROMPTS)) for k in range(settings.samples)):
        ids: list[int] = []
        while len(ids) < settings.max_new_tokens and (not ids or ids[-1] not in ENDS):
            logits = model(architecture)(torch.tensor([prompt + ids]), use_cache=False).logits[:, -1]
            spoken = log_distribution(logits, settings.temperature, settings.banned)
            ids.append(int(_draw(spoken, row[len(ids) : len(ids) + 1])))
        found.append(Completion(ids, ids[-1] in ENDS))
    return found


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("architecture", tiny.DECODERS)
@torch.no_grad()
def test_the_cache_changes_nothing(architecture: str, samples: int) -> None:
    found = sample(model(architecture), PROMPTS, how(samples=samples), draw())
    assert found == one_by_one(architecture, how(samples=samples))
    assert len({len(each.ids) for each in found}) > 2, "rows leave at different times"
    assert {each.ended for each in found} == {True, False}


def test_what_else_is_in_the_batch_changes_nothing() -> None:
    whole = sample(model("llama"), PROMPTS, how(samples=4), draw())
    for rows in (1, 4, 8, 12):
        assert sample(model("llama"), PROMPTS, how(samples=4, rows=rows), draw()) == whole


def test_another_seed_gives_other_completions_and_the_same_the_same() -> None:
    assert sample(model("llama"), PROMPTS, how(), draw(1)) == sample(model("llama"), PROMPTS, how(), draw(1))
    assert sample(model("llama"), PROMPTS, how(), draw(1)) != sample(model("llama"), PROMPTS, how(), draw(2))


def test_the_samples_of_a_prompt_are_next_to_each_other() -> None:
    cold = sample(model("llama"), PROMPTS, how(samples=3, temperature=1e-3), draw())
    assert [each.ids for each in cold] == [cold[row // 3 * 3].ids for row in range(18)]
    assert len({tuple(each.ids) for each in cold}) > 1


def test_banned_tokens_are_never_sampled_and_its_rest_keeps_its_odds() -> None:
    found = sample(model("llama"), PROMPTS, how(samples=8), draw())
    common = max(range(60), key=lambda token: sum(each.ids.count(token) for each in found) if token not in ENDS else 0)
    again = sample(model("llama"), PROMPTS, how(samples=8, banned=(common,)), draw())
    assert not any(common in each.ids for each in again)


def test_a_grid_of_draws_finds_every_token_as_often_as_it_is_probable() -> None:
    spoken = log_distribution(torch.tensor([2.0, 0.0, -1.0, 1.0, 3.0]), 0.7, banned=[0, 4])
    draws = torch.arange(10_000, dtype=torch.float64) / 10_000
    counts = _draw(spoken.expand(10_000, -1), draws).bincount(minlength=5)
    assert counts[[0, 4]].tolist() == [0, 0]
    assert (counts / 10_000).tolist() == pytest.approx(spoken.exp().tolist(), abs=2e-4)
    edge = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert _draw(spoken.expand(2, -1), edge).tolist() == [1, 3], "the first and the last that are possible"


@pytest.mark.parametrize("architecture", tiny.DECODERS)
@torch.no_grad()
def test_log_probabilities_agree_with_the_samplers_own(architecture: str) -> None:
    settings = how(samples=2, banned=(15, 16))
    found = sample(model(architecture), PROMPTS, settings, draw())
    prompts = [prompt for prompt in PROMPTS for _ in range(2)]
    measured = measure(model(architecture), {}, prompts, found, settings, torch.device("cpu"))["policy"]
    for row, (prompt, each) in enumerate(zip(prompts, found)):
        total = 0.0
        for place, token in enumerate(each.ids):
            logits = model(architecture)(torch.tensor([prompt + each.ids[:place]])).logits[:, -1]
            total += float(log_distribution(logits, 0.9, (15, 16))[0, token])
        assert float(measured[row]) == pytest.approx(total, abs=1e-4)


def test_a_policy_that_is_not_finite_is_refused() -> None:
    broken = transformers.GPT2LMHeadModel(tiny.config("gpt2", 180))
    with torch.no_grad():
        broken.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="the policy's logits are not finite"):
        sample(broken, PROMPTS, how(), draw())


def test_sampling_is_without_dropout_and_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    noisy = transformers.GPT2LMHeadModel(tiny.config("gpt2", 180, resid_pdrop=0.5, initializer_range=0.2)).train()
    assert sample(noisy, PROMPTS, how(), draw(1)) == sample(noisy, PROMPTS, how(), draw(1))
    assert noisy.training
