"""The model card of a merge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warmkit._version import __version__


def model_card(name: str, description: Mapping[str, Any], mean_angle: float | None) -> str:
    """Return README.md for a merged model: front matter that hubs read, then what was done."""
    sources = [description["init"]["source"]] if description["init"] else []
    models = [model["source"] for model in description["models"]]
    rows = [f"| {key} | {value} |" for key, value in description["parameters"].items() if value is not None]
    angle = f"\nMean angle between task vectors: {mean_angle:.1f} degrees.\n" if mean_angle is not None else ""
    return f"""---
library_name: transformers
tags: [merge, warmkit]
---
# {name}

A weight average made by warmkit {__version__}: `{description["method"]}`.

| parameter | value |
|---|---|
{chr(10).join(rows)}
{angle}
Initialisation: {", ".join(f"`{source}`" for source in sources) or "not needed"}

Models:
{chr(10).join(f"- `{model}`" for model in models)}

Coefficients, angles and digests of every layer are in `warmkit.json`; `warmkit verify` checks this directory against it.
"""
