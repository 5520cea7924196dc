"""A toy to train policies on: prompts of a few words, and rewards that count letters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.unit.training import tiny
from warmkit.training.policy_recipe import PolicyModelSection, PolicyRecipe, PolicySection, PromptsSection, RewardTerm
from warmkit.training.recipe_sections import RunOutput

E = RewardTerm(function="tests.unit.training.toy:count_e")


def count_e(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    assert len(prompts) == len(completions)
    return [float(text.count("e")) for text in completions]


def length(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    return [float(len(text)) for text in completions]


def constant(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    return [1.0] * len(completions)


def too_few(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    return [1.0] * (len(completions) - 1)


def not_a_number(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    return [float("nan")] * len(completions)


def broken(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    raise KeyError("gold")


def recipe(
    folder: Path, name: str = "run", architecture: str = "llama", rewards: Sequence[RewardTerm] = (E,), **how: Any
) -> PolicyRecipe:
    """Return a recipe of a short training on a tiny model."""
    source = str(tiny.model(architecture, folder / architecture))
    train, held_out = folder / "prompts.jsonl", folder / "held-out.jsonl"
    if not train.exists():
        tiny.write(train, [{"prompt": text} for text in tiny.sentences(12)])
        tiny.write(held_out, [{"prompt": text} for text in tiny.sentences(5, seed=9)])
    settings = {
        "lr": 1e-3,
        "steps": 3,
        "warmup": 0,
        "batch_size": 4,
        "samples": 2,
        "max_new_tokens": 6,
        "precision": "float32",
        **how,
    }
    return PolicyRecipe(
        PolicyModelSection(source, pad_token=tiny.PAD[architecture]),
        PromptsSection(str(train), str(held_out)),
        list(rewards),
        RunOutput(str(folder / name)),
        PolicySection(**settings),
    )
