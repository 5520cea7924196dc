"""The page of the reproduction says what was measured, with the rules as they stand in the recipes."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from warmkit.evidence.reproduction import claim_units
from warmkit.evidence.reproduction.claim_table import CLAIMS
from warmkit.evidence.reproduction.claim_units import Unit
from warmkit.evidence.reproduction.reproduction_page import PICTURES, markdown
from warmkit.evidence.reproduction.results import charts, read_documents, results

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_its_measurements_give() -> None:
    measured = any((DOCS / "reproduction").glob("seed-*.jsonl"))
    found = results(read_documents(DOCS / "reproduction")) if measured else []
    assert markdown(found) == (DOCS / "reproduction.md").read_text("utf-8"), "regenerate it: docs/reproduction.md says how"
    drawn = {f"{chart.name}.svg" for result in found for chart in charts(result)}
    assert drawn == {file.name for file in (DOCS / PICTURES).glob("*.svg")}


def test_raw_numbers_are_small_and_of_the_recipes_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("read_claim", "read_seed", "read_testbed"):  # each is asked for at every claim of every seed
        monkeypatch.setattr(claim_units, name, functools.cache(getattr(claim_units, name)))
    files = sorted((DOCS / "reproduction").glob("seed-*.jsonl"))
    assert sum(file.stat().st_size for file in files) < 3_000_000
    for file in files:
        seed = int(file.stem.removeprefix("seed-"))
        for claim in CLAIMS:
            unit = Unit(claim, seed, "small", DOCS / "reproduction")
            assert unit.known() is not None, f"{file}: {claim} was not measured"
            assert not unit.changed(), f"{file}: {claim} was measured with other settings"
