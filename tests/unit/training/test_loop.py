"""The loop: order of the data, parts of a batch, losses that are not finite, memory that runs out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from warmkit.errors import TrainingError, UsageError
from warmkit.training.loop import batch_rows, train
from warmkit.training.recipe_sections import Optimization
from warmkit.training.run import RunDirectory


class Line:
    """Fits a line; row 3 can be made to break."""

    section = "rm"

    def __init__(self, examples: int = 8, fails: Exception | float | None = None) -> None:
        torch.manual_seed(0)
        self.model, self.examples, self.fails = nn.Linear(2, 1), examples, fails
        self.inputs, self.seen = torch.randn(examples, 2), list[int]()

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
        self.seen += rows
        if 3 in rows and isinstance(self.fails, Exception):
            raise self.fails
        errors = (self.model(self.inputs[list(rows)]).squeeze(-1) - 1).square()
        if 3 in rows and isinstance(self.fails, float):
            errors = errors * self.fails
        return errors.mean(), {"count": float(len(rows))}

    def weight(self, rows: Sequence[int]) -> float:
        return len(rows)

    def places(self, rows: Sequence[int]) -> str:
        return ", ".join(f"train.jsonl:{row + 1}" for row in rows)

    def evaluate(self) -> dict[str, float]:
        return {"validation_accuracy": 0.5}

    def save(self, run: RunDirectory, name: str) -> None:
        (run.path / name).mkdir()


def run_in(folder: Path) -> RunDirectory:
    return RunDirectory(folder / "run", "recipe: 1\n")


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 5), st.integers(1, 40))
def test_every_example_is_seen_equally_often(examples: int, size: int, order: int, steps: int) -> None:
    batches = [batch_rows(examples, size, order, step) for step in range(steps)]
    assert all(len(batch) == size for batch in batches)
    seen = [row for batch in batches for row in batch]
    counts = [seen.count(row) for row in range(examples)]
    assert max(counts) - min(counts) <= 1
    assert [sorted(seen[start : start + examples]) for start in range(0, len(seen) - examples + 1, examples)] == [
        list(range(examples))
    ] * (len(seen) // examples)


def test_another_order_is_another_order_and_every_epoch_its_own() -> None:
    first, again, other = (batch_rows(50, 50, order, 0) for order in (0, 0, 1))
    assert first == again
    assert first != other
    assert first != batch_rows(50, 50, 0, 1)


def test_the_metrics_have_a_line_a_step(tmp_path: Path) -> None:
    run, task, told = run_in(tmp_path), Line(), list[tuple[int, int]]()
    outcome = train(task, Optimization(steps=5, batch_size=4, evaluate_every=2), run, lambda *each: told.append(each))
    lines = run.metrics()
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in lines if "validation_accuracy" in line] == [2, 4]
    assert all(line["count"] == 1 for line in lines)
    assert outcome.steps == 5
    assert outcome.last == lines[-1]
    assert told == [(0, 5)] + [(1, 5)] * 5


@pytest.mark.parametrize("accumulation", [1, 2, 3, 4])
def test_parts_of_a_batch_are_the_batch(accumulation: int, tmp_path: Path) -> None:
    task = Line()
    plain = {
        "lr": 0.1,
        "steps": 4,
        "batch_size": 4,
        "clip": 0.0,
        "epsilon": 1.0,
        "precision": "float32",
    }  # nothing that hides a gradient's size
    train(task, Optimization(**plain, accumulation=accumulation), run_in(tmp_path))
    whole = Line()
    train(whole, Optimization(**plain), run_in(tmp_path / "whole"))
    assert task.seen == whole.seen
    assert torch.allclose(task.model.weight, whole.model.weight, atol=1e-6)


@pytest.mark.parametrize(("factor", "said"), [(float("nan"), "the loss is nan"), (float("inf"), "the loss is inf")])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_rows(factor: float, said: str, tmp_path: Path) -> None:
    run, task = run_in(tmp_path), Line(fails=factor)
    bad = next(step for step in range(8) if 3 in batch_rows(8, 1, 0, step))
    with pytest.raises(TrainingError, match=rf"step {bad + 1}: {said} in the batch of train\.jsonl:4.*Lower rm\.lr"):
        train(task, Optimization(steps=8, batch_size=1, save_every=1), run)
    assert [line["step"] for line in run.metrics()] == list(range(1, bad + 1))
    if bad:
        state = run.load_state()
        assert state is not None
        assert state["step"] == bad
        assert torch.equal(state["model"]["weight"], task.model.weight), "the bad step changed nothing"


def test_a_gradient_that_is_not_finite_stops_too(tmp_path: Path) -> None:
    task = Line()
    with torch.no_grad():
        task.model.weight.zero_()
        task.model.bias.fill_(1.0)

    class Kink(Line):
        def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
            return (task.model(self.inputs[list(rows)]) - 1).square().mean().sqrt(), {}

    broken = Kink()
    broken.model = task.model
    with pytest.raises(TrainingError, match="step 1: the gradient is not finite"):
        train(broken, Optimization(steps=2, batch_size=2), run_in(tmp_path))


def test_memory_that_runs_out_is_reported_with_what_helps(tmp_path: Path) -> None:
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    with pytest.raises(TrainingError, match=r"out of memory; raise rm\.accumulation"):
        train(Line(fails=error), Optimization(steps=8, batch_size=8), run_in(tmp_path))


def test_other_errors_are_themselves(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        train(Line(fails=RuntimeError("shapes")), Optimization(steps=8, batch_size=8), run_in(tmp_path))


def test_models_are_kept_at_the_steps_that_the_recipe_names(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    train(Line(), Optimization(steps=5, keep=[2, 5]), run)
    assert sorted(path.name for path in run.path.glob("step-*")) == ["step-2", "step-5"]


@pytest.mark.parametrize("keep", [[0], [2, 6]])
def test_a_step_to_keep_that_never_comes_is_refused_before_training(keep: list[int], tmp_path: Path) -> None:
    task = Line()
    with pytest.raises(UsageError, match=r"rm\.keep: expected steps between 1 and 5, found"):
        train(task, Optimization(steps=5, keep=keep), run_in(tmp_path))
    assert task.seen == []


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_run_goes_on_from_its_state_to_the_same_weights(optimizer: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"lr": 0.1, "batch_size": 3, "optimizer": optimizer, "save_every": 2, "schedule": "linear"}
    whole = Line()
    train(whole, Optimization(steps=7, **how), run_in(tmp_path / "whole"))

    class Killed(Line):
        def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
            if len(self.seen) >= 15:
                raise KeyboardInterrupt
            return super().loss(rows)

    with pytest.raises(KeyboardInterrupt):
        train(Killed(), Optimization(steps=7, **how), run_in(tmp_path))
    again = Line()
    outcome = train(again, Optimization(steps=7, **how), run_in(tmp_path))
    assert outcome.resumed == 4
    assert torch.equal(again.model.weight, whole.model.weight)
    assert torch.equal(again.model.bias, whole.model.bias)
