"""The demo tells its story once, goes on after an interrupt, and its page shows what it found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.reproduction.conftest import TINY
from warmkit.errors import OutputError
from warmkit.evaluation.ranking_pairs import FEW
from warmkit.reproduction.claims.warm_corruption import Settings
from warmkit.reproduction.demo import ETAS, MEMBERS, Story, run_demo
from warmkit.reproduction.demo_page import page_of

pytestmark = pytest.mark.usefixtures("children_are_forks")

SETTINGS = replace(TINY, reward_models=replace(TINY.reward_models, lr=[1e-2, 7e-3, 1.4e-2]))
HOW: dict[str, Any] = {"settings": SETTINGS, "memorising": Settings(models=2, pairs=20, steps=4)}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return run_demo(tmp_path_factory.mktemp("demo") / "told", **HOW)


def test_six_reward_models_their_average_and_their_ensemble_are_compared(story: Story) -> None:
    rows = {row["model"]: row for row in story.document["reward_models"]}
    assert list(rows) == ["probe only", *[f"run-{number + 1}" for number in range(MEMBERS)], "WARM", "ensemble"]
    assert all(0 <= row[data] <= 100 for row in rows.values() for data in ("ranking", "validation", "ood"))


def test_warm_is_the_average_of_the_best_half_and_is_measured_on_other_pairs(story: Story) -> None:
    document = story.document
    rows = [row for row in document["reward_models"] if row["model"].startswith("run-")]
    best = sorted(rows, key=lambda row: -row["ranking"])[: MEMBERS // 2]
    assert len(document["members"]) == len(best) == 3
    assert min(row["ranking"] for row in rows if row["model"] in document["members"]) == best[-1]["ranking"]
    manifest = json.loads((story.path / "merged" / "warm" / "warmkit.json").read_text())
    assert len(manifest["models"]) == 3
    measured = document["measured"]
    assert sum(measured.values()) == TINY.reward_models.held_out
    assert [note.startswith(f"{measured['ranking']} pairs rank") for note in document["notes"]] == [True]
    assert measured["ranking"] < FEW


def test_what_is_memorised_is_told_of_models_that_learned_by_heart(story: Story) -> None:
    assert [row["model"] for row in story.document["memorised"]] == ["run-1", "run-2", "WARM", "ensemble"]
    assert all(0 <= row["train corrupt"] <= 100 for row in story.document["memorised"])


def test_the_policy_without_an_anchor_differs_in_nothing_else(story: Story) -> None:
    held, free = (
        (story.path / "policies" / name / "recipe.yaml").read_text().splitlines() for name in ("policy-1", "no-anchor")
    )
    assert {line.split(":")[0].strip() for line in set(held) ^ set(free)} == {"anchor", "beta", "path"}


def test_the_ends_of_the_front_are_the_sft_model_and_the_merge(story: Story) -> None:
    rows = {row["policy"]: row for row in story.document["policies"]}
    assert list(rows) == ["SFT", "policy 1", "policy 2", "no anchor", "SLERP", "LITI 0.3"]
    front = {point["at"]: point for point in story.document["points"] if point["line"] == "SLERP and LITI"}
    assert tuple(front) == ETAS
    assert front[0.0]["kl"] == rows["SFT"]["kl"] == pytest.approx(0, abs=1e-6)  # rounding: a token at a time
    assert front[1.0]["gold"] == rows["SLERP"]["gold"]
    assert {each["policy"] for each in story.document["examples"]} == {"SFT", "no anchor", "LITI 0.3"}


def test_the_merges_on_disk_are_the_engines(story: Story) -> None:
    manifest = json.loads((story.path / "merged" / "liti" / "warmkit.json").read_text())
    assert (manifest["method"], manifest["parameters"]["eta"], len(manifest["models"])) == ("slerp", 0.3, 2)
    assert json.loads((story.path / "merged" / "warm" / "warmkit.json").read_text())["method"] == "uniform"


def test_told_again_it_is_the_same_and_nothing_is_trained(story: Story) -> None:
    runs = {file: file.stat().st_mtime_ns for file in story.path.rglob("model.safetensors")}
    assert run_demo(story.path, **HOW).document == story.document
    assert {file: file.stat().st_mtime_ns for file in story.path.rglob("model.safetensors")} == runs


def test_an_interrupted_demo_goes_on_to_the_same_end(story: Story, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if (tmp_path / "out" / "merged" / "warm").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path / "out", advance=interrupt, **HOW)
    assert not (tmp_path / "out" / "demo.json").exists()
    assert run_demo(tmp_path / "out", **HOW).document == story.document


def test_progress_reaches_its_total(tmp_path: Path, story: Story) -> None:
    calls: list[tuple[int, int]] = []
    run_demo(story.path, advance=lambda done, total: calls.append((done, total)), **HOW)
    assert {total for _, total in calls} == {sum(done for done, _ in calls)}


@pytest.mark.parametrize("name", ["a file", "a full directory"])
def test_a_taken_output_is_refused_before_training(tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").write_text("mine")
    (tmp_path / "a full directory").mkdir()
    (tmp_path / "a full directory" / "notes").write_text("mine")
    with pytest.raises(OutputError, match=f"{name}: expected an empty directory or none; choose another -o"):
        run_demo(tmp_path / name, **HOW)


def test_another_seed_is_refused_where_one_was_told(story: Story) -> None:
    with pytest.raises(OutputError, match="holds a demo of another seed than 1; choose another -o"):
        run_demo(story.path, seed=1, **HOW)


def test_the_page_has_its_parts(story: Story) -> None:
    titles = [section.title for section in page_of(story.document).sections]
    assert titles == ["Reward models: WARM", "Swapped labels: what is memorised", "Policies: WARP", "What they say"]
