"""What runs of every kind look like on a page; the runs are real."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import warmkit
from tests.conftest import make_family
from tests.unit.training import tiny, toy
from warmkit.errors import DataError, WarmkitError
from warmkit.evidence.reports import EVIDENCE
from warmkit.pipelines.warm import run_warm
from warmkit.pipelines.warp import run_warp
from warmkit.report.chart import Chart
from warmkit.report.html_page import Badge, Grid, Page, Table
from warmkit.report.runs.open import KINDS, kind_of, report
from warmkit.report.runs.part import Part
from warmkit.report.runs.training import training
from warmkit.report.runs.working import is_going
from warmkit.training.policy import train_policy
from warmkit.training.policy_recipe import RewardTerm
from warmkit.training.recipe_sections import WarmRecipe, WarmSection
from warmkit.training.reward_modeling import train_reward_model
from warmkit.training.run import RunDirectory
from warmkit.training.run_identity import RunIdentity
from warmkit.training.warp_recipe import WarpRecipe, WarpSection

pytest.importorskip("altair")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("children_are_forks")

LENGTH = RewardTerm(function="tests.unit.training.toy:length", name="length")


def charts(page: Page | Part) -> dict[str, Chart]:
    blocks = [block for section in page.sections for block in section.blocks]
    found = [chart for block in blocks for chart in (block.charts if isinstance(block, Grid) else [block])]
    return {chart.title: chart for chart in found if isinstance(chart, Chart)}


def tables(page: Page | Part) -> list[Table]:
    return [block for section in page.sections for block in section.blocks if isinstance(block, Table)]


def cells(page: Page | Part) -> list[Any]:
    return [cell for table in tables(page) for row in table.rows for cell in row]


def values(chart: Chart, line: str) -> list[tuple[Any, Any]]:
    return [(row[chart.x], row[chart.y]) for row in chart.rows if row.get("line") == line and not row.get("each")]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of a policy, evaluated on the way."""
    folder = tmp_path_factory.mktemp("policies")
    runs: list[Path] = []
    for seed in (0, 1):
        recipe = toy.recipe(folder, f"run-{seed}", steps=4, evaluate_every=2, seed=seed)
        train_policy(replace(recipe, controls=[LENGTH]))
        runs.append(Path(recipe.output.path))
    return runs


@pytest.fixture
def policy(policies: Sequence[Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(policies[0], tmp_path / "run"))


def test_a_policy_shows_every_step_and_where_it_went(policy: Path) -> None:
    page, (part,) = report([policy])
    shown, known = charts(page), lines(policy)
    assert values(shown["Reward"], "training batches") == [(line["step"], line["reward"]) for line in known]
    evaluated = [line for line in known if "validation_reward" in line]
    assert values(shown["Reward"], "evaluation") == [(line["step"], line["validation_reward"]) for line in evaluated]
    path = [(line["validation_kl_sft"], line["validation_reward"]) for line in evaluated]
    assert [(row["kl_sft"], row["reward"]) for row in shown["Path of training: reward against the KL"].rows] == path
    assert {
        "Control length",
        "Entropy",
        "Length",
        "Learning rate",
        "Path of training: control length against the KL",
    } <= shown.keys()
    assert part.done
    assert Badge("done", "good") in cells(page)


def test_several_runs_share_their_charts(policies: Sequence[Path]) -> None:
    page, parts = report(policies)
    assert len(parts) == 1
    for name, run in zip(("run-0", "run-1"), policies):
        assert values(charts(page)["Reward"], name) == [(line["step"], line["reward"]) for line in lines(run)]
    assert [row[0] for row in tables(page)[0].rows] == ["run-0", "run-1"]


def test_a_run_of_one_name_is_told_from_its_namesake(policies: Sequence[Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(policies[0], tmp_path / "run-0"))
    first = charts(report([policies[0], other])[0])["Reward"]
    assert {row["line"] for row in first.rows} == {f"run-0 ({policies[0].parent.name})", f"run-0 ({tmp_path.name})"}


def test_a_cut_of_the_metrics_is_named_and_the_rest_shown(policy: Path) -> None:
    file = policy / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-40])
    page, (part,) = report([policy])
    assert part.notes == ["`metrics.jsonl`: line 4 is cut off; 3 steps are shown"]
    assert page.notes == part.notes
    assert len(charts(page)["Entropy"].rows) == 3 + 1  # and one evaluation


def test_a_run_without_a_summary_is_going_on_while_a_process_holds_it(policy: Path) -> None:
    (policy / "summary.json").unlink()
    stopped = training([policy])
    assert not stopped.done
    assert any("the same command goes on" in note for note in stopped.notes)
    assert Badge("stopped", "bad") in cells(stopped)
    identity = RunIdentity((policy / "identity.yaml").read_text())
    held = RunDirectory(policy, (policy / "recipe.yaml").read_text(), identity=identity)
    going = training([policy])
    assert Badge("going on", "open") in cells(going)
    assert not going.notes
    del held
    assert not is_going(policy)


def test_a_run_that_has_not_stepped_yet_is_a_run(policy: Path) -> None:
    for name in ("metrics.jsonl", "summary.json"):
        (policy / name).unlink()
    page, (part,) = report([policy])
    assert not part.done
    assert not charts(page)


def test_a_reward_model_shows_its_accuracies(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, "bert", steps=4)
    train_reward_model(recipe)
    run = Path(recipe.output.path)
    page, _ = report([run])
    summary = json.loads((run / "summary.json").read_text())
    assert {"Loss", "Accuracy", "Margin"} <= charts(page).keys()
    accuracies = next(table for table in tables(page) if table.caption == "Evaluation at the end")
    assert [(row[1], row[2]) for row in accuracies.rows] == [
        (name, each["pairs"]) for name, each in summary["evaluation"].items()
    ]


# ---- merges ---------------------------------------------------------------------------------------------------------


def test_a_merge_shows_angles_norms_and_coefficients_of_every_layer(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    result = warmkit.merge([family.a, family.b], tmp_path / "out", method="slerp", init=family.init)
    page, _ = report([tmp_path / "out"])
    shown = charts(page)
    angles = [group.angles[0][1] for group in result.groups if group.angles]
    assert {row["angle"] for row in shown["Angles between task vectors"].rows} == set(angles)
    norms = [norm for group in result.groups for norm in group.norms or []]
    assert sorted(row["norm"] for row in shown["Norms"].rows) == sorted(norms)
    coefficients = [share for group in result.groups for share in group.coefficients]
    assert sorted(row["coefficient"] for row in shown["Coefficients"].rows) == sorted(coefficients)
    order = list(dict.fromkeys(row["layer"] for row in shown["Norms"].rows))
    assert order == ["embed_tokens", "0", "1", "2", "norm", "lm_head"]
    assert Badge("sizes as recorded", "good") in cells(page)
    (tmp_path / "out" / "config.json").unlink()
    assert Badge("missing or of another size: config.json", "bad") in cells(report([tmp_path / "out"])[0])


def test_a_merge_of_many_models_shows_the_range_of_its_angles(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    models = [family.a, family.b, family.c, *(shutil.copytree(family.a, tmp_path / f"copy-{n}") for n in range(2))]
    warmkit.merge(models, tmp_path / "out", method="lerp", init=family.init)
    chart = charts(report([tmp_path / "out"])[0]).get("Angles between task vectors")
    if chart is not None:
        assert all(row["low"] <= row["angle"] <= row["high"] for row in chart.rows)


def test_a_sweep_over_eta_is_one_report(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    warmkit.merge([family.a, family.b], tmp_path / "out", method="slerp", init=family.init, eta=[0.3, 0.7])
    page, _ = report([tmp_path / "out"])
    assert "at eta 0.3, 0.7" in page.subtitle
    assert cells(page).count(Badge("sizes as recorded", "good")) == 2


# ---- pipelines ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_warm_shows_averages_individuals_and_runs(tmp_path: Path) -> None:
    base = tiny.recipe(tmp_path, "bert", "warm", steps=6, dropout=0.1, lr=3e-3)
    section = WarmSection(runs=2, jobs=1, orders=2, lr=[3e-3, 1e-3])
    summary = run_warm(WarmRecipe(base.model, base.data, base.output, base.rm, section)).summary
    folder = tmp_path / "warm"
    page, (part,) = report([folder])
    shown = charts(page)
    for data in summary["data"]:
        rows = [row for row in summary["accuracy"] if row["data"] == data]
        expected = [(row["m"], 100 * row["wa"]) for row in rows]
        assert values(shown[f"Accuracy on {data}"], "WA of M") == expected
    assert "Order of the members" in shown
    assert len(values(shown["Loss"], "run-1")) == 6
    assert part.kind == "WARM pipeline"
    assert part.done
    (folder / "summary.json").unlink()
    early, (part,) = report([folder])
    assert not part.done
    assert "2 of 2" in cells(early)
    assert "Loss" in charts(early)


@pytest.mark.slow
def test_warp_shows_its_fronts_iterations_and_paths(tmp_path: Path) -> None:
    base = toy.recipe(tmp_path, "warp", steps=4, lr=3e-3, evaluate_every=2)
    section = WarpSection(runs=2, iterations=1, jobs=1, eta=0.5, etas=[0.0, 0.5, 1.0], grid=2)
    content = WarpRecipe(base.model, base.data, [*base.rewards, LENGTH], base.output, base.policy, section)
    summary = run_warp(content).summary
    folder = tmp_path / "warp"
    page, (part,) = report([folder])
    front = charts(page)["Reward against the KL"]
    points = [(p["values"]["kl_sft"]["value"], p["values"]["reward"]["value"]) for p in summary["iterations"][0]["front"]]
    assert values(front, "iteration 1") == points
    assert {row["run"] for row in front.rows if "run" in row} == {"iteration-1/run-1", "iteration-1/run-2"}
    assert "Angles between task vectors" in charts(page)
    assert any(" against reward" in title for title in charts(page)), "rewarded soups"
    assert part.done
    shutil.rmtree(folder / "steps")
    (folder / "summary.json").unlink()
    early, (part,) = report([folder])
    assert not part.done
    assert "2 of 2" in cells(early)


# ---- what a path holds ----------------------------------------------------------------------------------------------


def test_several_kinds_make_one_page_with_a_part_each(policies: Sequence[Path], tmp_path: Path) -> None:
    family = make_family(tmp_path)
    warmkit.merge([family.a, family.b], tmp_path / "merged", method="lerp")
    page, parts = report([*policies, tmp_path / "merged"])
    assert [part.kind for part in parts] == ["merge", "training run"]
    assert page.title == "3 runs"
    levels = [section.level for section in page.sections]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert {"Reward", "Norms"} & charts(page).keys()


def test_what_is_no_run_is_refused_with_advice(policies: Sequence[Path], tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("")
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "broken.json").write_text("{")
    for path, said in (
        (tmp_path, "holds no run of warmkit; expected recipe.yaml"),
        (tmp_path / "none", "there is no such run"),
        (tmp_path / "data.csv", "expected a run's directory, or a JSON document"),
        (policies[0].parent, f"there are runs in it: {policies[0]}, {policies[1]}"),
        (policies[0] / "model", f"it is the model of one: give {policies[0]}"),
    ):
        with pytest.raises(DataError, match=said):
            kind_of(path)
    for name, said in (("other", "found the keys a"), ("list", "expected a JSON object"), ("broken", "expected JSON")):
        with pytest.raises(WarmkitError, match=said):
            report([tmp_path / f"{name}.json"])


def test_a_damaged_document_is_named(tmp_path: Path) -> None:
    (tmp_path / "lmc.json").write_text(json.dumps({"a": "A", "b": "B", "points": [{"data": "x"}]}))
    with pytest.raises(DataError, match=r"looks like a document of `warmkit lmc`, but .* is missing or wrong"):
        report([tmp_path / "lmc.json"])


def test_the_lock_is_not_taken_by_looking_at_it(policy: Path) -> None:
    before = os.stat(policy / "lock").st_mtime_ns
    assert not is_going(policy)
    assert os.stat(policy / "lock").st_mtime_ns == before


def test_a_demo_and_a_reproduction_are_told_by_their_documents(tmp_path: Path) -> None:
    for name, kind in (("demo.json", "demo"), ("reproduction.json", "reproduction")):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / name).write_text("{}")
        (folder / "recipe.yaml").write_text("policy: {}\n")
        assert kind_of(folder, [*EVIDENCE, *KINDS]).name == kind
