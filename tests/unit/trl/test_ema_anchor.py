"""The reference of a trainer follows its policy as our own loop's anchor does, and is the same after a kill."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests import forks
from tests.unit.training import tiny
from tests.unit.trl import trainers
from tests.unit.trl.trainers import KILL, KINDS, MU, KLTrainer
from warmkit.errors import CheckpointError, MismatchError, UsageError
from warmkit.training.anchor import Anchor, anchor_of
from warmkit.trl import EMAAnchor
from warmkit.trl.ema_anchor import FILE

IDS = {"input_ids": torch.tensor([[5, 6, 7, 8]])}


class Ours(transformers.TrainerCallback):
    """The anchor of our own loop, which follows the same policy."""

    anchor: Anchor

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.anchor = anchor_of(model, "ema", MU)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.anchor.update()


def opened(folder: Path, kind: str = "whole", run: str = "run", **changes: Any) -> tuple[KLTrainer, EMAAnchor, Ours]:
    trainer = trainers.trainer(tiny.model("llama", folder / "llama"), folder / run, kind, **changes)
    anchor, ours = EMAAnchor(trainer, mu=MU), Ours()
    trainer.add_callback(anchor)
    trainer.add_callback(ours)
    return trainer, anchor, ours


def parameters(model: Any) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in model.named_parameters()} if model else {}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(each, other[name]) for name, each in one.items())


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_the_bytes_of_our_own_loops_anchor(kind: str, tmp_path: Path) -> None:
    trainer, anchor, ours = opened(tmp_path, kind)
    first = {name: each.clone() for name, each in anchor_of(trainer.model, "ema", MU).copies.items()}
    trainer.train()
    assert same(anchor.weights(), ours.anchor.copies)
    assert all(each.dtype == torch.float32 for each in anchor.weights().values())
    assert not same(anchor.weights(), first)
    if trainer.ref_model is not None:
        dtype = next(trainer.ref_model.parameters()).dtype
        assert same({name: each.to(dtype) for name, each in anchor.weights().items()}, parameters(trainer.ref_model))


@pytest.mark.parametrize("kind", [each for each in KINDS if each != "bfloat16"])
def test_what_the_trainer_takes_for_its_reference_says_what_the_anchor_says(kind: str, tmp_path: Path) -> None:
    trainer, _, ours = opened(tmp_path, kind)
    before = trainer.model.eval()(**IDS).logits.detach()
    trainer.train()
    said = trainer.reference_logits(**IDS)
    assert torch.allclose(said, ours.anchor(**IDS).logits, atol=1e-6)
    assert not torch.allclose(said, before, atol=1e-3)
    assert not torch.allclose(said, trainer.model.eval()(**IDS).logits, atol=1e-3)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were killed in their fifth step, a folder a kind."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.unit.trl.trainers", str(tiny.model("llama", folder / "llama")), str(folder)]
    done = forks.run(command, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_is_resumed_to_the_same_bytes(kind: str, killed: Path, tmp_path: Path) -> None:
    whole, anchor, _ = opened(tmp_path, kind)
    whole.train()
    assert {each.name for each in (killed / kind).glob("checkpoint-*")} == {"checkpoint-2", f"checkpoint-{KILL - 1}"}
    resumed, again, _ = opened(killed, kind, kind)
    resumed.train(resume_from_checkpoint=True)
    assert same(anchor.weights(), again.weights())
    assert same(parameters(whole.model), parameters(resumed.model))
    assert same(parameters(whole.ref_model), parameters(resumed.ref_model))


def test_it_goes_on_from_the_checkpoint_that_is_named_wherever_it_lies(tmp_path: Path) -> None:
    trainer, anchor, _ = opened(tmp_path)
    trainer.train()
    other, again, _ = opened(tmp_path, run="other")
    other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert same(anchor.weights(), again.weights())


def test_a_checkpoint_without_an_anchor_is_refused_and_one_that_has_it_named(tmp_path: Path) -> None:
    trainer, _, _ = opened(tmp_path)
    trainer.train()
    (tmp_path / "run" / "checkpoint-6" / FILE).unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint-6: has no warmkit/anchor.*resume from \S*checkpoint-4$"):
        opened(tmp_path)[0].train(resume_from_checkpoint=True)


def test_an_anchor_of_other_tensors_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)[0].train()
    file = tmp_path / "run" / "checkpoint-6" / FILE
    save_file({name: each for name, each in load_file(file).items() if name != "lm_head.weight"}, file)
    with pytest.raises(MismatchError, match="expected the anchor of 21 tensors that learn here, found one of 20"):
        opened(tmp_path)[0].train(resume_from_checkpoint=True)


def test_a_second_training_goes_on_with_the_anchor(tmp_path: Path) -> None:
    trainer, anchor, _ = opened(tmp_path, "lora", save_strategy="no")
    trainer.train()
    first = anchor.weights()
    trainer.args.max_steps = 1
    trainer.train()
    policy = anchor_of(trainer.model, "ema", MU).copies
    assert all(torch.allclose(each, first[name].lerp(policy[name], MU), atol=1e-7) for name, each in anchor.weights().items())


def test_checkpoints_without_an_optimizer_have_no_anchor(tmp_path: Path) -> None:
    opened(tmp_path, save_only_model=True)[0].train()
    assert not list(tmp_path.rglob("anchor.safetensors"))


def test_the_file_is_float32_and_whole(tmp_path: Path) -> None:
    trainer, anchor, _ = opened(tmp_path, "bfloat16")
    trainer.train()
    assert same(load_file(tmp_path / "run" / "checkpoint-6" / FILE), anchor.weights())


def test_what_cannot_follow_is_refused_by_name(tmp_path: Path) -> None:
    home = tiny.model("llama", tmp_path / "llama")
    plain = transformers.Trainer(model=tiny.load(home).model, args=trainers.arguments(tmp_path))
    with pytest.raises(UsageError, match="Trainer has no reference model to follow the policy"):
        EMAAnchor(plain)
    trainer = trainers.trainer(home, tmp_path / "run")
    with pytest.raises(UsageError, match=r"mu must be at least 0 and at most 1, found 1\.5"):
        EMAAnchor(trainer, mu=1.5)
    trainer.args.sync_ref_model = True
    with pytest.raises(UsageError, match="sync_ref_model moves the reference model too"):
        EMAAnchor(trainer)
    trainer.args.sync_ref_model, trainer.args.precompute_ref_log_probs = False, True
    with pytest.raises(UsageError, match="precompute_ref_log_probs asks the reference before it moves"):
        EMAAnchor(trainer)
    trainer.args.precompute_ref_log_probs, trainer.beta = False, 0.0
    with pytest.raises(UsageError, match="KLTrainer with beta 0 has no KL"):
        EMAAnchor(trainer)
    trainer.beta, trainer.ref_model = 0.1, None
    with pytest.raises(UsageError, match=r"no reference model \(ref_model is None\)"):
        EMAAnchor(trainer)
    trainer.ref_model = tiny.load(home).model
    trainer.add_callback(EMAAnchor(trainer))
    with pytest.raises(UsageError, match="has an EMAAnchor already"):
        EMAAnchor(trainer)
    with pytest.raises(MismatchError, match=r"found none like lm_head\.weight"):
        trainer.train()


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # a name that transformers gave up
@pytest.mark.filterwarnings("ignore:.lora_bias=True. was passed")  # what peft says of layers without a bias
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "is adapted by DoRA"),
        ({"lora_bias": True}, "is adapted by lora_bias"),
        ({"target_modules": ["embed_tokens"]}, "is adapted by peft's Embedding"),
        ({"modules_to_save": ["lm_head"]}, "lm_head.* learns beside LoRA's adapters"),
        ({"target_modules": [], "target_parameters": ["q_proj.weight"]}, "is adapted by peft's ParamWrapper"),
    ],
    ids=["dora", "lora_bias", "embeddings", "modules_to_save", "target_parameters"],
)
def test_adapters_that_are_more_than_their_products_are_refused_by_name(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    trainer = trainers.trainer(tiny.model("llama", tmp_path / "llama"), tmp_path / "run")
    trainer.model = peft.get_peft_model(
        trainer.model, peft.LoraConfig(task_type="CAUSAL_LM", **{"target_modules": ["q_proj"], **changes})
    )
    trainer.ref_model = None
    with pytest.raises(UsageError, match=said):
        EMAAnchor(trainer)
