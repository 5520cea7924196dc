"""Configurations of mergekit-evolve, which `search` does not run: the command that searches the same numbers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

METHODS = {
    "linear": ("lerp", ("coefficients=0:1",)),
    "task_arithmetic": ("task-arithmetic", ("coefficients=0:1",)),
    "ties": ("ties", ("coefficients=0:1", "density=0.05:1")),
    "dare_ties": ("dare-ties", ("coefficients=0:1", "density=0.05:1")),
    "slerp": ("slerp-weights", ("lambda=0:1",)),
}
"""Methods of mergekit-evolve, and what is searched with ours."""
OTHERWISE = {
    "layer_granularity": "a gradient over the layers is lambda=0:1x4",
    "filters": "coefficients by name are not searched",
    "tokenizer_source": "vocabularies must be one: `warmkit merge --vocabulary` first",
    "normalize": "shares of lerp always sum to 1",
}


def advice(path: Path) -> str | None:
    """Return what to write instead of a configuration of mergekit-evolve; None where the file is none."""
    try:
        content: Any = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    genome = content.get("genome") if isinstance(content, dict) else None
    if not isinstance(genome, dict) or genome.get("merge_method") not in METHODS or not isinstance(genome.get("models"), list):
        return None
    method, ranges = METHODS[genome["merge_method"]]
    start = (
        ["--init", str(genome["base_model"])] if genome.get("base_model") and method not in ("lerp", "slerp-weights") else []
    )
    words = ["warmkit", "search", *map(str, genome["models"]), *start, "-m", method]
    words += [word for each in ranges for word in ("--range", each)]
    said = [f"{key}: {why}" for key, why in OTHERWISE.items() if genome.get(key)]
    tasks = content.get("tasks") or []
    names = ", ".join(str(each.get("name") if isinstance(each, dict) else each) for each in tasks)
    said += [f"tasks ({names}): a command that runs them and prints one number"] if names else []
    return f"{shlex.join(words)} --score 'COMMAND {{}}' -o OUT{''.join(f'; {each}' for each in said)}"
