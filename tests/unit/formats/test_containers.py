"""Every container of the table has its test, its row on the page of inputs and its damaged files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_fuzz import KINDS
from warmkit.formats.containers import CONTAINERS, Container, container_at

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda each: each.name)
def test_a_row_is_complete(container: Container) -> None:
    home = container.open.__module__.rpartition(".")[2]
    assert container.files.__module__ == container.open.__module__, "a container is one file"
    assert (ROOT / "tests" / "unit" / "formats" / f"test_{home}.py").is_file(), "its test"
    page = (ROOT / "docs" / "inputs.md").read_text()
    rows = page.partition("## What is refused")[0].splitlines()
    row = next((each for each in rows if each.startswith("|") and container.name in each), None)
    assert row is not None, "its row on docs/inputs.md"
    assert container.pickled == ("--allow-pickle" in row)
    assert container.name in KINDS, "its damaged files in tests/fuzz/readers.py"


def test_what_no_container_knows_is_taken_for_safetensors_which_say_what_is_missing(tmp_path: Path) -> None:
    assert container_at(tmp_path).name == "safetensors"
