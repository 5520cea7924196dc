"""WARM end to end: killed and run again, with runs that fail, and what it concludes."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import warmkit
from tests import forks
from tests.unit.evaluation.test_partners import turn
from tests.unit.pipelines.changed import disturb, kept
from tests.unit.training import tiny
from warmkit.cli.app import app
from warmkit.data.preferences import read_pairs
from warmkit.engine.contents import record_of, write_contents
from warmkit.errors import ChangedError, DataError, MismatchError, OutputError, TrainingError, UsageError
from warmkit.evaluation.ranking_pairs import FEW, halves
from warmkit.modeling.reward_model import load_scorer
from warmkit.pipelines.warm import WarmResult, run_recipes, run_warm
from warmkit.recipes.recipe import read_recipe, recipe_text
from warmkit.report.runs.warm import warm
from warmkit.training.recipe_sections import WarmRecipe, WarmSection

pytestmark = pytest.mark.usefixtures("children_are_forks")
STEPS = 60


def recipe(folder: Path, name: str = "warm", **warm: Any) -> WarmRecipe:
    base = tiny.recipe(folder, "bert", name, steps=STEPS, save_every=5, dropout=0.1, lr=3e-3)
    section: dict[str, Any] = {"runs": 2, "jobs": 1, "orders": 2, "lr": [3e-3, 1e-3], **warm}
    return WarmRecipe(base.model, base.data, base.output, base.rm, WarmSection(**section))


def written(content: WarmRecipe) -> Path:
    file = Path(content.output.path + ".yaml")
    file.write_text(recipe_text(content))
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[WarmRecipe, WarmResult]:
    """A pipeline that nothing interrupted."""
    content = recipe(tmp_path_factory.mktemp("warm"))
    return content, run_warm(content)


def run_path(content: WarmRecipe, name: str) -> Path:
    return Path(content.output.path) / "runs" / name


def timeless(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary as JSON has it, without what a clock says."""
    return {key: value for key, value in json.loads(json.dumps(summary)).items() if key != "cost"}


# ---- interrupted ----------------------------------------------------------------------------------------------------


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_killed_pipeline_goes_on_to_the_same_bytes_and_repeats_no_finished_run(whole: tuple[WarmRecipe, WarmResult]) -> None:
    complete, result = whole
    content = replace(complete, output=replace(complete.output, path=complete.output.path + "-killed"))
    process = forks.Popen([sys.executable, "-m", "warmkit", "warm", str(written(content)), "--quiet"])
    metrics = run_path(content, "run-2") / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 7:
        assert process.poll() is None
        time.sleep(0.002)
    jobs = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert jobs
    deadline = time.monotonic() + 10
    while any(map(alive, jobs)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, jobs)), "a job outlived its pipeline, and would write beside the next"
    assert not (run_path(content, "run-2") / "summary.json").exists(), "killed too late"
    finished = (run_path(content, "run-1") / "summary.json").stat().st_mtime_ns

    run_warm(content)
    assert (run_path(content, "run-1") / "summary.json").stat().st_mtime_ns == finished
    for name in ("run-1", "run-2"):
        assert tiny.bytes_of(run_path(content, name) / "model") == tiny.bytes_of(run_path(complete, name) / "model")
    assert tiny.bytes_of(Path(content.output.path) / "model") == tiny.bytes_of(result.path)


def test_a_finished_pipeline_trains_nothing_again(
    whole: tuple[WarmRecipe, WarmResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warmkit.pipelines.processes._Process", lambda *_: pytest.fail("trained again"))
    content, result = whole
    assert timeless(run_warm(content).summary) == timeless(result.summary)


def test_every_part_of_the_work_is_named_where_stderr_is_no_terminal(
    whole: tuple[WarmRecipe, WarmResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warmkit.cli.narrator.FIRST", 0.0)
    done = CliRunner().invoke(app, ["warm", str(written(whole[0]))])
    assert done.exit_code == 0, done.output
    begun = [line.partition(":")[0] for line in done.stderr.splitlines() if line.endswith(": begins")]
    assert begun == ["fine-tuning", "probing", "fine-tuning", "averaging"]


# ---- what it leaves and concludes -----------------------------------------------------------------------------------


def test_the_final_model_is_the_soup_of_the_runs(whole: tuple[WarmRecipe, WarmResult], tmp_path: Path) -> None:
    content, result = whole
    assert sorted(result.summary["final"]["members"]) == ["run-1", "run-2"]
    warmkit.soup([run_path(content, name) / "model" for name in ("run-1", "run-2")], tmp_path / "soup")
    pairs = [(each["prompt"], each["chosen"]) for each in tiny.rows(5)]
    assert load_scorer(result.path).score(pairs) == load_scorer(tmp_path / "soup").score(pairs)
    warmkit.verify(result.path)


def test_the_runs_start_from_one_head_and_end_apart(whole: tuple[WarmRecipe, WarmResult]) -> None:
    content, _ = whole
    probe = Path(content.output.path) / "probe" / "model"
    recipes = run_recipes(content, Path(content.output.path))
    assert {Path(each.model.head or "") for each in recipes.values()} == {probe}
    ends = [tiny.tensors(run_path(content, name) / "model") for name in recipes]
    start = tiny.tensors(probe)
    same = [name for name in start if torch.equal(ends[0][name], ends[1][name]) or torch.equal(ends[0][name], start[name])]
    assert same == ["classifier.bias"]


def test_the_grid_is_used_up_before_it_is_repeated_and_every_run_has_its_own_order(tmp_path: Path) -> None:
    content = recipe(tmp_path, runs=6, lr=[1e-3, 1e-4], dropout=[0.0, 0.1])
    runs = list(run_recipes(content, tmp_path).values())
    cells = [(each.rm.lr, each.rm.dropout) for each in runs]
    assert len(set(cells[:4])) == 4
    assert cells[4:] == cells[:2]
    assert len({each.rm.order for each in runs}) == len({each.rm.seed for each in runs}) == 6
    assert run_recipes(content, tmp_path) == dict(zip(run_recipes(content, tmp_path), runs))


def test_the_summary_compares_averages_ensembles_and_individuals(whole: tuple[WarmRecipe, WarmResult]) -> None:
    content, result = whole
    summary = json.loads((Path(content.output.path) / "summary.json").read_text())
    assert timeless(summary) == timeless(result.summary)
    rows = [row for row in summary["accuracy"] if row["data"] == "validation"]
    assert [row["m"] for row in rows] == [1, 2]
    assert rows[0]["wa"] == rows[0]["ens"] == rows[0]["individual"]
    ranked = [run["name"] for run in summary["runs"]]
    validation = [summary["individuals"][name]["validation"]["accuracy"] for name in ranked]
    assert rows[0]["wa"] == validation[0]
    assert summary["final"]["validation"]["accuracy"] == rows[-1]["wa"]
    assert all(summary["agreement"][name][name] == 1 for name in ranked)
    assert len(summary["orders"]["random"]) == 2
    assert max(validation) > rows[0]["probe"]


def test_the_pairs_that_rank_the_runs_are_not_those_that_say_what_the_average_is_worth(
    whole: tuple[WarmRecipe, WarmResult],
) -> None:
    content, result = whole
    summary = result.summary
    ranking, rest = halves(read_pairs(content.data.validation or ""))
    assert (summary["data"]["ranking"]["pairs"], summary["data"]["validation"]["pairs"]) == (len(ranking), len(rest))
    accuracies = [summary["individuals"][run["name"]]["ranking"]["accuracy"] for run in summary["runs"]]
    assert accuracies == sorted(accuracies, reverse=True)
    pairs = read_pairs(content.data.validation or "")
    scorer = load_scorer(result.path)
    won = [scorer.score([(str(p.prompt), str(p.chosen)), (str(p.prompt), str(p.rejected))]) for p in (pairs[n] for n in rest)]
    assert summary["final"]["validation"]["accuracy"] == sum(a >= b for a, b in won) / len(rest)


def test_few_pairs_are_told_and_no_run_is_called_bad_by_them(whole: tuple[WarmRecipe, WarmResult]) -> None:
    summary = whole[1].summary
    ranking = summary["data"]["ranking"]["pairs"]
    assert ranking < FEW
    assert summary["notes"][0].startswith(f"{ranking} pairs rank the runs, too few: ")
    assert summary["partners"]["bad"] == {}
    assert not summary["partners"]["enough"]


def test_another_conclusion_is_drawn_from_the_same_runs(
    whole: tuple[WarmRecipe, WarmResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warmkit.pipelines.processes._Process", lambda *_: pytest.fail("trained again"))
    content, result = whole
    try:
        top = run_warm(replace(content, warm=replace(content.warm, final="top", m=1)))
        best = result.summary["runs"][0]["name"]
        assert top.summary["final"]["members"] == [best]
        assert tiny.bytes_of(top.path) == tiny.bytes_of(run_path(content, best) / "model")
        greedy = run_warm(replace(content, warm=replace(content.warm, final="greedy"))).summary
        assert greedy["final"]["members"] == greedy["greedy"]["members"]
        best_m = run_warm(replace(content, warm=replace(content.warm, final="best"))).summary
        rows = [row["wa"] for row in best_m["accuracy"] if row["data"] == "ranking"]
        assert len(best_m["final"]["members"]) == rows.index(max(rows)) + 1
        everyone = run_warm(replace(content, warm=replace(content.warm, final="all"))).summary["final"]
        assert (everyone["choice"], sorted(everyone["members"]), everyone["left_out"]) == ("all", ["run-1", "run-2"], [])
    finally:
        run_warm(content)
    assert sorted(json.loads((result.path.parent / "summary.json").read_text())["final"]["members"]) == ["run-1", "run-2"]


# ---- members that were changed ----------------------------------------------------------------------------------------


def test_a_finished_run_whose_model_was_changed_is_not_averaged(whole: tuple[WarmRecipe, WarmResult]) -> None:
    content, result = whole
    model, before = run_path(content, "run-1") / "model", tiny.bytes_of(result.path)
    with kept(model):
        disturb(model)
        with pytest.raises(
            ChangedError, match=r"run-1/model: was changed after it was finished: model\.safetensors has another"
        ):
            run_warm(content)
    with kept(model):
        (model / "config.json").write_text((model / "config.json").read_text() + " ")
        with pytest.raises(ChangedError, match=r"run-1/model: was changed after it was finished: config\.json has another"):
            run_warm(content)
    assert tiny.bytes_of(result.path) == before
    run_warm(content)  # the models are what they were, though not the files


def test_a_finished_run_that_another_took_the_place_of_is_not_averaged(whole: tuple[WarmRecipe, WarmResult]) -> None:
    content, _ = whole
    run = run_path(content, "run-1")
    with kept(run):
        shutil.rmtree(run)
        shutil.copytree(run_path(content, "run-2"), run)
        with pytest.raises(OutputError, match=r"run-1: holds a run of another recipe .*; put back what was there, or delete "):
            run_warm(content)


def test_the_head_of_finished_runs_must_be_what_it_was(whole: tuple[WarmRecipe, WarmResult]) -> None:
    content, _ = whole
    probe = Path(content.output.path) / "probe" / "model"
    with kept(probe, record_of(probe)):
        disturb(probe)
        with pytest.raises(ChangedError, match=r"probe/model: was changed after it was finished"):
            run_warm(content)
        write_contents(probe)
        with pytest.raises(ChangedError, match=r"run-1: holds a run that began with another model\.head: in .*probe/model"):
            run_warm(content)


def test_the_pairs_and_the_base_of_finished_runs_must_be_what_they_were(whole: tuple[WarmRecipe, WarmResult]) -> None:
    content, _ = whole
    out, base = Path(content.output.path), Path(content.model.path)
    data = out / "data" / "train.jsonl"
    with kept(data):
        data.write_text("".join(data.read_text().splitlines(keepends=True)[1:]))
        with pytest.raises(OutputError, match=r"run-1: holds a run of another recipe or of other data"):
            run_warm(content)
    with kept(base):
        disturb(base)
        with pytest.raises(ChangedError, match=rf"{out}: holds a run that began with another model\.path"):
            run_warm(content)


def test_runs_of_an_older_version_are_averaged_with_a_note(whole: tuple[WarmRecipe, WarmResult]) -> None:
    content, result = whole
    record = record_of(run_path(content, "run-2") / "model")
    with kept(record):
        record.unlink()
        try:
            notes = run_warm(content).summary["notes"]
        finally:
            record.touch()
    said = "run-2: no record of what the run left, of an older warmkit; taken as it is"
    assert notes == [said, *result.summary["notes"]]
    assert run_warm(content).summary["notes"] == result.summary["notes"]


# ---- runs that do not average ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_does_not_average_is_named_and_connected_leaves_it_out(tmp_path: Path) -> None:
    content = recipe(tmp_path, runs=4, lr=[3e-3])
    held_out = tiny.write(tmp_path / "more.jsonl", tiny.rows(2 * FEW + 10, seed=9))
    content = replace(content, data=replace(content.data, validation=str(held_out)))
    content = replace(content, rm=replace(content.rm, steps=20), warm=replace(content.warm, final="all"))
    run_warm(content)
    turn(run_path(content, "run-1") / "model", run_path(content, "run-3") / "model")  # run-3 is run-1 beyond a barrier
    write_contents(run_path(content, "run-3") / "model")

    done = CliRunner().invoke(app, ["warm", str(written(content)), "--json"])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert list(summary["partners"]["bad"]) == ["run-3"]
    (note,) = summary["notes"]
    assert note in done.stderr
    assert re.match(r"run-3 does not average: with [23] of its 3 partners the average is less accurate than the mean", note)
    assert "It is in the final model: leave it out (warm.final: connected, or warm.exclude)" in note

    shown = CliRunner().invoke(app, ["warm", str(written(content)), "--set", "warm.final=connected"])
    assert "(!)" in shown.stdout
    assert "note: warm.final: connected left out run-3" in shown.stderr
    final = json.loads((Path(content.output.path) / "summary.json").read_text())["final"]
    assert (sorted(final["members"]), final["left_out"]) == (["run-1", "run-2", "run-4"], ["run-3"])
    page = json.dumps([str(each) for each in (warm(Path(content.output.path)).notes, warm(Path(content.output.path)).sections)])
    assert "run-3 (does not average)" in page
    assert "connected left out run-3" in page


# ---- runs that fail, and recipes that cannot be followed ------------------------------------------------------------


def poisoned(folder: Path) -> str:
    """Return an init with NaN in it."""
    from safetensors.torch import save_file

    path = tiny.make(folder / "poisoned", "bert")
    weights = tiny.tensors(path)
    weights["encoder.layer.1.output.dense.bias"][0] = torch.nan
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return str(path)


@pytest.mark.slow
def test_a_run_that_fails_is_reported_the_others_finish_and_it_can_be_left_out(tmp_path: Path) -> None:
    content = recipe(tmp_path, runs=3, lr=[1e-3], jobs=3)
    inits = [content.model.path, poisoned(tmp_path)]
    seeds = (replace(content, warm=replace(content.warm, inits=inits, seed=seed)) for seed in range(100))
    content = next(each for each in seeds if run_recipes(each, tmp_path)["run-2"].model.path == inits[1])
    with pytest.raises(TrainingError, match=r"1 of 3 runs failed.*--set 'warm\.exclude=\[run-2\]'") as raised:
        run_warm(content)
    out = Path(content.output.path)
    assert "run-2: step 1: the loss is nan in the batch of" in str(raised.value)
    assert f"{out}/data/train.jsonl:" in str(raised.value)
    assert [(run_path(content, name) / "summary.json").exists() for name in ("run-1", "run-2", "run-3")] == [True, False, True]
    assert not (out / "model").exists()

    done = CliRunner().invoke(app, ["warm", str(written(content)), "--set", "warm.exclude=[run-2]", "--json"])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert sorted(summary["final"]["members"]) == ["run-1", "run-3"]
    assert summary["excluded"] == ["run-2"]
    assert load_scorer(out / "model").score([("a", "gold")])


def test_a_validation_set_is_needed(tmp_path: Path) -> None:
    content = recipe(tmp_path)
    with pytest.raises(UsageError, match=r"data\.validation: expected a held-out set"):
        run_warm(replace(content, data=replace(content.data, validation=None)))
    assert not Path(content.output.path).exists()


def test_one_run_is_nothing_to_average(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"warm\.exclude leaves 1 of 2 runs"):
        run_warm(recipe(tmp_path, exclude=["run-1"]))


def test_more_models_than_are_left_and_too_few_pairs_to_divide_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"warm\.exclude leaves 2 of 3 runs; expected at least 3"):
        run_warm(recipe(tmp_path, runs=3, m=3, exclude=["run-1"]))
    content = recipe(tmp_path)
    one = tiny.write(tmp_path / "one.jsonl", tiny.rows(1))
    with pytest.raises(DataError, match=r"data\.validation: expected at least 2 different pairs"):
        run_warm(replace(content, data=replace(content.data, validation=str(one))))
    assert not Path(content.output.path).exists()


@pytest.mark.parametrize(("pool", "members"), [(2, 2), (3, 2), (4, 2), (5, 3), (6, 3), (10, 5)])
def test_half_of_the_pool_is_averaged_by_default(pool: int, members: int) -> None:
    assert WarmSection().final == "top"
    assert WarmSection().top(pool) == members
    assert WarmSection(runs=10, m=4).top(pool) == 4


def test_inits_that_cannot_be_averaged_are_refused_before_training(tmp_path: Path) -> None:
    other = tiny.make(tmp_path / "narrow", "bert", intermediate_size=24)
    content = recipe(tmp_path)
    content = replace(content, warm=replace(content.warm, inits=[content.model.path, str(other)]))
    with pytest.raises(MismatchError):
        run_warm(content)
    assert not (Path(content.output.path) / "probe").exists()


def test_a_dry_run_shows_the_runs_and_trains_nothing(tmp_path: Path) -> None:
    content = recipe(tmp_path)
    done = CliRunner().invoke(app, ["warm", str(written(content)), "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    assert sorted(each["rm"]["lr"] for each in json.loads(done.stdout)["runs"].values()) == [1e-3, 3e-3]
    assert not Path(content.output.path).exists()
    assert read_recipe(written(content), WarmRecipe).content == content
