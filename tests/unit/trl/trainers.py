"""A trainer that keeps a policy close to a reference, as TRL's do; run as a module, trainings that are killed on their way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from warmkit.training.lora import add_adapters
from warmkit.training.recipe_sections import LoraSection
from warmkit.trl import AverageCheckpoints, EMAAnchor

STEPS, KILL, MU = 6, 5, 0.3
KINDS = ("whole", "bfloat16", "lora", "lora, trained before")


class KLTrainer(Trainer):
    """Cross entropy, and the KL to a reference: a model of its own, or the policy's with adapters off or a copy of them on."""

    def __init__(self, *arguments: Any, ref_model: Any = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.beta, self.ref_model = 0.1, ref_model

    def reference_logits(self, **inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            if self.ref_model is not None:
                return self.ref_model(**inputs).logits
            if "ref" not in self.model.peft_config:
                with self.model.disable_adapter():
                    return self.model(**inputs).logits
            self.model.set_adapter("ref")
            logits = self.model(**inputs).logits
            self.model.set_adapter("default")
            return logits

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        told = model(**inputs)
        seen = {name: each for name, each in inputs.items() if name != "labels"}
        spoken, referred = (each.float().log_softmax(-1) for each in (told.logits, self.reference_logits(**seen)))
        loss = told.loss + self.beta * (spoken.exp() * (spoken - referred)).sum(-1).mean()
        return (loss, told) if return_outputs else loss


def examples(count: int = 64) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(5, 100, (8,), generator=draw) for _ in range(count)]
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in rows]


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "max_steps": STEPS,
        "save_steps": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "report_to": [],
        "disable_tqdm": True,
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**settings | changes)


def trainer(
    model: Path, folder: Path, kind: str = "whole", callbacks: Sequence[TrainerCallback] = (), **changes: Any
) -> KLTrainer:
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    policy, reference = (AutoModelForCausalLM.from_pretrained(model, dtype=dtype) for _ in range(2))
    if "lora" in kind:
        reference = None
        policy = add_adapters(policy, LoraSection(rank=2), "CAUSAL_LM", 0)
    if kind == "lora, trained before":
        torch.manual_seed(1)
        for name, each in policy.named_parameters():
            if ".lora_" in name:
                each.data += 0.1 * torch.randn_like(each)
        policy.add_adapter("ref", policy.peft_config["default"])  # what TRL does with an adapter that it is given
        for name, each in list(policy.named_parameters()):
            if ".default." in name:
                policy.get_parameter(name.replace(".default.", ".ref.")).data.copy_(each.data)
    told = arguments(folder, **changes)
    return KLTrainer(model=policy, ref_model=reference, args=told, train_dataset=examples(), callbacks=list(callbacks))


class Killed(TrainerCallback):
    """Kills the process in the middle of a step."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == KILL - 1:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(model: Path, run: Path, kind: str) -> None:
    """Train in a fork of this process, which ends by its own SIGKILL."""
    child = os.fork()
    if not child:
        made = trainer(model, run, kind, [AverageCheckpoints("uniform"), Killed()])
        made.add_callback(EMAAnchor(made, mu=MU))
        made.train()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


if __name__ == "__main__":
    for each in KINDS:
        killed(Path(sys.argv[1]), Path(sys.argv[2]) / each, each)
