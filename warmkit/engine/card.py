"""The model card of a merge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from warmkit._version import __version__
from warmkit.common.addresses import markdown_code, printable


def model_card(name: str, description: Mapping[str, Any], mean_angle: float | None) -> str:
    """Return README.md for a merged model: front matter that hubs read, then what was done."""
    sources = [description["init"]["source"]] if description["init"] else []
    models = [model["source"] for model in description["models"]]
    rows = [f"| {key} | {_cell(value)} |" for key, value in description["parameters"].items() if value is not None]
    angle = f"\nMean angle between task vectors: {mean_angle:.1f} degrees.\n" if mean_angle is not None else ""
    return f"""---
library_name: transformers
tags: [merge, warmkit]
---
# {_text(name)}

A weight average made by warmkit {__version__}: `{description["method"]}`.

| parameter | value |
|---|---|
{chr(10).join(rows)}
{angle}
Initialisation: {", ".join(map(markdown_code, sources)) or "not needed"}

Models:
{chr(10).join(f"- {markdown_code(model)}" for model in models)}

Coefficients, angles and digests of every layer are in `warmkit.json`; `warmkit verify` checks this directory against it.
"""


def _text(name: str) -> str:
    """Return a name as plain text in markdown."""
    return re.sub(r"([\\`*_\[\]<>#|!&~$])", r"\\\1", printable(name))


def _cell(value: Any) -> str:
    """Return a value in a table: numbers as they are, anything that may hold a name as code."""
    return str(value) if isinstance(value, bool | int | float) else markdown_code(str(value))
