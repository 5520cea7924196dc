"""Identity of a run: everything that reaches the weights, the rows of the data included, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from warmkit.engine.digests import file_digest
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.recipes.recipe import recipe_text
from warmkit.training.recipe_sections import Optimization

FREE = ("accumulation", "gradient_checkpointing", "save_every", "evaluate_every")
"""Keys that cost memory or time and leave the weights what they are, rounding aside: a killed run may change them."""
_CHECKPOINTS = ("path", "sft", "head", "inits", "policies")


@dataclass(frozen=True)
class RunIdentity:
    """What a run is.

    Attributes:
        text: The recipe without its free keys and its trackers, and the digest of the training data where they are a file.
        sources: The checkpoints that it starts from or learns from, with the keys of the recipe that name them.
    """

    text: str
    sources: Mapping[str, Sequence[str]] = field(default_factory=lambda: {})


def run_identity(recipe: Any) -> RunIdentity:
    """Return the identity of a run of a recipe, or of WARM's or WARP's."""
    free = {each.name: each.default for each in dataclasses.fields(Optimization) if each.name in FREE}
    sections = {each.name: getattr(recipe, each.name) for each in dataclasses.fields(recipe)}
    fixed = {name: replace(section, **free) for name, section in sections.items() if isinstance(section, Optimization)}
    output, data = replace(recipe.output, trackers=None, project=None), recipe.data
    held_out = replace(data, **{name: None for name in ("validation", "ood") if hasattr(data, name)})
    file = Path(getattr(data, "train", None) or "")
    digest = file_digest(file) if file.is_file() else "not a file"
    text = f"{recipe_text(replace(recipe, data=held_out, output=output, **fixed))}# training data: {digest}\n"
    sources: dict[str, list[str]] = {}
    for key, source in _sources(recipe):
        sources.setdefault(source, []).append(key)
    return RunIdentity(text, sources)


def _sources(recipe: Any) -> Iterator[tuple[str, str]]:
    """Yield every checkpoint that a recipe names, with the key that does."""
    for name in ("model", "warm", "warp"):
        section = getattr(recipe, name, None)
        for key in _CHECKPOINTS:
            yield from _each(f"{name}.{key}", getattr(section, key, None))
    for name in ("rewards", "controls"):
        yield from _of_terms(name, getattr(recipe, name, None))
    for place, variation in enumerate(getattr(getattr(recipe, "warp", None), "vary", ())):
        yield from _of_terms(f"warp.vary[{place}].rewards", variation.rewards)


def _of_terms(key: str, terms: Sequence[RewardTerm] | None) -> Iterator[tuple[str, str]]:
    for term in terms or ():
        yield from _each(f"{key}.{term.label}", term.model)


def _each(key: str, sources: str | Sequence[str] | None) -> Iterator[tuple[str, str]]:
    for source in [sources] if isinstance(sources, str) else sources or ():
        yield key, source
