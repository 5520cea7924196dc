"""A notebook, executed by Jupyter's own kernel: bars, tables and completion."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_family, save, weights
from tests.unit.sources.test_hub import Hub, environment, hub  # noqa: F401

nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel: pip install nbclient ipykernel")
pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")


@pytest.fixture
def outputs(tmp_path: Path) -> Any:
    """Execute cells in a folder of tiny models; return the outputs of the last one."""
    make_family(tmp_path / "<b>runs")

    def execute(*cells: str) -> list[Any]:
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
        nbclient.NotebookClient(
            book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
        ).execute()
        return book.cells[-1].outputs

    return execute


IMPORT = "import warmkit\nruns = '<b>runs/'"
MERGE = "warmkit.merge([runs + 'a', runs + 'b'], 'out', init=runs + 'sft', force=True, advance={})"


def test_a_merge_leaves_its_bar_and_a_table(outputs: Any) -> None:
    bar, result = outputs(IMPORT, MERGE.format(None))
    assert bar.output_type == "display_data"
    assert bar.data["text/plain"].startswith("merging ━")
    done, total = bar.data["text/plain"].split(" kB")[0].split()[-1].split("/")
    assert done == total
    assert bar.data["text/plain"].count("\n") == 0
    assert result.data["text/plain"].startswith("<MergeResult path: out, method: slerp")
    assert '<td style="text-align: left">slerp</td>' in result.data["text/html"]


def test_false_draws_no_bar_and_a_callback_is_called_instead(outputs: Any) -> None:
    (alone,) = outputs(IMPORT, MERGE.format(False))
    assert alone.output_type == "execute_result"
    (told,) = outputs(IMPORT, "sizes = []", MERGE.format("lambda size, total: sizes.append(total)") + "\nlen(sizes) > 0")
    assert told.data["text/plain"] == "True"


def test_a_bar_that_stands_when_a_merge_fails_stays_where_it_was(outputs: Any) -> None:
    code = """
try:
    warmkit.compare([runs + 'a', runs + 'missing'], init=runs + 'sft')
except warmkit.WarmkitError as error:
    print(error)
"""
    (said,) = outputs(IMPORT, code)
    assert said.text == "<b>runs/missing: no such file or directory\n"


def test_a_model_of_the_hub_is_fetched_with_its_bar(outputs: Any, hub: type[Hub], tmp_path: Path) -> None:  # noqa: F811
    save(tmp_path / "model", weights(0))
    place = f"import os\nos.environ.update({environment(hub, tmp_path)!r})"
    *before, result = outputs(place, IMPORT, "warmkit.open_checkpoint('team/model')")
    assert "Fetching" in str(before)
    assert result.data["text/plain"].startswith("<Checkpoint source: team/model")


def test_names_that_look_like_markup_are_text(outputs: Any) -> None:
    (_, result) = outputs(IMPORT, "warmkit.compare([runs + 'a', runs + 'b'], init=runs + 'sft')")
    assert "<b>" not in result.data["text/html"]
    assert escape("<b>runs/a") in result.data["text/html"]


COMPLETE = """
from IPython.core.completer import provisionalcompleter
with provisionalcompleter():
    print(*(each.text.lstrip(".") for each in get_ipython().Completer.completions("warmkit.m", 9)))
"""


def test_completion_offers_the_public_names_alone(outputs: Any) -> None:
    (found,) = outputs(IMPORT, COMPLETE)
    assert found.text.split() == ["merge", "merge_slices", "merged_state_dict"]
