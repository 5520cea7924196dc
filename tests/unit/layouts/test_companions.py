"""Small files beside the weights come from the model's own directory, whatever links and recipes say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import warmkit
from tests.conftest import Family, Run
from tests.unit.layouts import lora
from warmkit.errors import CheckpointError, FormatError
from warmkit.verbs.push import push


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A harmless file that lies in no model."""
    file = tmp_path / "elsewhere" / "private.txt"
    file.parent.mkdir()
    file.write_text("PRIVATE {{ 1 }}")
    return file


def test_a_companion_that_is_a_link_out_of_the_model_is_refused(family: Family, private: Path, tmp_path: Path) -> None:
    (family.init / "vocab.txt").symlink_to(private)
    with pytest.raises(FormatError, match=r"vocab.txt: is a link that leaves the directory of its model"):
        warmkit.merge([family.a, family.b], tmp_path / "out", init=family.init)
    assert not (tmp_path / "out").exists()
    (family.init / "vocab.txt").unlink()
    (family.init / "more").symlink_to(private.parent)
    with pytest.raises(FormatError, match=r"more/private.txt: is a link"):
        warmkit.merge([family.a, family.b], tmp_path / "out", init=family.init)


def test_links_inside_of_a_model_and_a_model_that_is_a_link_are_followed(family: Family, tmp_path: Path) -> None:
    (family.init / "files").mkdir()
    (family.init / "files" / "vocab.txt").write_text("mine")
    (family.init / "vocab.txt").symlink_to("files/vocab.txt")
    (tmp_path / "linked").symlink_to(family.init)
    out = warmkit.merge([family.a, family.b], tmp_path / "out", init=tmp_path / "linked").path
    assert (out / "vocab.txt").read_text() == "mine"
    assert not (out / "vocab.txt").is_symlink()


def test_the_links_of_a_hub_cache_are_followed(family: Family, tmp_path: Path) -> None:
    entry = tmp_path / "models--owner--name"
    snapshot, blobs = entry / "snapshots" / "abc", entry / "blobs"
    shutil.copytree(family.init, blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    out = warmkit.merge([family.a, family.b], tmp_path / "out", init=snapshot).path
    assert (out / "config.json").read_bytes() == (family.init / "config.json").read_bytes()


@pytest.mark.parametrize("option", ["tokenizer", "chat_template"])
def test_a_tokenizer_or_template_that_is_a_link_out_of_its_model_is_refused(
    option: str, family: Family, private: Path, tmp_path: Path
) -> None:
    (family.a / "chat_template.jinja").symlink_to(private)
    wanted = str(family.a) if option == "tokenizer" else "auto"
    with pytest.raises(FormatError, match="is a link that leaves"):
        warmkit.merge([family.a, family.b], tmp_path / "out", init=family.init, **{option: wanted})  # type: ignore[arg-type]


def test_a_link_out_of_a_result_is_not_published(family: Family, private: Path, tmp_path: Path) -> None:
    out = warmkit.merge([family.a, family.b], tmp_path / "out", init=family.init).path
    (out / "notes.txt").symlink_to(private)
    with pytest.raises(CheckpointError, match=r"notes.txt: is a link that leaves the directory"):
        push(out, "owner/name")


def test_a_recipe_names_a_chat_template_beside_itself_or_in_a_model(family: Family, private: Path, run: Run) -> None:
    here = family.init.parent

    def merge(template: Path, name: str) -> str:
        recipe = f"merge: {{models: [{family.a}, {family.b}], method: lerp}}\noutput:\n  chat_template: {template}\n"
        (here / "recipes").mkdir(exist_ok=True)
        (here / "recipes" / "r.yaml").write_text(recipe)
        return run("merge", here / "recipes" / "r.yaml", "-o", name).stderr

    said = merge(private, "no")
    assert said.startswith(
        f"error: {here}/recipes/r.yaml:3: chat_template: {private} lies neither beside the recipe nor in a model"
    )
    assert not (here / "no").exists()
    for number, file in enumerate((here / "recipes" / "t.jinja", family.a / "t.jinja")):
        file.parent.mkdir(exist_ok=True)
        file.write_text("{{ 2 }}")
        assert f"note: chat_template: read from {file}, as the recipe says" in merge(file, f"out{number}")
        assert (here / f"out{number}" / "chat_template.jinja").read_text() == "{{ 2 }}"
    warmkit.merge([family.a, family.b], here / "own", method="lerp", chat_template=str(private))  # the caller's own words


def test_a_greedy_soup_of_a_directory_whose_name_is_a_command_runs_the_score_alone(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = [shutil.copytree(each, f"$(touch stray{number}) x") for number, each in enumerate(family.models[:2])]
    soup = warmkit.greedy_soup(named, "out", score='TOKEN=S3CRET cat "{}"/model.safetensors | wc -c')
    assert len(soup.scores) == 2
    assert not list(tmp_path.rglob("stray*"))
    assert json.loads(Path("out", "warmkit.json").read_text())["greedy"]["score"].startswith("TOKEN=[secret] cat")


def test_a_chat_template_that_the_result_would_lack_is_told(family: Family, tmp_path: Path) -> None:
    (family.b / "chat_template.jinja").write_text("{{ messages }}")
    models = [family.a, family.b]
    told = f"{family.init}, whose tokenizer the result gets, has no chat template, and {family.b} has"
    assert any(told in note for note in warmkit.merge(models, tmp_path / "out", init=family.init).notes)
    taken = warmkit.merge(models, tmp_path / "taken", init=family.init, chat_template="auto")
    assert (tmp_path / "taken" / "chat_template.jinja").read_text() == "{{ messages }}"
    (family.init / "chat_template.jinja").write_text("{{ 1 }}")
    own = warmkit.merge(models, tmp_path / "own", init=family.init)
    assert not any("chat template" in note for note in (*taken.notes, *own.notes))


def test_an_adapters_tokenizer_that_is_a_link_out_of_it_is_refused(private: Path, tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base")
    adapter = lora.adapter(tmp_path / "adapter", base, r=2, target_modules=["q_proj"])
    (adapter / "tokenizer_config.json").write_text("{}")
    (adapter / "chat_template.jinja").symlink_to(private)
    with pytest.raises(FormatError, match=r"adapter/chat_template.jinja: is a link that leaves the directory of its model"):
        warmkit.soup([f"{base}+{adapter}"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
