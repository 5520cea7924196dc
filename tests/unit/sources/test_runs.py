"""Training directories: checkpoints by their steps, windows, RUN@STEP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from warmkit.errors import CheckpointError, UsageError
from warmkit.sources.runs import RunCheckpoint, at_step, find_run, run_checkpoints, step_of, window


def make(run: Path, *names: str) -> Path:
    for name in names:
        (run / name).mkdir(parents=True)
    return run


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-500", 500),  # transformers, TRL, unsloth
        ("step_1000", 1000),
        ("step-20", 20),  # torchtitan
        ("step1000-unsharded", 1000),  # OLMo
        ("global_step_40", 40),  # verl
        ("global_step40", 40),  # DeepSpeed
        ("global_step40_hf", 40),  # OpenRLHF
        ("iter_0000100", 100),  # Megatron-LM
        ("epoch=3-step=1000.ckpt", 1000),  # Lightning
        ("epoch_2", 2),
        ("tmp-checkpoint-500", None),  # transformers, while it is written
        ("checkpoint", None),
        ("best", None),
        ("step-5.json", None),
    ],
)
def test_names_of_trainers_have_steps(name: str, step: int | None) -> None:
    assert step_of(name) == step


def test_checkpoints_are_ordered_by_step_and_nothing_else_is_one(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint-1000", "checkpoint-200", "checkpoint-0", "logs", "runs")
    (tmp_path / "step-3.json").write_text("{}")
    found = run_checkpoints(tmp_path)
    assert [each.step for each in found] == [0, 200, 1000]
    assert [each.path.name for each in found] == ["checkpoint-0", "checkpoint-200", "checkpoint-1000"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "expected checkpoints with steps in their names"),
        (("global_step40", "global_step40_hf"), "global_step40 and global_step40_hf are both of step 40"),
        (("step-007", "step-7"), "step-007 and step-7 are both of step 7"),
        (("checkpoint-5", "epoch_1"), r"checkpoint-5 and epoch_1 count different things; .* 'RUN/checkpoint-\*'"),
    ],
)
def test_a_directory_that_is_no_run_or_two_is_refused(names: tuple[str, ...], said: str, tmp_path: Path) -> None:
    make(tmp_path, *names)
    with pytest.raises(CheckpointError, match=said.replace("RUN", str(tmp_path))):
        run_checkpoints(tmp_path)


def test_what_the_trainer_recorded_counts_and_must_agree_with_the_name(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint-5", "checkpoint-10")
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text(json.dumps({"global_step": 5, "num_input_tokens_seen": 640}))
    (tmp_path / "checkpoint-10" / "trainer_state.json").write_text(json.dumps({"global_step": 10, "num_input_tokens_seen": 0}))
    assert [each.tokens for each in run_checkpoints(tmp_path)] == [640, None]
    (tmp_path / "checkpoint-5").rename(tmp_path / "checkpoint-6")
    with pytest.raises(CheckpointError, match=r"checkpoint-6: its name says step 6, its trainer_state.json step 5"):
        run_checkpoints(tmp_path)


def test_epochs_are_no_steps_unless_the_trainer_recorded_them(tmp_path: Path) -> None:
    make(tmp_path, "epoch_1", "epoch_2")
    assert [(each.step, each.epochs) for each in run_checkpoints(tmp_path)] == [(1, True), (2, True)]
    for epoch in (1, 2):
        (tmp_path / f"epoch_{epoch}" / "trainer_state.json").write_text(json.dumps({"global_step": 500 * epoch}))
    assert [(each.step, each.epochs) for each in run_checkpoints(tmp_path)] == [(500, False), (1000, False)]


def test_deepspeeds_parts_inside_of_a_checkpoint_make_no_run_of_it(tmp_path: Path) -> None:
    checkpoint = make(tmp_path / "checkpoint-500", "global_step500")
    (checkpoint / "config.json").write_text("{}")
    assert [(each.path, each.step) for each in find_run([checkpoint])] == [(checkpoint, 500)]


def test_a_pattern_and_checkpoints_one_by_one_are_ordered_by_step(tmp_path: Path) -> None:
    make(tmp_path, "step-90", "step-100", "epoch_1")
    given = [tmp_path / "step-100", tmp_path / "step-90"]
    assert [each.step for each in find_run(given)] == [90, 100]
    assert [each.step for each in find_run([f"{tmp_path}/step-*"])] == [90, 100]
    with pytest.raises(CheckpointError, match="no such checkpoints"):
        find_run([f"{tmp_path}/checkpoint-*"])
    unnamed = [tmp_path / "late", tmp_path / "early"]
    assert [each.path.name for each in find_run(unnamed)] == ["late", "early"]
    with pytest.raises(CheckpointError, match="are both of step 90"):
        find_run([*given, tmp_path / "step-90"])


def test_a_run_whose_final_model_lies_in_it_is_a_run(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint-1", "checkpoint-2")
    (tmp_path / "config.json").write_text("{}")
    assert len(find_run([tmp_path])) == 2
    alone = make(tmp_path / "alone", "logs")
    (alone / "config.json").write_text("{}")
    assert [each.path for each in find_run([alone])] == [alone]


RUN = [RunCheckpoint(Path(f"run/step-{step}"), step, tokens=step * 1000) for step in range(100, 1100, 100)]


@pytest.mark.parametrize(
    ("how", "steps"),
    [
        ({}, list(range(100, 1100, 100))),
        ({"last": 3}, [800, 900, 1000]),
        ({"every": 3}, [100, 400, 700, 1000]),
        ({"every": 3, "last": 2}, [700, 1000]),
        ({"first_step": 300, "last_step": 500}, [300, 400, 500]),
        ({"last_step": 450, "last": 2}, [300, 400]),
        ({"tokens": 200_000}, [900, 1000]),
        ({"tokens": 200_001}, [800, 900, 1000]),
        ({"tokens": 100_000, "last_step": 500}, [500]),
    ],
)
def test_windows(how: dict[str, int], steps: list[int]) -> None:
    assert [each.step for each in window(RUN, **how)] == steps


@pytest.mark.parametrize(
    ("found", "how", "said"),
    [
        (RUN, {"last": 11}, r"--last 11: only 10 are in the window:\n  run/step-100"),
        (RUN, {"first_step": 2000}, r"no checkpoint is in the window; there are:\n  run/step-100"),
        ([RunCheckpoint(Path("a"), None)], {"first_step": 1}, "--from and --to need steps; a has none"),
        ([RunCheckpoint(Path("a"), 1)], {"tokens": 1}, "a has no num_input_tokens_seen in a trainer_state.json"),
    ],
)
def test_a_window_with_less_than_was_asked_is_refused(found: list[RunCheckpoint], how: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        window(found, **how)


def test_a_step_of_a_run_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make(tmp_path, "run/step-200", "run/step-1000", "team/model"))
    assert at_step("run@-1") == "run/step-1000"
    assert at_step("run@-2") == at_step("run@200") == "run/step-200"
    for other in ("run", "run/step-200", "hf://team/run@200", "team/other@200", "s3://bucket/run@-1"):
        assert at_step(other) == other
    with pytest.raises(CheckpointError, match=r"run@300: run has no such checkpoint; it has:\n  run/step-200\n  run/step-1000"):
        at_step("run@300")
    with pytest.raises(CheckpointError, match="run@-3: run has no such checkpoint"):
        at_step("run@-3")
    with pytest.raises(CheckpointError, match="team/model: expected checkpoints"):
        at_step("team/model@7")  # a directory here comes before a revision of the Hub


def test_a_path_that_is_also_a_step_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make(tmp_path, "run/step-200", "run@200", "run@300", "model@5", "model"))
    with pytest.raises(CheckpointError, match="run@200: is a path, and also names run/step-200; write that, or run@200/"):
        at_step("run@200")
    assert at_step("run@200/") == "run@200/"
    assert at_step("run@300") == "run@300"
    assert at_step("model@5") == "model@5"
