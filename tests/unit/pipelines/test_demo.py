from __future__ import annotations

import json
import math
import sys

import pytest
import torch

from warmkit.errors import OutputError, UsageError
from warmkit.pipelines.demo import NETWORKING, DemoOutcome, DemoRow, DemoSize, Schedule, run_demo

pytest.importorskip("transformers", reason="the demo needs the train extra")

TINY = DemoSize(
    vocabulary=400,
    width=16,
    layers=1,
    context=16,
    batch=8,
    pretraining=Schedule(12, 1e-2, 1e-3),
    finetuning=Schedule(6, 1e-2, 1e-2),
    runs=3,
    etas=(0.3, 0.7),
    files=20,
)
MODELS = ["init", "run-1", "run-2", "run-3", "lerp", "slerp", "liti/eta-0.3", "liti/eta-0.7"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warmkit.pipelines.demo.MOST_THREADS", 1)
        yield


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "kept"
    calls: list[tuple[int, int]] = []
    outcome = run_demo(folder, seed=3, advance=lambda step, total: calls.append((step, total)), size=TINY)
    return folder, outcome, calls


def test_a_seed_decides_every_number_and_nothing_is_printed(kept, capfd):
    again = run_demo(None, seed=3, size=TINY)
    assert (again.rows, again.angles) == (kept[1].rows, kept[1].angles)
    assert capfd.readouterr() == ("", "")


def test_another_seed_gives_other_numbers_and_leaves_torch_and_transformers_as_they_were(kept):
    from transformers.utils import logging

    threads, state, verbosity = torch.get_num_threads(), torch.get_rng_state(), logging.get_verbosity()
    logging.set_verbosity_info()
    try:
        other = run_demo(None, seed=4, size=TINY)
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.INFO, True)
    finally:
        logging.set_verbosity(verbosity)
    assert all(one.loss != two.loss for one, two in zip(kept[1].rows, other.rows))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_tell_the_story_in_order(kept):
    rows = kept[1].rows
    assert [row.name for row in rows] == [*MODELS[:4], "mean of runs", *MODELS[4:], "ensemble"]
    assert [row.kind for row in rows] == ["init", *["run"] * 3, "mean", *["merge"] * 4, "ensemble"]
    assert all(0 < row.loss < 2 * math.log(TINY.vocabulary) and row.perplexity == math.exp(row.loss) for row in rows)


def test_rows_agree_with_each_other(kept):
    outcome = kept[1]
    runs = [row.loss for row in outcome.rows if row.kind == "run"]
    assert len(set(runs)) == 3
    assert outcome.row("mean of runs").loss == pytest.approx(sum(runs) / 3, abs=1e-9)
    assert outcome.row("ensemble").loss < outcome.row("mean of runs").loss  # Jensen's inequality


def test_every_checkpoint_loads_with_transformers_and_its_tokenizer(kept):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name in MODELS:
        tokenizer = AutoTokenizer.from_pretrained(kept[0] / name)
        ids = tokenizer("Return the socket.", return_tensors="pt").input_ids
        assert tokenizer.decode(ids[0]) == "Return the socket."
        assert torch.isfinite(AutoModelForCausalLM.from_pretrained(kept[0] / name)(ids).logits).all()


def test_merges_were_made_by_the_engine(kept):
    manifest = json.loads((kept[0] / "liti" / "eta-0.7" / "warmkit.json").read_text())
    assert (manifest["method"], manifest["parameters"]["eta"], len(manifest["models"])) == ("slerp", 0.7, 3)


def test_angles_are_a_symmetric_matrix_between_runs_that_differ(kept):
    angles = torch.tensor(kept[1].angles, dtype=torch.float64)
    assert angles.shape == (3, 3)
    assert torch.equal(angles, angles.T)
    assert (angles.diagonal() < 1e-6).all()
    assert ((angles + 90 * torch.eye(3)) > 1).all()


def test_progress_reaches_its_total(kept):
    calls = kept[2]
    assert {step for step, _ in calls} == {1}
    assert {total for _, total in calls} == {len(calls)}


def test_the_outcome_is_a_json_document(kept):
    document = json.loads(json.dumps(kept[1].as_document(), allow_nan=False))
    assert document["checkpoints"] == str(kept[0])
    assert [row["name"] for row in document["rows"]] == [row.name for row in kept[1].rows]
    assert document["rows"][0]["perplexity"] == kept[1].rows[0].perplexity


def outcome_of(lerp: float, slerp: float) -> DemoOutcome:
    rows = (
        DemoRow("init", "start", "init", 3.0),
        DemoRow("run-1", "one", "run", 1.5),
        DemoRow("run-2", "two", "run", 2.5),
        DemoRow("mean of runs", "mean", "mean", 2.0),
        DemoRow("lerp", "line", "merge", lerp),
        DemoRow("slerp", "arc", "merge", slerp),
        DemoRow("ensemble", "both", "ensemble", 0.5),
    )
    return DemoOutcome(rows, ((0.0, 60.0), (60.0, 0.0)), 0, None)


def test_the_summary_says_so_when_merging_wins():
    lines = outcome_of(lerp=1.0, slerp=1.75).summary().splitlines()
    assert lines[0] == "Best single model on this text: lerp (line), perplexity 2.72."
    assert lines[1] == "lerp: loss 1.0000 below the runs' mean, 0.5000 below the best run (run-1)."
    assert lines[2] == "slerp: loss 0.2500 below the runs' mean, 0.2500 above the best run (run-1)."
    assert lines[4:6] == ["     0.0   60.0", "    60.0    0.0"]


def test_the_summary_says_so_when_merging_loses():
    lines = outcome_of(lerp=2.25, slerp=2.5).summary().splitlines()
    assert lines[0] == "Best single model on this text: run-1 (one), perplexity 4.48."
    assert lines[1] == "lerp: loss 0.2500 above the runs' mean, 0.7500 above the best run (run-1)."


@pytest.mark.parametrize("name", ["a file", "a full directory"])
def test_a_taken_output_is_refused_before_training(tmp_path, name):
    (tmp_path / "a file").write_text("mine")
    (tmp_path / "a full directory").mkdir()
    (tmp_path / "a full directory" / "notes").write_text("mine")
    with pytest.raises(OutputError, match=f"{name}: expected an empty directory or none; choose another -o"):
        run_demo(tmp_path / name, advance=lambda step, total: pytest.fail("trained"), size=TINY)


@pytest.mark.parametrize("existed", [False, True])
def test_an_interrupted_demo_leaves_the_output_as_it_was(tmp_path, existed):
    def interrupt(step: int, total: int) -> None:
        if (output / "init").exists():
            raise KeyboardInterrupt

    output = tmp_path / "out"
    if existed:
        output.mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_demo(output, advance=interrupt, size=TINY)
    assert list(tmp_path.rglob("*")) == ([output] if existed else [])


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'warmkit\[train\]'"):
        run_demo(None, size=TINY)


def test_networking_is_a_part_of_the_library_not_all_of_it():
    assert {"asyncio", "email", "http"} <= NETWORKING & sys.stdlib_module_names
    assert len(NETWORKING) < len(sys.stdlib_module_names) / 4


def test_a_schedule_warms_up_and_falls_in_a_straight_line():
    schedule = Schedule(120, 1.0, 0.5)
    assert schedule.rate(0) == pytest.approx(0.1)
    assert [schedule.rate(step) for step in (9, 60)] == pytest.approx([0.9625, 0.75])
