"""WARM and WARP of runs by command: killed and run again, with runs that fail, scored by a command, and what is refused."""

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
from typer.testing import CliRunner

import warmkit
from tests import forks
from tests.unit.training import tiny, toy
from warmkit.cli.app import app
from warmkit.engine.contents import record_of
from warmkit.errors import ChangedError, ScoreError, TrainingError, UsageError
from warmkit.pipelines.warm import WarmResult
from warmkit.pipelines.warm_commands import run_recipes, run_warm_commands
from warmkit.pipelines.warp import WarpResult
from warmkit.pipelines.warp_commands import run_recipes as warp_runs
from warmkit.pipelines.warp_commands import run_warp_commands
from warmkit.recipes.recipe import read_recipe, recipe_text
from warmkit.report.runs.warm import warm
from warmkit.report.runs.warp import warp
from warmkit.training.command_recipe import (
    CommandSection,
    CommandWarmRecipe,
    CommandWarpRecipe,
    HeldOutPrompts,
    InitSection,
    PoolDataSection,
    SamplingSection,
)
from warmkit.training.policy_recipe import PolicyModelSection
from warmkit.training.recipe_sections import RunOutput, RunsSection
from warmkit.training.warp_recipe import IterationsSection

pytestmark = pytest.mark.usefixtures("children_are_forks")
TRAINER = Path(__file__).parent / "programs" / "trainer.py"
TRAIN = f"{sys.executable} {TRAINER} --init {{init}} --output {{output}} --seed {{seed}} --lr {{lr}}"
GRID: dict[str, Any] = {"lr": [0.005, 0.01]}
SIZE = f"{sys.executable} -c 'import sys, safetensors.numpy as s; print(abs(s.load_file(sys.argv[1])[\"{{}}\"]).sum())'"


def size_of(name: str) -> str:
    """Return a command that prints how large one tensor of a model is."""
    return SIZE.format(name) + " {model}/model.safetensors"


def warm_recipe(folder: Path, name: str = "warm", line: str = TRAIN, **how: Any) -> CommandWarmRecipe:
    if not (folder / "train.jsonl").exists():
        tiny.write(folder / "train.jsonl", tiny.rows(24))
        tiny.write(folder / "validation.jsonl", tiny.rows(120, seed=50))
    init = str(tiny.model("llama", folder / "llama"))
    data = PoolDataSection(str(folder / "validation.jsonl"), train=str(folder / "train.jsonl"))
    if "evaluate" in how:
        data = PoolDataSection()
    section: dict[str, Any] = {"runs": 2, "jobs": 1, "orders": 1, "final": "all", **how.pop("warm", {})}
    command: dict[str, Any] = {"grid": GRID, **how}
    out = RunOutput(str(folder / name))
    return CommandWarmRecipe(InitSection(init), out, CommandSection(line, **command), data, RunsSection(**section))


def warp_recipe(folder: Path, name: str = "warp", line: str = TRAIN, **how: Any) -> CommandWarpRecipe:
    base = toy.recipe(folder)
    section: dict[str, Any] = {"jobs": 1, "eta": 0.5, "etas": [0.0, 1.0], "final_eta": 0.8, **how.pop("warp", {})}
    command: dict[str, Any] = {"grid": GRID, **how}
    return CommandWarpRecipe(
        PolicyModelSection(base.model.path, pad_token=base.model.pad_token),
        RunOutput(str(folder / name)),
        CommandSection(line, **command),
        HeldOutPrompts(base.data.validation),
        [toy.E],
        sampling=SamplingSection(max_new_tokens=4, precision="float32"),
        warp=IterationsSection(**section),
    )


def written(content: CommandWarmRecipe | CommandWarpRecipe) -> Path:
    file = Path(content.output.path + ".yaml")
    file.write_text(recipe_text(content))
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[CommandWarmRecipe, WarmResult]:
    """WARM of two runs that nothing interrupted."""
    content = warm_recipe(tmp_path_factory.mktemp("warm"))
    return content, run_warm_commands(content)


@pytest.fixture(scope="module")
def iterated(tmp_path_factory: pytest.TempPathFactory) -> tuple[CommandWarpRecipe, WarpResult]:
    """WARP of two iterations that nothing interrupted, its models scored."""
    content = warp_recipe(tmp_path_factory.mktemp("warp"), evaluate=size_of("model.norm.weight"))
    return content, run_warp_commands(content)


def out(content: CommandWarmRecipe | CommandWarpRecipe) -> Path:
    return Path(content.output.path)


def starts(run: Path) -> int:
    """Return how often the program of a run was started."""
    return sum(line.startswith("$ ") for line in (run / "log.txt").read_text().splitlines())


# ---- WARM -----------------------------------------------------------------------------------------------------------


def test_the_final_model_is_the_soup_of_what_the_commands_left(
    whole: tuple[CommandWarmRecipe, WarmResult], tmp_path: Path
) -> None:
    content, result = whole
    left = [out(content) / f"runs/run-{number}/output/checkpoint-2" for number in (1, 2)]
    warmkit.soup(left, tmp_path / "soup")
    assert tiny.bytes_of(result.path) == tiny.bytes_of(tmp_path / "soup")
    warmkit.verify(result.path)
    assert {each["lr"] for each in result.summary["runs"]} == {0.005, 0.01}
    assert "probe only" in result.summary["individuals"]
    probe = str(out(content) / "probe" / "model")
    assert {each.model.path for each in run_recipes(content, out(content)).values()} == {probe}


def test_a_finished_pipeline_starts_nothing_again(
    whole: tuple[CommandWarmRecipe, WarmResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, result = whole
    monkeypatch.setattr("warmkit.pipelines.processes._Process", lambda *_: pytest.fail("started again"))
    again = run_warm_commands(replace(content, command=replace(content.command, limit="1h"))).summary
    assert again["final"] == result.summary["final"]


def test_a_killed_pipeline_goes_on_to_the_same_bytes_and_repeats_no_finished_run(
    whole: tuple[CommandWarmRecipe, WarmResult],
) -> None:
    complete, result = whole
    slow = complete.command.run + " --seconds $WARMKIT_SECONDS"
    content = replace(
        complete,
        output=RunOutput(complete.output.path + "-killed"),
        command=replace(complete.command, run=f"WARMKIT_SECONDS=$(cat {complete.output.path}-seconds); {slow}"),
    )
    pace, second = Path(complete.output.path + "-seconds"), out(content) / "runs/run-2"
    pace.write_text("1.5")
    process = forks.Popen([sys.executable, "-m", "warmkit", "warm", str(written(content)), "--quiet"])
    while not (second / "output/checkpoint-1").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    program = int((second / "log.txt").read_text().split("process ")[1].split()[0])
    deadline = time.monotonic() + 10
    while Path(f"/proc/{program}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{program}").exists(), "a program outlived its pipeline"
    assert not (second / "summary.json").exists(), "killed too late"
    pace.write_text("0")
    again = run_warm_commands(content)
    assert [starts(out(content) / "runs" / name) for name in ("run-1", "run-2")] == [1, 2]
    assert tiny.bytes_of(again.path) == tiny.bytes_of(result.path)


def test_a_run_that_fails_is_told_and_left_out(whole: tuple[CommandWarmRecipe, WarmResult], tmp_path: Path) -> None:
    line = f'test {{member}} != 2 || {{{{ echo "no memory" >&2; exit 9; }}}}; {TRAIN}'
    content = warm_recipe(tmp_path, line=line, warm={"runs": 3})
    with pytest.raises(TrainingError) as error:
        run_warm_commands(content)
    told = str(error.value).splitlines()
    assert told[0].startswith("1 of 3 runs failed; the others are finished and stay.")
    assert "--set 'warm.exclude=[run-2]'" in told[0]
    log = out(content) / "runs/run-2/log.txt"
    assert told[1].strip() == f"run-2: the command exited with 9; the end of {log}: no memory (exit 1)"
    done = run_warm_commands(replace(content, warm=replace(content.warm, exclude=["run-2"])))
    assert sorted(done.summary["final"]["members"]) == ["run-1", "run-3"]
    assert [starts(out(content) / "runs" / name) for name in ("run-1", "run-2", "run-3")] == [1, 1, 1]


def test_every_run_has_gpus_and_threads_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    line = f"echo $CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS > {{output}}/seen; {TRAIN} --seconds 0.5"
    content = warm_recipe(tmp_path, line=line, gpus=2, cpus=3, evaluate=size_of("model.norm.weight"), warm={"jobs": 2})
    run_warm_commands(content)
    seen = {(out(content) / f"runs/run-{number}/output/seen").read_text() for number in (1, 2)}
    assert seen == {"4,5 3\n", "6,7 3\n"}


def test_members_with_equal_weights_are_refused(tmp_path: Path) -> None:
    content = warm_recipe(tmp_path, line=TRAIN.replace("{seed}", "0"), grid={"lr": [0.01]})
    with pytest.raises(TrainingError, match=r"run-1 and run-2 left the same weights: does the command use \{seed\}"):
        run_warm_commands(content)


def test_a_member_that_was_changed_is_refused(tmp_path: Path) -> None:
    content = warm_recipe(tmp_path)
    run_warm_commands(content)
    model = out(content) / "runs/run-1/model"
    assert record_of(model).exists()
    weights = tiny.tensors(model)
    (model / "model.safetensors").unlink()
    from safetensors.torch import save_file

    save_file({name: each * 2 for name, each in weights.items()}, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(ChangedError, match=r"run-1/model: was changed after it was finished"):
        run_warm_commands(content)


def test_the_report_shows_the_runs(whole: tuple[CommandWarmRecipe, WarmResult]) -> None:
    content, _ = whole
    part = warm(out(content))
    said = str(part.sections)
    assert part.done
    assert "learning rate" in said
    assert "2 of 2" in said


# ---- a command that prints a number -----------------------------------------------------------------------------------


@pytest.mark.parametrize("final", ["all", "best", "greedy"])
def test_a_score_command_ranks_and_chooses(final: str, tmp_path: Path) -> None:
    line = f"echo once >> {tmp_path}/scored; {size_of('model.norm.weight')}"
    content = warm_recipe(tmp_path, evaluate=line, warm={"runs": 3, "final": final})
    summary = run_warm_commands(content).summary
    models = {name: out(content) / "runs" / name / "model" for name in ("run-1", "run-2", "run-3")}
    expected = {name: float(tiny.tensors(path)["model.norm.weight"].abs().sum()) for name, path in models.items()}
    alone = summary["scores"]["individuals"]
    assert alone == pytest.approx(expected, rel=1e-5)
    ranked = sorted(expected, key=lambda name: -expected[name])
    assert [each["name"] for each in summary["runs"]] == ranked
    if final == "best":
        best = max(summary["scores"]["tried"], key=lambda each: each["score"])
        assert summary["final"]["members"] == best["members"]
        assert len(summary["scores"]["tried"]) == 3
    if final == "greedy":
        assert summary["final"]["members"][0] == ranked[0]
        assert all(each["score"] < alone[ranked[0]] for each in summary["scores"]["tried"]) == (
            summary["final"]["members"] == ranked[:1]
        )
    assert summary["final"]["score"] == pytest.approx(
        float(tiny.tensors(out(content) / "model")["model.norm.weight"].abs().sum()), rel=1e-5
    )
    before = (tmp_path / "scored").read_text()
    assert run_warm_commands(content).summary == summary
    assert (tmp_path / "scored").read_text() == before, "scored twice"
    assert "its score" in str(warm(out(content)).sections)


@pytest.mark.parametrize(
    ("line", "said"), [("echo great {model}", "expected a number"), ("echo {model}; echo nan", "must be finite")]
)
def test_a_score_that_is_no_number_keeps_the_runs(line: str, said: str, tmp_path: Path) -> None:
    content = warm_recipe(tmp_path, evaluate=line)
    with pytest.raises(ScoreError, match=said):
        run_warm_commands(content)
    mended = replace(content, command=replace(content.command, evaluate=size_of("model.norm.weight")))
    run_warm_commands(mended)
    assert starts(out(content) / "runs/run-1") == 1


# ---- WARP -----------------------------------------------------------------------------------------------------------


def test_the_second_iteration_starts_from_the_merge_of_the_first(
    iterated: tuple[CommandWarpRecipe, WarpResult], tmp_path: Path
) -> None:
    content, result = iterated
    first, second = out(content) / "iteration-1", out(content) / "iteration-2"
    members = [first / f"runs/run-{m}/output/checkpoint-2" for m in (1, 2)]
    warmkit.merge(members, tmp_path / "init", init=content.model.path, method="slerp", eta=0.5)
    assert tiny.bytes_of(first / "init") == tiny.bytes_of(tmp_path / "init")
    log = (second / "runs/run-1/log.txt").read_text()
    assert f"--init {first / 'init'} --output {second / 'runs/run-1/output'} --seed 2 --lr 0.005" in log
    warmkit.liti(second / "merged", tmp_path / "model", init=content.model.path, eta=0.8)
    assert tiny.bytes_of(result.path) == tiny.bytes_of(tmp_path / "model")
    (front,) = [each["front"] for each in result.summary["iterations"][1:]]
    assert [point["eta"] for point in front] == [0.0, 1.0]
    assert result.summary["iterations"][0]["gain"]["prompts"] == 5


def test_policies_and_merges_are_scored_by_a_command(iterated: tuple[CommandWarpRecipe, WarpResult]) -> None:
    content, result = iterated
    first = result.summary["iterations"][0]["scores"]
    assert list(first) == ["iteration-1/run-1", "iteration-1/run-2", "iteration-1/init"]
    merged = tiny.tensors(out(content) / "iteration-1" / "init")["model.norm.weight"]
    assert first["iteration-1/init"] == pytest.approx(float(merged.abs().sum()), rel=1e-5)
    assert list(result.summary["scores"]) == ["sft", "final"]
    shown = CliRunner().invoke(app, ["warp", str(written(content))])
    assert "iteration-2/merged" in shown.output, shown.output
    assert "Scores of the command" in str(warp(out(content)).sections)


def test_iterations_can_be_added_and_nothing_is_repeated(iterated: tuple[CommandWarpRecipe, WarpResult]) -> None:
    content, _ = iterated
    more = replace(content, warp=replace(content.warp, iterations=3, etas=[]), output=RunOutput(content.output.path + "-more"))
    shutil.copytree(out(content), out(more))
    for file in out(more).rglob("*.*"):
        if file.suffix in (".yaml", ".json") and content.output.path in file.read_text():
            file.write_text(file.read_text().replace(content.output.path, more.output.path))
    run_warp_commands(more)
    homes = [out(more) / f"iteration-{i}/runs/run-1" for i in (1, 2, 3)]
    assert [starts(home) for home in homes] == [1, 1, 1]


def test_the_reward_the_anchor_and_the_iteration_reach_the_command(tmp_path: Path) -> None:
    content = warp_recipe(tmp_path, line="x {reward} {anchor} {iteration} {output}", anchor="sft", grid={})
    with pytest.raises(UsageError, match=r"unknown placeholder \{reward\}"):
        run_warp_commands(content)
    content = replace(content, rewards=[replace(toy.E, function=None, model="rm")])
    values = [each.command.values for each in warp_runs(content, 2, "merged").values()]
    assert [each["member"] for each in values] == [1, 2]
    assert {(each["reward"], each["anchor"], each["iteration"]) for each in values} == {("rm", content.model.path, 2)}
    content = replace(content, command=replace(content.command, anchor="init"))
    assert {each.command.values["anchor"] for each in warp_runs(content, 2, "merged").values()} == {"merged"}


def test_without_rewards_no_front_is_evaluated(tmp_path: Path) -> None:
    content = replace(warp_recipe(tmp_path, warp={"iterations": 1}), rewards=[], data=HeldOutPrompts())
    summary = run_warp_commands(content).summary
    assert summary["front"] == []
    assert summary["iterations"][0]["mean_angle"] > 60


# ---- what is refused before anything is started ---------------------------------------------------------------------

MISTAKES: dict[str, tuple[Callable[[str], str], str]] = {
    "a section of our own training": (lambda text: text + "rm:\n  lr: 1.0\n", "rm means nothing beside command"),
    "an unknown placeholder": (
        lambda text: text.replace("{seed}", "{sede}"),
        "unknown placeholder {sede}; did you mean 'seed'?",
    ),
    "a grid of one value": (lambda text: text.replace("lr:\n    - 0.005\n    - 0.01", "lr: 0.1"), "expected a list of numbers"),
    "a grid over what is given": (
        lambda text: text.replace("    lr:\n", "    init:\n"),
        "'init' is a placeholder that warmkit",
    ),
    "a time without sense": (lambda text: text.replace("take: last", "limit: soon"), "expected a time such as 90s, 30min, 2h"),
    "a checkpoint without sense": (lambda text: text.replace("take: last", "take: first"), "expected last, best or the number"),
    "nothing to rank by": (lambda text: text.replace("  validation:", "  ood:"), "data.validation or command.evaluate"),
    "a model without a head": (lambda text: text.replace("  train:", "  ood:"), "has no reward head, so that every run would"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_recipe_is_one_line(mistake: str, whole: tuple[CommandWarmRecipe, WarmResult], tmp_path: Path) -> None:
    change, expected = MISTAKES[mistake]
    content = replace(whole[0], output=RunOutput(str(tmp_path / "out")))
    file = written(content)
    file.write_text(change(file.read_text()))
    done = CliRunner().invoke(app, ["warm", str(file)])
    assert done.exit_code == 2, done.output
    assert expected in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_connected_needs_pairs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"warm\.final: connected needs data\.validation"):
        run_warm_commands(warm_recipe(tmp_path, evaluate="echo 1 {model}", warm={"final": "connected"}))


def test_the_plan_shows_what_every_run_is_given(
    whole: tuple[CommandWarmRecipe, WarmResult], iterated: tuple[CommandWarpRecipe, WarpResult]
) -> None:
    done = CliRunner().invoke(app, ["warm", str(written(whole[0])), "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert {each["command"]["values"]["lr"] for each in document["runs"].values()} == {0.005, 0.01}
    assert document["ranking"] + document["validation"] == 120
    done = CliRunner().invoke(app, ["warp", str(written(iterated[0])), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "iteration-2/run-2" in done.stdout


def test_a_recipe_is_read_back_as_it_was_written(whole: tuple[CommandWarmRecipe, WarmResult]) -> None:
    content, _ = whole
    assert read_recipe(written(content), CommandWarmRecipe).content == content
