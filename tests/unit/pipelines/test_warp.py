"""WARP end to end: killed in every stage and run again, what it leaves, and what it refuses."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import warmkit
from tests import forks
from tests.unit.pipelines.changed import disturb, kept
from tests.unit.training import tiny, toy
from warmkit.cli.app import app
from warmkit.errors import ChangedError, MismatchError, OutputError, TrainingError, UsageError
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.pipelines.policy_runs import run_recipes
from warmkit.pipelines.warp import WarpResult, run_warp
from warmkit.recipes.recipe import read_recipe, recipe_text
from warmkit.training.warp_recipe import Variation, WarpRecipe, WarpSection

pytestmark = pytest.mark.usefixtures("children_are_forks")
STEPS = 30


def recipe(folder: Path, name: str = "warp", **warp: Any) -> WarpRecipe:
    base = toy.recipe(folder, name, steps=STEPS, lr=3e-3, mu=0.1, save_every=5, evaluate_every=10)
    section: dict[str, Any] = {"jobs": 1, "eta": 0.5, "etas": [0.0, 0.5, 1.0], "final_eta": 0.8, **warp}
    return WarpRecipe(base.model, base.data, base.rewards, base.output, base.policy, WarpSection(**section))


def written(content: WarpRecipe) -> Path:
    file = Path(content.output.path + ".yaml")
    file.write_text(recipe_text(content))
    return file


def elsewhere(content: WarpRecipe, name: str, **warp: Any) -> WarpRecipe:
    path = str(Path(content.output.path).with_name(name))
    return replace(content, output=replace(content.output, path=path), warp=replace(content.warp, **warp))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[WarpRecipe, WarpResult]:
    """A pipeline that nothing interrupted."""
    content = recipe(tmp_path_factory.mktemp("warp"))
    return content, run_warp(content)


def run_path(content: WarpRecipe, iteration: int, run: int) -> Path:
    return Path(content.output.path) / f"iteration-{iteration}" / "runs" / f"run-{run}"


def weights(path: Path | str) -> dict[str, torch.Tensor]:
    return {name: each.double() for name, each in tiny.tensors(Path(path)).items()}


# ---- interrupted ----------------------------------------------------------------------------------------------------


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "the second run of the first iteration": lambda out: lines(out / "iteration-1/runs/run-2/metrics.jsonl") > 7,
    "the end of the runs": lambda out: (out / "iteration-1/runs/run-2/summary.json").exists(),
    "the first merge": lambda out: (out / "iteration-1/init").exists(),
    "the first front": lambda out: (out / "steps/iteration-1-init.json").exists(),
    "the second iteration": lambda out: lines(out / "iteration-2/runs/run-1/metrics.jsonl") > 12,
    "the last merge": lambda out: (out / "iteration-2/merged").exists(),
    "the final model": lambda out: (out / "model").exists(),
    "the last front": lambda out: (out / "steps/final.json").exists(),
}


def results(content: WarpRecipe) -> dict[str, bytes]:
    """Return the bytes of every model, and what every step found, by path."""
    out = Path(content.output.path)
    files = [file for file in out.rglob("*.safetensors") if ".partial" not in str(file)]
    models = {str(file.relative_to(out)): file.read_bytes() for file in files}
    found = {file.name: json.loads(file.read_text())["result"] for file in (out / "steps").iterdir()}
    return models | {name: json.dumps(each).replace(str(out), "").encode() for name, each in found.items()}


@pytest.mark.slow
def test_killed_in_every_stage_it_goes_on_to_the_same_bytes(whole: tuple[WarpRecipe, WarpResult]) -> None:
    complete, _ = whole
    content = elsewhere(complete, "killed")
    out, command = Path(content.output.path), [sys.executable, "-m", "warmkit", "warp", str(written(content)), "--quiet"]
    finished: dict[Path, int] = {}
    killed: list[str] = []
    for moment, reached in MOMENTS.items():
        if reached(out):
            continue  # the kill before came a little late
        process = forks.Popen(command)
        while not reached(out):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed.append(moment)
        finished |= {file: file.stat().st_mtime_ns for file in out.rglob("runs/*/summary.json") if file not in finished}
    assert not (out / "summary.json").exists(), "killed too late"
    assert len(killed) >= 6, killed
    run_warp(content)
    assert results(content) == results(complete)
    assert {file: file.stat().st_mtime_ns for file in finished} == finished, "a finished run was run again"


def test_a_finished_pipeline_does_nothing_again(whole: tuple[WarpRecipe, WarpResult], monkeypatch: pytest.MonkeyPatch) -> None:
    content, result = whole
    for name in ("pipelines.processes._Process", "pipelines.warp.merge", "pipelines.warp.liti", "pipelines.warp.PolicyTrial"):
        monkeypatch.setattr(f"warmkit.{name}", lambda *_, **__: pytest.fail("done again"))
    assert run_warp(content).summary == result.summary
    assert repr(result) == f"<WarpResult path: {result.path}, iterations: 2>"


def test_other_controls_or_prompts_evaluate_the_fronts_again_and_repeat_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = recipe(tmp_path, iterations=1, runs=1, etas=[0.0, 1.0])
    before = run_warp(content).summary["front"]
    for name in ("pipelines.processes._Process", "pipelines.warp.merge", "pipelines.warp.liti"):
        monkeypatch.setattr(f"warmkit.{name}", lambda *_, **__: pytest.fail("done again"))
    controlled = replace(content, controls=[RewardTerm(function="tests.unit.training.toy:length")])
    (start, end), (old_start, old_end) = run_warp(controlled).summary["front"], before
    assert {name: each for name, each in start["values"].items() if name != "control_length"} == old_start["values"]
    assert end["values"]["reward"] == old_end["values"]["reward"]
    assert end["values"]["control_length"]["value"] > 0
    tiny.write(Path(str(content.data.validation)), [{"prompt": text} for text in tiny.sentences(5, seed=10)])
    others = run_warp(controlled).summary["front"]
    assert others[1]["values"]["kl_sft"] != end["values"]["kl_sft"]
    monkeypatch.setattr("warmkit.pipelines.warp.PolicyTrial", lambda *_: pytest.fail("done again"))
    assert run_warp(controlled).summary["front"] == others


# ---- what it leaves -------------------------------------------------------------------------------------------------


def test_every_part_of_the_work_is_named_where_stderr_is_no_terminal(
    whole: tuple[WarpRecipe, WarpResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warmkit.cli.narrator.FIRST", 0.0)
    done = CliRunner().invoke(app, ["warp", str(written(whole[0]))])
    assert done.exit_code == 0, done.output
    begun = [line.partition(":")[0] for line in done.stderr.splitlines() if line.endswith(": begins")]
    parts = [[f"training iteration {i} of 2", f"merging iteration {i}", f"evaluating iteration {i}"] for i in (1, 2)]
    assert begun == ["training", *parts[0], *parts[1], "evaluating the last merge"]


def test_it_is_algorithm_1(whole: tuple[WarpRecipe, WarpResult], tmp_path: Path) -> None:
    content, result = whole
    out, sft = Path(content.output.path), weights(content.model.path)
    first = [str(run_path(content, 1, m) / "model") for m in (1, 2)]
    warmkit.merge(first, tmp_path / "slerp", init=content.model.path)
    slerp = weights(tmp_path / "slerp")
    init = weights(out / "iteration-1/init")
    for name, start in sft.items():
        torch.testing.assert_close(init[name], 0.5 * start + 0.5 * slerp[name], atol=1e-6, rtol=1e-5)
    second = [str(run_path(content, 2, m) / "model") for m in (1, 2)]
    warmkit.merge(second, tmp_path / "last", init=out / "iteration-1/init")
    assert tiny.bytes_of(tmp_path / "last") == tiny.bytes_of(out / "iteration-2/merged")
    last, model = weights(tmp_path / "last"), weights(result.path)
    for name, start in sft.items():
        torch.testing.assert_close(model[name], 0.2 * start + 0.8 * last[name], atol=1e-6, rtol=1e-5)


def test_runs_start_from_the_merge_before_and_report_the_kl_to_the_sft_model(whole: tuple[WarpRecipe, WarpResult]) -> None:
    content, _ = whole
    out = Path(content.output.path)
    runs = {name: each for i, init in ((1, "sft"), (2, "init")) for name, each in run_recipes(content, i, init).items()}
    assert [each.model.path for each in runs.values()] == ["sft", "sft", "init", "init"]
    assert {each.model.sft for each in runs.values()} == {content.model.path}
    assert len({each.policy.order for each in runs.values()}) == 4
    assert len({each.policy.seed for each in runs.values()}) == 4
    starts = [json.loads((run_path(content, i, 1) / "metrics.jsonl").read_text().splitlines()[0]) for i in (1, 2)]
    assert starts[0]["kl_sft"] == pytest.approx(0, abs=1e-5)
    assert starts[1]["kl_sft"] > 0.01
    assert starts[1]["kl_anchor"] == pytest.approx(0, abs=1e-5), "the moving average starts at the iteration's init"
    assert (out / "front.png").stat().st_size > 10_000


def values(point: dict[str, Any]) -> dict[str, float]:
    return {name: each["value"] for name, each in point["values"].items()}


def test_fronts_lead_from_the_init_to_the_merge(whole: tuple[WarpRecipe, WarpResult]) -> None:
    _, result = whole
    first, second = (each["front"] for each in result.summary["iterations"])
    assert first[0]["values"]["kl_sft"]["value"] == pytest.approx(0, abs=1e-5)
    kl = [point["values"]["kl_sft"]["value"] for point in first]
    assert kl == sorted(kl)
    assert values(second[0]) == pytest.approx(values(first[1])), "eta 0 of the second is eta 0.5 of the first"
    towards_sft = result.summary["front"]
    assert towards_sft[0]["values"]["kl_sft"]["value"] == pytest.approx(0, abs=1e-5)
    assert values(towards_sft[-1]) == pytest.approx(values(second[-1]))


def test_every_merge_is_held_against_its_policies(whole: tuple[WarpRecipe, WarpResult]) -> None:
    _, result = whole
    for iteration in result.summary["iterations"]:
        gain = iteration["gain"]
        assert list(gain["rewards"]) == list(iteration["policies"])
        assert gain["merge"]["value"] == pytest.approx(iteration["front"][-1]["values"]["reward"]["value"])
        mean = sum(each["value"] for each in gain["rewards"].values()) / 2
        assert gain["gain"]["value"] == pytest.approx(gain["merge"]["value"] - mean)


def test_more_iterations_go_on_from_a_finished_pipeline(tmp_path: Path) -> None:
    content = recipe(tmp_path, iterations=1)
    run_warp(content)
    before = (run_path(content, 1, 1) / "summary.json").stat().st_mtime_ns
    more = replace(content, warp=replace(content.warp, iterations=2))
    run_warp(more)
    assert (run_path(content, 1, 1) / "summary.json").stat().st_mtime_ns == before
    straight = elsewhere(more, "straight")
    run_warp(straight)
    assert tiny.bytes_of(Path(more.output.path) / "model") == tiny.bytes_of(Path(straight.output.path) / "model")


def test_the_first_iteration_can_be_finished_policies(whole: tuple[WarpRecipe, WarpResult]) -> None:
    content, result = whole
    policies = [str(run_path(content, 1, m) / "model") for m in (1, 2)]
    again = elsewhere(content, "from-policies", policies=policies)
    ended = run_warp(again)
    assert not (Path(again.output.path) / "iteration-1/runs").exists()
    assert tiny.bytes_of(ended.path) == tiny.bytes_of(result.path)


def test_rewarded_soups_train_on_different_rewards_and_mix_the_policies(tmp_path: Path) -> None:
    e, long = toy.E, RewardTerm(function="tests.unit.training.toy:length", weight=0.2)
    content = recipe(tmp_path, iterations=1, method="lerp", grid=4, vary=[Variation(rewards=[e]), Variation(rewards=[long])])
    content = replace(content, rewards=[e, long])
    summary = run_warp(content).summary
    soups = summary["soups"]
    assert [point["coefficients"] for point in soups] == [[1.0, 0.0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.0, 1.0]]
    assert set(soups[0]["values"]) >= {"reward_count_e", "reward_length"}
    runs = [json.loads((run_path(content, 1, m) / "summary.json").read_text()) for m in (1, 2)]
    assert set(runs[0]) >= {"validation_reward_count_e"}
    assert "validation_reward_length" not in runs[0]
    assert soups[0]["values"]["reward_count_e"]["value"] > soups[-1]["values"]["reward_count_e"]["value"]
    assert (Path(content.output.path) / "soups.png").stat().st_size > 10_000


def test_one_run_an_iteration_is_liti_alone(tmp_path: Path) -> None:
    content = recipe(tmp_path, iterations=1, runs=1, final_eta=1.0, etas=[])
    result = run_warp(content)
    assert tiny.bytes_of(result.path) == tiny.bytes_of(run_path(content, 1, 1) / "model")


def test_runs_differ_as_the_recipe_says(tmp_path: Path) -> None:
    content = recipe(tmp_path, runs=3, steps=[30, 20], vary=[Variation(beta=0.5), Variation(lr=1.0, mu=0.9)])
    first, second = (list(run_recipes(content, i, "init").values()) for i in (1, 2))
    assert [each.policy.beta for each in first] == [0.5, 0.1, 0.5]
    assert [each.policy.lr for each in first] == [3e-3, 1.0, 3e-3]
    assert [each.policy.mu for each in first] == [0.1, 0.9, 0.1]
    assert ({each.policy.steps for each in first}, {each.policy.steps for each in second}) == ({30}, {20})


# ---- what was changed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["iteration-1/runs/run-2/model", "iteration-1/init", "iteration-2/merged", "model"])
def test_what_was_changed_after_it_was_finished_is_not_merged(place: str, whole: tuple[WarpRecipe, WarpResult]) -> None:
    content, result = whole
    model, before = Path(content.output.path) / place, tiny.bytes_of(result.path)
    with kept(model):
        disturb(model)
        with pytest.raises(ChangedError, match=f"{place}: was changed after it was finished"):
            run_warp(content)
    assert run_warp(content).summary == result.summary
    assert tiny.bytes_of(result.path) == before


def test_the_start_of_a_pipeline_must_be_what_it_was(whole: tuple[WarpRecipe, WarpResult]) -> None:
    content, _ = whole
    base = Path(content.model.path)
    with kept(base):
        disturb(base)
        with pytest.raises(ChangedError, match=r"holds a run that began with another model\.path"):
            run_warp(content)


def test_a_finished_policy_that_another_took_the_place_of_is_not_merged(whole: tuple[WarpRecipe, WarpResult]) -> None:
    content, _ = whole
    run = run_path(content, 2, 1)
    with kept(run):
        shutil.rmtree(run)
        shutil.copytree(run_path(content, 2, 2), run)
        with pytest.raises(OutputError, match=r"run-1: holds a run of another recipe or of other data"):
            run_warp(content)


def test_a_merge_that_is_gone_is_made_again(whole: tuple[WarpRecipe, WarpResult]) -> None:
    content, result = whole
    before = tiny.bytes_of(result.path)
    shutil.rmtree(result.path)
    run_warp(content)
    assert tiny.bytes_of(result.path) == before


def test_finished_policies_must_be_what_their_runs_left(whole: tuple[WarpRecipe, WarpResult], tmp_path: Path) -> None:
    complete, _ = whole
    models = [run_path(complete, 1, m) / "model" for m in (1, 2)]
    content = elsewhere(complete, "given", policies=list(map(str, models)), iterations=1, etas=[])
    with kept(models[0]):
        disturb(models[0])
        with pytest.raises(ChangedError, match=r"run-1/model: was changed after it was finished"):
            run_warp(content)


# ---- what fails -----------------------------------------------------------------------------------------------------


def test_a_run_that_fails_is_reported_the_others_are_kept_and_it_can_be_left_out(tmp_path: Path) -> None:
    broken = Variation(rewards=[RewardTerm(function="tests.unit.training.toy:broken")])
    content = recipe(tmp_path, iterations=1, vary=[Variation(), broken], etas=[])
    with pytest.raises(TrainingError, match=r"(?s)1 of 2 runs failed.*warp\.exclude=\[iteration-1/run-2\].*KeyError") as caught:
        run_warp(content)
    assert "gold" in str(caught.value)
    before = (run_path(content, 1, 1) / "summary.json").stat().st_mtime_ns
    result = run_warp(replace(content, warp=replace(content.warp, exclude=["iteration-1/run-2"], final_eta=1.0)))
    assert (run_path(content, 1, 1) / "summary.json").stat().st_mtime_ns == before
    assert tiny.bytes_of(result.path) == tiny.bytes_of(run_path(content, 1, 1) / "model")


def test_leaving_out_a_run_that_a_later_iteration_started_from_is_refused(whole: tuple[WarpRecipe, WarpResult]) -> None:
    content, result = whole
    before = tiny.bytes_of(result.path)
    with pytest.raises(UsageError, match=r"iteration-2: started from a merge of other policies"):
        run_warp(replace(content, warp=replace(content.warp, exclude=["iteration-1/run-2"])))
    assert tiny.bytes_of(result.path) == before


@pytest.mark.parametrize(
    ("warp", "message"),
    [
        ({"exclude": ["iteration-1/run-3"]}, r"no run is called 'iteration-1/run-3'.*run-"),
        ({"exclude": ["iteration-2/run-1", "iteration-2/run-2"]}, "leaves no run of iteration 2"),
        ({"policies": []}, "at least one finished policy"),
        ({"etas": [0.5, 1.0, 0.5]}, r"warp\.etas: expected different etas, found \[0\.5, 1\.0, 0\.5\]"),
        ({"etas": [0.5, float("nan")]}, r"warp\.etas: eta must be a finite number, found nan"),
        ({"runs": 1, "grid": 2}, r"warp\.grid mixes the policies of the last iteration: expected at least 2, found 1"),
        ({"exclude": ["iteration-2/run-1"], "grid": 2}, r"warp\.grid .* expected at least 2, found 1"),
        ({"policies": ["a"], "iterations": 1, "grid": 2}, r"warp\.grid .* expected at least 2, found 1"),
    ],
)
def test_what_cannot_work_is_refused_before_training(warp: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        run_warp(recipe(tmp_path, **warp))
    assert not (tmp_path / "warp").exists()


def test_fronts_need_validation_prompts(tmp_path: Path) -> None:
    content = recipe(tmp_path)
    content = replace(content, data=replace(content.data, validation=None))
    with pytest.raises(UsageError, match=r"data\.validation.*warp\.etas: \[\]"):
        run_warp(content)


def test_policies_of_another_architecture_are_refused_before_training(tmp_path: Path) -> None:
    other = str(tiny.model("gpt2", tmp_path / "other"))
    with pytest.raises(MismatchError):
        run_warp(recipe(tmp_path, policies=[other]))
    assert not (tmp_path / "warp").exists()


def test_another_recipe_in_the_same_place_needs_force(whole: tuple[WarpRecipe, WarpResult]) -> None:
    content, _ = whole
    with pytest.raises(OutputError, match="another recipe"):
        run_warp(replace(content, warp=replace(content.warp, eta=0.25)))


def test_a_recipe_says_what_does_not_go_together(tmp_path: Path) -> None:
    text = recipe_text(recipe(tmp_path))
    file = tmp_path / "warp.yaml"
    for old, new, message in (
        ("iterations: 2", "iterations: 2\n  steps: [1, 2, 3]", "at most one number an iteration, 2, found 3"),
        ("vary: []", "vary: [{lr: 1}, {lr: 2}, {lr: 3}]", "at most one entry a run, 2, found 3"),
        ("vary: []", "vary: [{temperature: 1}]", r"unknown key 'warp.vary\[0\].temperature'"),
    ):
        file.write_text(text.replace(old, new))
        done = CliRunner().invoke(app, ["warp", str(file)])
        assert done.exit_code == 2
        assert message.replace("\\", "") in done.output


def test_a_dry_run_shows_every_run_and_trains_nothing(tmp_path: Path) -> None:
    content = recipe(tmp_path, steps=[30, 20])
    done = CliRunner().invoke(app, ["warp", str(written(content)), "--dry-run"])
    assert done.exit_code == 0
    for name in ("iteration-1/run-1", "iteration-1/run-2", "iteration-2/run-1", "iteration-2/run-2", "100 steps in all"):
        assert name in done.output
    assert not Path(content.output.path).exists()


def test_a_recipe_is_written_and_read_back(tmp_path: Path) -> None:
    content = recipe(tmp_path, vary=[Variation(lr=0.5), Variation(rewards=[toy.E])])
    assert read_recipe(written(content), WarpRecipe).content == content
