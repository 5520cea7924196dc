"""Every container of the table has its test, its row on the page of inputs and its damaged files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import save, weights
from tests.fuzz.readers import SHARES
from warmkit.errors import StateDictError
from warmkit.formats import containers
from warmkit.formats.containers import CONTAINERS, Container, container_at
from warmkit.sources.foreign_forms import FORMS

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda each: each.name)
def test_a_row_is_complete(container: Container) -> None:
    home, name = container.open.__module__.rpartition(".")[2], container.name
    assert container.files.__module__ == container.open.__module__, "a container is one file"
    page = (ROOT / "docs" / "inputs.md").read_text()
    rows = page.partition("## What is refused")[0].splitlines()
    row = next((each for each in rows if each.startswith("|") and name in each), None)
    places = {
        f"tests/unit/formats/test_{home}.py": (ROOT / "tests" / "unit" / "formats" / f"test_{home}.py").is_file(),
        f"a row that says {name!r} in the first table of docs/inputs.md": row is not None,
        f"a share and a reader called {name!r} in tests/fuzz/readers.py": name in SHARES,
    }
    lacks = [place for place, there in places.items() if not there]
    assert not lacks, "\n- ".join([f"container {name!r} needs", *lacks])
    assert row is not None
    assert container.pickled == ("--allow-pickle" in row), (
        "docs/inputs.md: a row names --allow-pickle exactly where it is needed"
    )


def test_a_container_of_one_model_alone_has_no_state_dict_to_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [replace(each, several=False) for each in CONTAINERS]
    monkeypatch.setattr(containers, "CONTAINERS", alone)
    path = save(tmp_path / "m", weights(1))
    with pytest.raises(StateDictError, match="safetensors holds one model, and no state dict 'ema'") as refusal:
        containers.open_weights(str(path), path, allow_pickle=False, state_dict="ema")
    assert refusal.value.alone


@pytest.mark.parametrize("end", FORMS)
def test_a_form_is_read_or_refused_by_name_never_both(end: str, tmp_path: Path) -> None:
    reading = [each.name for each in CONTAINERS if each.files(tmp_path / f"model{end}")]
    assert not reading, f"{end} is a container now: take it out of FORMS in warmkit/sources/foreign_forms.py"


def test_the_page_names_the_forms_that_are_refused() -> None:
    refused = (ROOT / "docs" / "inputs.md").read_text().partition("## What is refused")[2]
    row = re.search(r"^\| (.+) files, where there is no other form \|", refused, re.MULTILINE)
    said, names = re.split(", | and ", row[1]) if row else [], {form.removesuffix("'s form") for form in FORMS.values()}
    assert set(said) == names, f"docs/inputs.md, What is refused: expected the forms of FORMS, found {said}"


def test_what_no_container_knows_is_taken_for_safetensors_which_say_what_is_missing(tmp_path: Path) -> None:
    assert container_at(tmp_path).name == "safetensors"
