"""What makes two runs the same: everything that reaches the weights, the rows of the data included, and nothing else."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmkit.checkpoints.digests import file_digest
from warmkit.recipes import recipe_text
from warmkit.training.policy_recipe import PromptsSection
from warmkit.training.recipe import DataSection, Optimization

FREE = ("accumulation", "gradient_checkpointing", "save_every", "evaluate_every")
"""Keys that cost memory or time and leave the weights what they are, rounding aside: a killed run may change them."""


def identity_text(recipe: Any, data: DataSection | PromptsSection) -> str:
    """Return the recipe without its free keys and its trackers, and the digest of the training data where they are a file.

    Args:
        recipe: Of a run, or of WARM.
        data: Its data section.
    """
    free = {each.name: each.default for each in dataclasses.fields(Optimization) if each.name in FREE}
    sections = {each.name: getattr(recipe, each.name) for each in dataclasses.fields(recipe)}
    fixed = {name: replace(section, **free) for name, section in sections.items() if isinstance(section, Optimization)}
    output = replace(recipe.output, trackers=None, project=None)
    held_out = replace(data, **{name: None for name in ("validation", "ood") if hasattr(data, name)})
    file = Path(data.train)
    digest = file_digest(file) if file.is_file() else "not a file"
    return f"{recipe_text(replace(recipe, data=held_out, output=output, **fixed))}# training data: {digest}\n"
