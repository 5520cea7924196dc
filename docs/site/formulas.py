"""Formulas of the pages as MathML, made while the site is built: browsers draw it without a script or a download."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace every formula of a page, in LaTeX, by MathML."""
    return FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    tag, formula = found.groups()
    made = convert(html.unescape(formula).strip(), display="block" if tag == "div" else "inline")
    if "\\" in made:
        raise ValueError(f"a command of LaTeX that MathML lacks, in {formula!r}: {made}")
    return f'<{tag} class="formula">{made}</{tag}>'
