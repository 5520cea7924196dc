"""Tables of experiments on a page of the documentation, between two marks."""

from __future__ import annotations

from pathlib import Path


def marks(what: str, module: str) -> tuple[str, str]:
    """Return the two marks of a part of a page."""
    return f"<!-- {what}: begin, written by {module} -->", f"<!-- {what}: end -->"


def write_between(page: Path, what: str, module: str, text: str) -> None:
    """Put a text between the marks of a page."""
    begin, end = marks(what, module)
    before, found, rest = page.read_text("utf-8").partition(begin)
    if not found:
        raise SystemExit(f"{page}: expected the line {begin}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}", "utf-8")
