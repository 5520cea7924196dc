"""The average beside a trainer's checkpoints is the one that `warmkit.average` writes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import warmkit
from tests.unit.training import tiny
from tests.unit.trl import trainers
from warmkit.errors import UsageError
from warmkit.merging.schedules import run_coefficients
from warmkit.trl import AverageCheckpoints


def train(folder: Path, *averages: AverageCheckpoints, kind: str = "whole", run: str = "run", **changes: Any) -> Path:
    trainer = trainers.trainer(tiny.model("llama", folder / "llama"), folder / run, kind, averages, **changes)
    trainer.train()
    return folder / run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("schedule", "own"), [("ema", {"mu": 0.3}), ("minus-sqrt", {}), ("bema", {"lag": 3.0}), ("uniform", {})]
)
def test_it_is_the_sum_of_the_checkpoints_by_the_schedule(schedule: str, own: dict[str, float], tmp_path: Path) -> None:
    run = train(tmp_path, AverageCheckpoints(schedule, **own))
    saved = [weights(run / f"checkpoint-{step}") for step in (2, 4, 6)]
    coefficients = run_coefficients(schedule, [2, 4, 6], own)
    for name, each in weights(run / f"average-{schedule}").items():
        wanted = sum(c * one[name].double().numpy() for c, one in zip(coefficients, saved))
        assert np.allclose(each.numpy(), wanted, atol=1e-7), name
    model = transformers.AutoModelForCausalLM.from_pretrained(run / f"average-{schedule}")
    assert torch.isfinite(model(input_ids=torch.tensor([[5, 6, 7]])).logits).all()


def test_every_save_writes_it_anew_and_several_schedules_lie_side_by_side(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    class Look(transformers.TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append(weights(Path(args.output_dir) / "average-uniform"))

    run = train(tmp_path, AverageCheckpoints("uniform"), AverageCheckpoints("linear", last=2), Look())
    first, second = (weights(run / f"checkpoint-{step}") for step in (2, 4))
    assert all(torch.equal(each, first[name]) for name, each in seen[0].items())
    assert all(torch.allclose(each, (first[name] + second[name]) / 2, atol=1e-7) for name, each in seen[1].items())
    third = weights(run / "checkpoint-6")
    for name, each in weights(run / "average-linear").items():
        assert torch.allclose(each, (second[name] + third[name]) / 2, atol=1e-7)


def test_a_resumed_run_has_the_bytes_of_a_whole_one(tmp_path: Path) -> None:
    whole = train(tmp_path, AverageCheckpoints("bema"))
    model = tiny.model("llama", tmp_path / "llama")
    trainers.trainer(model, tmp_path / "parts", callbacks=[AverageCheckpoints("bema")]).train()
    again = trainers.trainer(model, tmp_path / "parts", callbacks=[AverageCheckpoints("bema")])
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    one, other = weights(whole / "average-bema"), weights(tmp_path / "parts" / "average-bema")
    assert all(torch.equal(each, other[name]) for name, each in one.items())


def test_adapters_are_averaged_as_the_matrices_that_they_stand_for(tmp_path: Path) -> None:
    run = train(tmp_path, AverageCheckpoints("uniform"), kind="lora")
    warmkit.average([run / f"checkpoint-{step}" for step in (2, 4, 6)], tmp_path / "own", schedule="uniform")
    one, other = weights(run / "average-uniform"), weights(tmp_path / "own")
    assert "model.layers.0.self_attn.q_proj.weight" in one
    assert all(torch.equal(each, other[name]) for name, each in one.items())


def test_only_the_newest_are_kept_and_averaged_where_the_trainer_deletes_older_ones(tmp_path: Path) -> None:
    run = train(tmp_path, AverageCheckpoints("uniform", last=2), save_total_limit=2)
    assert not (run / "checkpoint-2").exists()
    saved = [weights(run / f"checkpoint-{step}") for step in (4, 6)]
    average = weights(run / "average-uniform")
    assert all(torch.allclose(each, (saved[0][name] + saved[1][name]) / 2, atol=1e-7) for name, each in average.items())


def test_what_would_be_another_average_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"save_total_limit 2 deletes checkpoints .* give AverageCheckpoints last=2 or less"):
        train(tmp_path, AverageCheckpoints(), save_total_limit=2)
    with pytest.raises(UsageError, match="save_strategy is no"):
        train(tmp_path, AverageCheckpoints(), save_strategy="no")
    train(tmp_path, max_steps=2)
    with pytest.raises(UsageError, match="has checkpoint-2 of an earlier run"):
        train(tmp_path, AverageCheckpoints())


def test_unknown_schedules_and_parameters_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match=r"unknown schedule 'emma'.*ema"):
        AverageCheckpoints("emma")
    with pytest.raises(UsageError, match="bema: has no mu"):
        AverageCheckpoints("bema", mu=0.1)
    with pytest.raises(UsageError, match="mu must be at least 0 and at most 1, found 2"):
        AverageCheckpoints("ema", mu=2)
    with pytest.raises(UsageError, match="last must be at least 1, found 0"):
        AverageCheckpoints("ema", last=0)
