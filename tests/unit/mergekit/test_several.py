"""Recipes of mergekit-multi: documents in an order in which they run, names as the places of results."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmkit.errors import RecipeError
from warmkit.mergekit.schema import is_mergekit
from warmkit.mergekit.several import read_several

LINEAR = "merge_method: linear\nparameters: {weight: 1}\nmodels:\n"
FINAL = LINEAR + "  - model: second\n  - model: x/y\n"
FIRST = "name: first\n" + LINEAR + "  - {model: a}\n  - {model: b}\n"
SECOND = (
    "name: second\nmerge_method: task_arithmetic\nbase_model: {model: {path: first}}\nparameters: {weight: 1}\n"
    "models: [{model: c}, {model: first+lora}]\n"
)


def write(folder: Path, *documents: str) -> Path:
    (folder / "multi.yml").write_text("---\n".join(documents))
    return folder / "multi.yml"


def test_documents_run_after_those_that_they_name_whatever_the_order_of_writing(tmp_path: Path) -> None:
    path = write(tmp_path, FINAL, SECOND, FIRST)
    assert is_mergekit(path)
    recipes = [each.recipe.content for each in read_several(path, tmp_path / "out")]
    out = str(tmp_path / "out")
    assert [each.output.path for each in recipes] == [f"{out}-first", f"{out}-second", out]
    assert recipes[1].merge.init == f"{out}-first"
    assert recipes[1].merge.models == ["c", f"{out}-first+lora"]
    assert recipes[2].merge.models == [f"{out}-second", "x/y"]


def test_where_all_have_names_the_last_to_run_is_the_result(tmp_path: Path) -> None:
    recipes = read_several(write(tmp_path, SECOND, FIRST), Path("out"))
    assert [each.recipe.content.output.path for each in recipes] == ["out-first", "out"]
    assert recipes[1].recipe.content.merge.init == "out-first"


def test_without_an_output_places_are_called_by_the_names(tmp_path: Path) -> None:
    recipes = [each.recipe.content for each in read_several(write(tmp_path, FINAL, SECOND, FIRST), None)]
    assert [each.output.path for each in recipes] == ["first", "second", None]
    assert recipes[2].merge.models == ["second", "x/y"]


def test_one_document_is_a_recipe_of_mergekit_yaml_and_its_name_means_nothing(tmp_path: Path) -> None:
    (only,) = read_several(write(tmp_path, FIRST), Path("out"))
    assert only.recipe.content.output.path is None


def test_a_name_that_is_a_method_is_no_model(tmp_path: Path) -> None:
    recipes = read_several(write(tmp_path, FIRST.replace("name: first", "name: linear"), FIRST), Path("out"))
    assert [each.recipe.content.output.path for each in recipes] == ["out-linear", "out"]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ((FIRST, FIRST), ":8: name: 'first' is there twice"),
        ((FIRST, FINAL, FINAL), ":14: a second document without a name"),
        ((FIRST.replace("model: a", "model: second"), SECOND), ":1: first waits for second, and that for it"),
        ((FIRST.replace("model: a", "model: first"), FINAL.replace("second", "a")), ":1: first waits for first"),
        ((FIRST.replace("name: first", "name: ../first"), FINAL), ":1: name: expected letters, digits, dots and dashes"),
        ((FIRST.replace("name: first", "name: .."), FINAL), ":1: name: expected letters"),
        ((FIRST, FINAL.replace("weight", "wieght")), ":9: unknown parameter 'wieght' of linear"),
        ((FIRST, "- 1\n"), ":8: expected the recipe to be a mapping"),
    ],
)
def test_what_cannot_run_is_refused_by_its_line(documents: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_several(write(tmp_path, *documents), Path("out"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
