"""`warmkit demo`: what it prints and writes, of one seed and of several, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.evidence.made_up import demo_document
from warmkit.cli.app import app
from warmkit.evidence.demo import demo as module
from warmkit.evidence.demo.demo import Story


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["demo", *arguments])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, Path]]:
    """Tell made-up stories; return what was asked for."""
    asked: list[dict[int, Path]] = []

    def run(folders: dict[int, Path], *_: Any) -> list[Story]:
        asked.append(folders)
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return [Story(folder, demo_document(seed), {"sft": 1.5}) for seed, folder in folders.items()]

    monkeypatch.setattr(module, "run_demos", run)
    return asked


def test_one_seed_is_told_with_a_sentence_below_each_table(told: list[dict[int, Path]], tmp_path: Path) -> None:
    done = invoke("-o", str(tmp_path / "out"), "--seed", "3")
    assert (done.exit_code, told) == (0, [{3: tmp_path / "out"}])
    for each in ("Averaging made no difference", "of the swapped labels in the mean", "At the KL of the two policies"):
        assert each in done.stdout
    assert done.stdout.rstrip().endswith("report.html")
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["front.svg", "report.html"]


def test_several_seeds_are_told_by_their_spread(told: list[dict[int, Path]], tmp_path: Path) -> None:
    done = invoke("-o", str(tmp_path / "out"), "--seeds", "2")
    assert done.exit_code == 0
    assert told == [{0: tmp_path / "out" / "seed-0", 1: tmp_path / "out" / "seed-1"}]
    assert "WARM is above the mean of its members in 2 of 2 seeds" in done.stdout
    assert (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "out" / "seed-1" / "report.html").exists()


def test_json_holds_the_documents(told: list[dict[int, Path]], tmp_path: Path) -> None:
    one = json.loads(invoke("-o", str(tmp_path / "one"), "--json").stdout)
    assert one["reward_models"] == demo_document()["reward_models"]
    assert one["seconds"] == {"sft": 1.5}
    several = json.loads(invoke("-o", str(tmp_path / "two"), "--seeds", "2", "--json").stdout)
    assert [each["seed"] for each in several["seeds"]] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "said"), [([], "expected an empty directory or none"), (["--seeds", "2"], "which is of no seed")]
)
def test_a_folder_of_something_else_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "notes").write_text("mine")
    done = invoke("-o", str(tmp_path), *arguments)
    assert done.exit_code == 1
    assert said in " ".join(done.stderr.split())
    assert [each.name for each in tmp_path.iterdir()] == ["notes"]
