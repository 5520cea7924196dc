"""The demo tells its story once, goes on after a kill where it was, and its page shows what it found."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests import forks
from tests.unit.evidence.conftest import TINY
from warmkit.errors import OutputError
from warmkit.evaluation.ranking_pairs import FEW
from warmkit.evidence.demo.demo import (
    ETAS,
    MEMBERS,
    DemoSettings,
    HeartSection,
    Plan,
    Story,
    folders_of,
    run_demos,
    tasks_of,
)

pytestmark = pytest.mark.usefixtures("children_are_forks")

ROOT = Path(__file__).parents[4]
SETTINGS = DemoSettings(
    replace(TINY, reward_models=replace(TINY.reward_models, lr=[1e-2, 7e-3, 1.4e-2])),
    HeartSection(models=2, pairs=20, steps=4),
    saved=2,
)
KILLED = """
import os, signal, sys
from pathlib import Path
from warmkit.training.run import RunDirectory
from tests.unit.evidence.demo.test_demo import told

log = RunDirectory.log

def killed(run, values):
    if run.path.name == "policy-1" and values["step"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    log(run, values)

RunDirectory.log = killed
told(Path(sys.argv[1]))
"""


def told(folder: Path, seed: int = 0, settings: DemoSettings = SETTINGS) -> Story:
    return run_demos({seed: folder}, settings=settings, jobs=0)[0]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return told(tmp_path_factory.mktemp("demo") / "told")


def test_members_best_single_mean_average_and_ensembles_are_compared(story: Story) -> None:
    rows = {row["model"]: row for row in story.document["reward_models"]}
    runs = [f"run-{number + 1}" for number in range(MEMBERS)]
    assert list(rows) == [
        "probe only", *runs, "best single", "mean of the members", "WARM", "ensemble", "ensemble of all",
    ]  # fmt: skip
    assert all(0 <= row[data] <= 1 for row in rows.values() for data in ("ranking", "validation", "ood"))
    assert [row["models"] for row in rows.values()] == [1] * 10 + [3, 6]
    assert {**rows["best single"], "model": story.document["best"]} == rows[story.document["best"]]
    assert rows["best single"]["ranking"] == max(rows[run]["ranking"] for run in runs)
    members = [rows[name]["validation"] for name in story.document["members"]]
    assert rows["mean of the members"]["validation"] == pytest.approx(sum(members) / 3)


def test_differences_are_those_of_the_rows_within_their_intervals(story: Story) -> None:
    document = story.document
    rows = {row["model"]: row["validation"] for row in document["reward_models"]}
    assert list(document["differences"]) == [
        "WARM, mean of the members", "WARM, best single", "WARM, probe only", "ensemble, WARM", "ensemble of all, WARM",
    ]  # fmt: skip
    for name, found in document["differences"].items():
        first, second = name.split(", ")
        assert found["value"] == pytest.approx(rows[first] - rows[second])
        assert found["low"] <= found["value"] <= found["high"]
    memorised = {row["model"]: row for row in document["memorised"]}
    for data, found in document["memorised_differences"].items():
        assert found["value"] == pytest.approx(memorised["WARM"][data] - memorised["ensemble"][data])


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
    rows = story.document["memorised"]
    assert [row["model"] for row in rows] == ["run-1", "run-2", "mean of the members", "WARM", "ensemble"]
    assert all(0 <= row["train corrupt"] <= 1 for row in rows)
    assert story.document["memorised_pairs"] == 5


def test_the_policy_without_an_anchor_differs_in_nothing_else(story: Story) -> None:
    held, free = (
        (story.path / "policies" / name / "recipe.yaml").read_text().splitlines() for name in ("policy-1", "no-anchor")
    )
    assert {line.split(":")[0].strip() for line in set(held) ^ set(free)} == {"anchor", "path"}  # where it lies


def test_the_ends_of_the_front_are_the_sft_model_and_the_merge(story: Story) -> None:
    rows = {row["policy"]: row for row in story.document["policies"]}
    assert list(rows) == ["SFT", "policy 1", "policy 2", "no anchor", "SLERP", "LITI 0.3"]
    front = {point["at"]: point for point in story.document["points"] if point["line"] == "SLERP and LITI"}
    assert tuple(front) == ETAS
    assert front[0.0]["kl"] == rows["SFT"]["kl"] == pytest.approx(0, abs=1e-6)  # rounding: a token at a time
    assert front[1.0]["gold"] == rows["SLERP"]["gold"]
    assert all(sum(row["golds"]) / len(row["golds"]) == pytest.approx(row["gold"]) for row in rows.values())


def test_a_trajectory_goes_from_the_sft_model_to_its_end(story: Story) -> None:
    for name in ("policy 1", "no anchor"):
        points = [point for point in story.document["points"] if point["line"] == name]
        assert [point["at"] for point in points] == [0, *TINY.warp_policies.steps_to_watch()]
        assert points[0]["gold"] == story.document["policies"][0]["gold"]


def test_every_policy_answers_the_same_prompts(story: Story) -> None:
    asked = {
        name: [row["prompt"] for row in story.document["examples"] if row["policy"] == name] for name in ("SFT", "no anchor")
    }
    assert asked["SFT"] == asked["no anchor"]
    assert len(set(asked["SFT"])) == 2


def test_the_merges_on_disk_are_the_engines(story: Story) -> None:
    manifest = json.loads((story.path / "merged" / "liti" / "warmkit.json").read_text())
    assert (manifest["method"], manifest["parameters"]["eta"], len(manifest["models"])) == ("slerp", 0.3, 2)
    assert json.loads((story.path / "merged" / "warm" / "warmkit.json").read_text())["method"] == "uniform"


def test_told_again_it_is_the_same_and_nothing_is_done(story: Story) -> None:
    again = told(story.path)
    assert (again.document, again.seconds) == (story.document, {})


def test_processes_find_the_same_numbers(story: Story, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    (shared,) = run_demos({0: tmp_path / "out"}, advance=lambda *call: calls.append(call), settings=SETTINGS, jobs=2)
    assert shared.document == story.document
    assert sum(done for done, _ in calls) == calls[0][1]
    assert sorted(shared.seconds) == sorted(story.seconds)


def test_a_demo_killed_inside_of_a_policy_goes_on_at_its_step(story: Story, tmp_path: Path) -> None:
    folder, run = tmp_path / "out", tmp_path / "out" / "policies" / "policy-1"
    done = forks.run([sys.executable, "-c", KILLED, str(folder)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    saved = (run / "metrics.jsonl").read_bytes().splitlines()
    assert (len(saved), (run / "state.pt").exists(), (run / "model").exists()) == (2, True, False)
    assert told(folder).document == story.document
    assert (run / "metrics.jsonl").read_bytes().splitlines()[:2] == saved  # with the times that these steps took


def test_every_task_comes_after_what_it_needs() -> None:
    tasks = tasks_of(Plan(Path("demo"), 0, SETTINGS))
    for place, task in enumerate(tasks):
        assert {*task.after} <= {each.name for each in tasks[:place]}


@pytest.mark.parametrize("name", ["a file", "a full directory"])
def test_a_taken_output_is_refused_before_training(tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").write_text("mine")
    (tmp_path / "a full directory").mkdir()
    (tmp_path / "a full directory" / "notes").write_text("mine")
    with pytest.raises(OutputError, match=f"{name}: expected an empty directory or none; choose another -o"):
        told(tmp_path / name)


def test_another_seed_or_size_is_refused_where_one_was_told(story: Story) -> None:
    with pytest.raises(OutputError, match="holds a demo of another seed than 1; choose another -o"):
        told(story.path, seed=1)
    with pytest.raises(OutputError, match="holds a demo of other settings; choose another -o"):
        told(story.path, settings=replace(SETTINGS, saved=3))


def test_several_seeds_lie_side_by_side(story: Story, tmp_path: Path) -> None:
    folders = folders_of(tmp_path / "out", range(2))
    assert folders == {0: tmp_path / "out" / "seed-0", 1: tmp_path / "out" / "seed-1"}
    shutil.copytree(story.path, folders[0])  # told already
    both = run_demos(folders, settings=SETTINGS, jobs=0)
    assert [each.document["seed"] for each in both] == [0, 1]
    assert (both[0].document, both[0].seconds) == (story.document, {})
    assert both[1].document["points"] != story.document["points"]
    assert sorted(both[1].seconds) == sorted(story.seconds)
    assert folders_of(tmp_path / "out", range(3))  # one more goes beside them
    assert folders_of(tmp_path / "alone", [4]) == {4: tmp_path / "alone"}


def test_several_seeds_do_not_go_into_the_folder_of_one(story: Story) -> None:
    with pytest.raises(OutputError, match="which is of no seed; choose another -o"):
        folders_of(story.path, range(2))
