"""Averages along a run, against a float64 reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import warmkit
from tests.conftest import Family, Run, Stopped, save, stop_at, tensors_of, weights
from tests.unit.layouts import lora
from warmkit.errors import CheckpointError, MismatchError, UsageError
from warmkit.merging.schedules import SCHEDULES, run_coefficients
from warmkit.verbs.average import plan_averages

STEPS = (50, 100, 200, 300, 1000)
SLACK = {torch.float32: 2.0**-38, torch.bfloat16: 2.0**-23}


def make_run(folder: Path, dtype: torch.dtype = torch.float32, name: str = "checkpoint") -> Path:
    for number, step in enumerate(STEPS):
        each = save(folder / f"{name}-{step}", weights(number, dtype))
        (each / "trainer_state.json").write_text(json.dumps({"global_step": step, "num_input_tokens_seen": step * 10}))
        (each / "optimizer.pt").write_bytes(b"left behind")
    return folder


def check(out: Path, run: Path, shares: dict[int, float], dtype: torch.dtype) -> None:
    """Compare with the float64 mean: off by half a unit in the last place of the result at most, and the sum's own rounding."""
    inputs = {step: tensors_of(run / f"checkpoint-{step}") for step in shares}
    for name, found in tensors_of(out).items():
        terms = [share * inputs[step][name].double() for step, share in shares.items()]
        expected = torch.stack(terms).sum(dim=0)
        half = torch.finfo(dtype).eps / 2
        bound = half * expected.abs() + SLACK[dtype] * torch.stack(terms).abs().sum(dim=0) + 1e-45
        assert found.dtype == dtype
        assert ((found.double() - expected).abs() <= bound).all()


@pytest.mark.parametrize("dtype", SLACK, ids=str)
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_every_schedule_is_its_float64_mean(schedule: str, dtype: torch.dtype, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dtype)
    result = warmkit.average(run, tmp_path / "out", schedule=schedule)
    assert result.outputs == {1.0: tmp_path / "out"}
    check(tmp_path / "out", run, dict(zip(STEPS, run_coefficients(schedule, STEPS))), dtype)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "warmkit.json",
    ]


def test_several_schedules_and_windows_are_written_from_one_reading(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    moved: list[int] = []
    result = warmkit.average(
        run, tmp_path / "out", schedule=["ema", "minus-sqrt"], last=[2, 4], mu=0.3, advance=lambda done, _: moved.append(done)
    )
    assert list(result.outputs) == ["ema-2", "minus-sqrt-2", "ema-4", "minus-sqrt-4"]
    size = sum(value.numel() * value.element_size() for value in weights(0).values())
    assert sum(moved) == size * (4 + 4)  # four checkpoints read, four models written
    for name, path in result.outputs.items():
        schedule, _, count = str(name).rpartition("-")
        steps = STEPS[-int(count) :]
        own = {"mu": 0.3} if schedule == "ema" else {}
        check(path, run, dict(zip(steps, run_coefficients(schedule, steps, own))), torch.float32)
        parameters = json.loads((path / "warmkit.json").read_text())["parameters"]
        assert (parameters["schedule"], parameters["steps"]) == (schedule, list(steps))
        assert parameters.get("mu") == own.get("mu")
        alone = tmp_path / f"alone-{name}"
        warmkit.average(run, alone, schedule=schedule, last=int(count), **own)
        assert (alone / "model.safetensors").read_bytes() == (path / "model.safetensors").read_bytes()
    assert warmkit.verify(tmp_path / "out").tensors == 4 * len(weights(0))


def test_a_killed_average_of_several_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    how: dict[str, Any] = {"schedule": ["linear", "ema"], "last": 3}
    warmkit.average(run, tmp_path / "whole", **how)
    with pytest.raises(Stopped):
        warmkit.average(run, tmp_path / "out", **how, advance=stop_at(3), threads=1)
    assert not (tmp_path / "out").exists()
    assert warmkit.average(run, tmp_path / "out", **how).resumed > 0
    for name in how["schedule"]:
        one, two = ((tmp_path / each / name / "model.safetensors").read_bytes() for each in ("whole", "out"))
        assert one == two


def test_another_schedule_does_not_go_on_where_the_first_was_killed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(Stopped):
        warmkit.average(run, tmp_path / "out", schedule=["linear", "ema"], advance=stop_at(3), threads=1)
    assert warmkit.average(run, tmp_path / "out", schedule=["linear", "cosine"]).resumed == 0


def test_several_averages_are_reported_replaced_and_pushed_one_by_one(run: Run, tmp_path: Path) -> None:
    make_run(tmp_path / "RUN")
    words = ["average", "RUN", "--last", "2,3", "--schedule", "ema,linear", "-o", "out"]
    assert run(*words).returncode == 0
    assert run(*words, "--force").returncode == 0
    page = run("report", "out", "-o", "page.html")
    assert page.returncode == 0, page.stderr
    assert "average of 3 models at schedule ema-2, ema-3, linear-2, linear-3" in (tmp_path / "page.html").read_text()
    pushed = run("push", "out", "team/model")
    assert "a sweep of 4 models; push one of them, out/ema-2 for instance" in pushed.stderr
    (tmp_path / "out" / "mine").mkdir()
    kept = run(*words, "--force")
    assert kept.returncode == 1
    assert (tmp_path / "out" / "mine").is_dir()


def test_manual_coefficients_are_divided_by_their_sum(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    warmkit.average(run, tmp_path / "out", last=2, coefficients=[1, 3])
    check(tmp_path / "out", run, {300: 0.25, 1000: 0.75}, torch.float32)
    beyond = warmkit.average(run, tmp_path / "beyond", last=2, coefficients=[-1, 2])
    check(tmp_path / "beyond", run, {300: -1.0, 1000: 2.0}, torch.float32)
    assert any("beyond the checkpoints" in note for note in beyond.notes)


def test_a_single_checkpoint_is_said_to_be_a_copy_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    alone = warmkit.average(run, tmp_path / "alone", last=1).notes
    among = warmkit.average(run, tmp_path / "among", last=[1, 2]).notes
    assert [sum("the result is a copy of it" in note for note in notes) for notes in (alone, among)] == [1, 1]


def test_adapters_along_a_run_average_their_products_not_their_factors(tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base")
    run = tmp_path / "run"
    for seed, step in enumerate((1, 2, 3)):
        lora.adapter(run / f"checkpoint-{step}", base, seed=seed + 1)
    warmkit.average(run, tmp_path / "out")
    dense = [tensors_of(run / f"checkpoint-{step}") for step in (1, 2, 3)]
    for name, found in tensors_of(tmp_path / "out").items():
        expected = torch.stack([each[name].double() for each in dense]).mean(dim=0)
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)


def test_tokens_choose_the_window(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (average,) = plan_averages(run, tokens=9000)
    assert [each.step for each in average.checkpoints] == [200, 300, 1000]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"schedule": "minus"}, "unknown schedule 'minus'"),
        ({"last": 6}, "--last 6: only 5 are in the window"),
        ({"last": 0}, "last must be at least 1, found 0"),
        ({"every": 0}, "every must be at least 1, found 0"),
        ({"tokens": 0}, "tokens must be at least 1, found 0"),
        ({"schedule": ["ema", "ema"]}, "expected different schedules and windows, found ema, ema"),
        ({"last": [2, 2]}, "expected different schedules and windows, found uniform-2, uniform-2"),
        ({"mu": 0.5}, "uniform: has no mu; it is a parameter of ema"),
        ({"schedule": "manual"}, "schedule manual and coefficients belong together"),
        ({"coefficients": [1]}, "expected 5 coefficients, one for each of checkpoint-50, .*; found 1"),
        ({"coefficients": [1, -1], "last": 2}, "sum to 0"),
        ({"schedule": []}, "expected a schedule"),
        ({"schedule": ["ema", "cosine"], "vocabulary": "union"}, "vocabulary and heads are of one average"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(how: dict[str, Any], said: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(UsageError, match=said):
        warmkit.average(run, tmp_path / "out", **how)
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_bema_needs_steps_and_decays_say_that_they_guess(tmp_path: Path) -> None:
    late, early = save(tmp_path / "late", weights(1)), save(tmp_path / "early", weights(2))
    with pytest.raises(UsageError, match=r"bema needs the steps of the checkpoints; .*early has none in its name"):
        warmkit.average([early, late], tmp_path / "out", schedule="bema")
    epochs = [save(tmp_path / "E" / f"epoch_{number}", weights(number)) for number in (1, 2)]
    with pytest.raises(UsageError, match="bema needs steps; the names of the checkpoints count epochs"):
        warmkit.average(epochs, tmp_path / "out", schedule="bema")
    result = warmkit.average([early, late], tmp_path / "out", schedule="cosine")
    assert any("count as evenly spaced, in this order" in note for note in result.notes)


def test_a_checkpoint_that_is_still_being_written_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "checkpoint-2000").mkdir()
    with pytest.raises(CheckpointError, match="checkpoint-2000"):
        warmkit.average(run, tmp_path / "out")
    half = save(run / "checkpoint-2000", weights(7)) / "model.safetensors"
    half.write_bytes(half.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="checkpoint-2000"):
        warmkit.average(run, tmp_path / "out")
    warmkit.average(run, tmp_path / "out", last_step=1000)


def test_checkpoints_of_other_types_or_shapes_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    tensors = weights(3)
    save(run / "checkpoint-2000", {name: value for name, value in tensors.items() if name != next(iter(tensors))})
    with pytest.raises(MismatchError, match="checkpoint-2000"):
        warmkit.average(run, tmp_path / "out")


def test_other_verbs_take_a_step_of_a_run(family: Family, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    warmkit.liti(f"{run}@-1", tmp_path / "one", init=f"{run}@50", eta=0.3)
    warmkit.liti(run / "checkpoint-1000", tmp_path / "two", init=run / "checkpoint-50", eta=0.3)
    one, two = ((tmp_path / each / "model.safetensors").read_bytes() for each in ("one", "two"))
    assert one == two
    manifest = json.loads((tmp_path / "one" / "warmkit.json").read_text())
    assert manifest["models"][0]["source"].endswith("run/checkpoint-1000")  # what @-1 was at that time


def test_the_command_prints_steps_and_coefficients(run: Run, tmp_path: Path) -> None:
    make_run(tmp_path / "RUN")
    dry = run("average", "RUN", "--last", "3", "--schedule", "minus-sqrt,ema", "--dry-run", "-o", "out")
    assert dry.returncode == 0, dry.stderr
    assert not (tmp_path / "out").exists()
    rows = [line.split() for line in dry.stdout.splitlines() if "checkpoint-" in line]
    assert [row[0] for row in rows] == ["200", "300", "1000"]
    assert [row[3] for row in rows] == ["0.25", "0.25", "0.5"]
    done = run("average", "RUN", "--last", "3,5", "--schedule", "minus-sqrt", "-o", "out", "--json")
    document = json.loads(done.stdout)
    assert sorted(document["outputs"]) == ["minus-sqrt-3", "minus-sqrt-5"]
    assert [each["step"] for each in document["averages"][0]["checkpoints"]] == [200, 300, 1000]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--last", "few"], "--last: expected a whole number, or several with commas between them, found 'few'"),
        (["--tokens", "many"], "--tokens: expected a number such as 5e9, 500M or 2B, found 'many'"),
        (["--schedule", "wsd"], "unknown schedule 'wsd'"),
        (["--from", "5000"], "no checkpoint is in the window"),
    ],
)
def test_the_command_says_what_is_wrong(words: list[str], said: str, run: Run, tmp_path: Path) -> None:
    make_run(tmp_path / "RUN")
    done = run("average", "RUN", *words, "-o", "out")
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
