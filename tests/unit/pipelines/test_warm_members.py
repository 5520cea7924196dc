"""`warm` with finished members: reward models that TRL trained are scored as there, chosen, averaged, and told in a report."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import warmkit
from warmkit.cli.app import app
from warmkit.data.preferences import read_pairs
from warmkit.errors import ChangedError, MismatchError, OutputError, UsageError
from warmkit.evaluation.ranking_pairs import halves
from warmkit.pipelines.warm_members import average_members
from warmkit.recipes.recipe import recipe_text
from warmkit.report.runs.warm import warm
from warmkit.training.recipe_sections import HeldOutSection, MembersRecipe, MembersSection, RunOutput

HOME = Path(__file__).parents[2] / "data" / "trl_reward_models"
NAMES = ("llama-chats", "llama-chats-2", "llama-lora-1")


def recipe(folder: Path, **warm: Any) -> MembersRecipe:
    """Return a recipe over copies of three models of TRL, the last an adapter with its head, and rows that TRL scored."""
    for name in ("llama-base", *NAMES):
        shutil.copytree(HOME / name, folder / name)
    paths = [str(folder / name) for name in NAMES[:2]] + [f"{folder / 'llama-base'}+{folder / NAMES[2]}"]
    data = HeldOutSection(str(folder / NAMES[0] / "rows.jsonl"))
    return MembersRecipe(data, RunOutput(str(folder / "out")), MembersSection(members=paths, orders=1, **warm))


def kept(content: MembersRecipe, name: str, data: str) -> np.ndarray[Any, Any]:
    """Return the rewards of chosen and rejected answers that the pipeline kept of a model."""
    (file,) = Path(content.output.path, "evaluation").glob(f"{name} {data} *.npz")
    found = np.load(file)
    return np.stack([found["chosen"], found["rejected"]])


@pytest.mark.parametrize("rows", NAMES)
def test_members_score_as_in_trl(rows: str, tmp_path: Path) -> None:
    content = recipe(tmp_path, final="all")
    content = replace(content, data=HeldOutSection(str(HOME / rows / "rows.jsonl")))
    average_members(content)
    theirs = json.loads((HOME / rows / "scores.json").read_text())
    expected = np.array([theirs["chosen"], theirs["rejected"]])
    ranking, rest = halves(read_pairs(content.data.validation))
    assert kept(content, rows, "ranking") == pytest.approx(expected[:, ranking], abs=1e-5)
    assert kept(content, rows, "validation") == pytest.approx(expected[:, rest], abs=1e-5)


def test_the_final_model_is_the_soup_of_the_chosen(tmp_path: Path) -> None:
    content = recipe(tmp_path, final="top", m=2)
    result = average_members(content)
    chosen = result.summary["final"]["members"]
    assert len(chosen) == 2
    members = dict(zip(NAMES, content.warm.members))
    warmkit.soup([members[name] for name in chosen], tmp_path / "soup")
    ours, soup = (warmkit.open_checkpoint(str(each)) for each in (result.path, tmp_path / "soup"))
    assert all(torch.equal(ours[name].load(), soup[name].load()) for name in soup)
    assert "probe only" not in result.summary["individuals"]
    assert repr(result).startswith(
        f"<WarmResult path: {result.path}, of: 3, average of: [{chosen[0]}, {chosen[1]}], validation: "
    )
    assert "<th" in result._repr_html_()


def test_it_goes_on_with_the_same_models_and_another_choice(tmp_path: Path) -> None:
    content = recipe(tmp_path)
    average_members(content)
    before = {each: each.stat().st_mtime_ns for each in (tmp_path / "out" / "evaluation").iterdir()}
    summary = average_members(replace(content, warm=replace(content.warm, final="all"))).summary
    assert sorted(summary["final"]["members"]) == sorted(NAMES)
    assert {each: each.stat().st_mtime_ns for each in before} == before, "nothing was scored twice"


def test_one_alone_may_be_the_final_model(tmp_path: Path) -> None:
    content = recipe(tmp_path, m=1)
    result = average_members(content)
    (best,) = result.summary["final"]["members"]
    ours, alone = (warmkit.open_checkpoint(str(each)) for each in (result.path, tmp_path / best))
    assert all(torch.equal(ours[name].load(), alone[name].load()) for name in alone)


def test_another_pool_and_a_changed_member_are_refused(tmp_path: Path) -> None:
    content = recipe(tmp_path)
    average_members(content)
    with pytest.raises(OutputError, match="another recipe"):
        average_members(replace(content, warm=replace(content.warm, members=content.warm.members[:2])))
    shutil.copy(tmp_path / NAMES[1] / "model.safetensors", tmp_path / NAMES[0] / "model.safetensors")
    with pytest.raises(ChangedError, match=r"warm\.members"):
        average_members(content)
    average_members(content, force=True)


def test_models_that_read_a_text_otherwise_are_refused(tmp_path: Path) -> None:
    content = recipe(tmp_path)
    template = tmp_path / NAMES[1] / "chat_template.jinja"
    template.write_text(template.read_text() + "{{ 'no' }}")
    with pytest.raises(MismatchError, match="reads validation as other tokens"):
        average_members(content)
    assert not (tmp_path / "out").exists(), "nothing was written"


@pytest.mark.parametrize(
    ("warm", "message"),
    [
        ({"members": ["a"]}, "at least 2 members, found 1"),
        ({"m": 4}, "at least 4 members, found 3"),
        ({"final": "all", "m": 2}, "m is the number"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(warm: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MembersSection(**{"members": ["a", "b", "c"], **warm})


def test_the_command_takes_members_from_the_recipe_and_refuses_what_would_train(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(recipe_text(recipe(tmp_path)))
    dry = CliRunner().invoke(app, ["warm", str(file), "--dry-run", "--json"])
    document = json.loads(dry.stdout)
    assert (list(document["models"]), document["ranking"] + document["validation"]) == (list(NAMES), 12)
    refused = CliRunner().invoke(app, ["warm", str(file), "--set", "rm.lr=1e-5"])
    assert refused.exit_code != 0
    assert "rm.lr means nothing beside warm.members" in refused.stderr
    done = CliRunner().invoke(app, ["warm", str(file)])
    assert done.exit_code == 0, done.stderr
    assert "Models, best first" in done.stdout
    assert "probe only" not in done.stdout


def test_the_report_shows_the_pool(tmp_path: Path) -> None:
    average_members(recipe(tmp_path))
    part = warm(tmp_path / "out")
    assert part.subtitle.startswith("WARM: weight average of 3 reward models")
    assert not [section.title for section in part.sections if "runs" in section.title]
