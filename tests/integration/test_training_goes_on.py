"""Averages that are written as the trainer wrote its checkpoints: its own library loads them, and training goes on."""

from __future__ import annotations

import copy
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

import warmkit
from tests import forks
from tests.integration import sharded_run
from tests.integration.sharded_run import RATE, STEPS, WORLD
from warmkit.formats import torch_distributed

SCHEDULE: dict[str, Any] = {"coefficients": [0.5, 0.25, 0.25]}


def processes(folder: Path, kind: str, place: object = "") -> None:
    command = [sys.executable, "-m", "tests.integration.sharded_run"]
    running = [forks.Popen([*command, str(rank), str(folder), kind, str(place)]) for rank in range(WORLD)]
    assert [each.wait(300) for each in running] == [0] * WORLD


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    processes(folder, "train")
    return folder


def averaged(folder: Path) -> dict[str, torch.Tensor]:
    saved = [load_file(folder / f"whole-{number}.safetensors") for number in STEPS]
    weights = SCHEDULE["coefficients"]
    return {name: sum(c * each[name].double() for c, each in zip(weights, saved)).float() for name in saved[0]}  # type: ignore[union-attr]


def stepped(state: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    """Take the step in one process, by a state put together by hand."""
    learner = sharded_run.model()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=RATE)
    for name, each in learner.named_parameters():
        each.data.copy_(state[name])
        optimizer.state[each] = {
            "step": torch.tensor(float(number - 1)),
            "exp_avg": state[f"exp_avg/{name}"].clone(),
            "exp_avg_sq": state[f"exp_avg_sq/{name}"].clone(),
        }
    sharded_run.step(learner, optimizer, number)
    return sharded_run.whole(learner, optimizer)


@pytest.mark.parametrize("kind", ["ranks", "distributed"])
def test_two_processes_of_fsdp2_go_on_from_an_average_of_weights_and_moments(run: Path, kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    where: dict[str, Any] = {"state_dict": "model"} if kind == "distributed" else {}
    result = warmkit.average(run / kind, out, allow_pickle=True, container="same", optimizer="average", **SCHEDULE, **where)
    assert (out / "README.md").is_file()
    assert warmkit.verify(out).tensors == 3
    assert any("copied" in note for note in result.notes)
    processes(run, kind, out)
    loaded, wanted = load_file(run / f"{kind}-loaded.safetensors"), averaged(run)
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)
    number = max(STEPS) + 1  # the step is that of the newest
    after, expected = load_file(run / f"{kind}-after-{number}.safetensors"), stepped(wanted, number)
    assert all(torch.equal(after[name], expected[name]) for name in wanted)
    assert_checksums(out, kind)


class Watch(TrainerCallback):
    """Keeps what training begins with."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **how: Any) -> None:
        self.step, self.model = state.global_step, {name: each.clone() for name, each in how["model"].state_dict().items()}
        self.optimizer = copy.deepcopy(how["optimizer"].state_dict()["state"])


def trainer(folder: Path, most: int, watch: Watch) -> Trainer:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=16, num_key_value_heads=2, **sizes))
    rows: Any = [{"input_ids": [number % 16, 3, 5], "labels": [number % 16, 3, 5]} for number in range(64)]
    how = TrainingArguments(
        str(folder), max_steps=most, save_steps=2, per_device_train_batch_size=4, report_to=[], use_cpu=True, logging_steps=1
    )
    return Trainer(model, how, train_dataset=rows, callbacks=[watch])


def test_transformers_trainer_goes_on_from_an_average_at_the_newest_step(tmp_path: Path) -> None:
    trainer(tmp_path / "run", 6, Watch()).train()
    out, saved = tmp_path / "out", [tmp_path / "run" / f"checkpoint-{number}" for number in (2, 4, 6)]
    warmkit.average(tmp_path / "run", out, container="same", optimizer="average")
    watch = Watch()
    resumed = trainer(tmp_path / "run", 8, watch)
    assert resumed.train(resume_from_checkpoint=str(out)).global_step == 8
    assert watch.step == 6
    weights = [load_file(each / "model.safetensors") for each in saved]
    for name in weights[0]:
        close(watch.model[name], [each[name] for each in weights])
    states = [torch.load(each / "optimizer.pt", weights_only=True)["state"] for each in saved]
    for number, found in watch.optimizer.items():
        assert found["step"] == 6
        for key in ("exp_avg", "exp_avg_sq"):
            close(found[key], [each[number][key] for each in states])


def close(found: torch.Tensor, saved: list[torch.Tensor]) -> None:
    """Compare with the mean: a third is rounded, too."""
    torch.testing.assert_close(found.double(), torch.stack([each.double() for each in saved]).mean(dim=0), rtol=2**-23, atol=0)


def assert_checksums(out: Path, kind: str) -> None:
    """Ask Python's zip reader, which compares the checksums that torch's passes over."""
    whole = [(file, 0, file.stat().st_size) for file in out.rglob("*.pt")]
    for file, start, length in whole if kind == "ranks" else torch_distributed.archives(out):
        content = io.BytesIO(file.read_bytes()[start : start + length])
        assert zipfile.ZipFile(content).testzip() is None
