"""The page of the reproduction says what was measured, with the rules as they stand in the recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from warmkit.reproduction.page import PICTURES, markdown
from warmkit.reproduction.results import charts, read_documents, results

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_its_measurements_give() -> None:
    found = results(read_documents(DOCS / "reproduction"))
    assert markdown(found) == (DOCS / "reproduction.md").read_text("utf-8"), "regenerate it: docs/reproduction.md says how"
    drawn = {f"{chart.name}.svg" for result in found for chart in charts(result)}
    assert drawn == {file.name for file in (DOCS / PICTURES).iterdir()}
