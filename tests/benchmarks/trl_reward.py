"""TRL's side of `tests.benchmarks.reward_modeling`: runs inside TRL's own virtual environment and imports nothing of ours.

    /path/to/venv/bin/python -I tests/benchmarks/trl_reward.py plan.json

Prints one line of JSON: the version, the time after every step, the loss of every step. Everything that the plan does not
name is TRL's default: its collator, its metrics, its log every ten steps, the fused AdamW of transformers. Three things
are ours: the rows come in the order of the file, losses are kept as they are computed, and for an encoder the collator adds
token types, which TRL leaves out (its data preparation cannot read texts for a tokenizer without EOS either, so an encoder
gets token ids).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
import trl
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl.trainer.reward_trainer import DataCollatorForPreference


class Clock(TrainerCallback):
    """Notes the time when training begins and after every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.times.append(time.perf_counter())

    def on_step_end(self, *_: object, **__: object) -> None:
        self.times.append(time.perf_counter())


class KeepingTrainer(trl.RewardTrainer):
    """Keeps the loss of every step, without waiting for it."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.losses.append((result[0] if return_outputs else result).detach())
        return result


class PairCollator(DataCollatorForPreference):
    """Adds the token types of [CLS] prompt [SEP] answer [SEP]."""

    separator: int

    def torch_call(self, examples):
        batch = super().torch_call(examples)
        ends = (batch["input_ids"] == self.separator).long()
        return {**batch, "token_type_ids": (ends.cumsum(1) > ends).long() * batch["attention_mask"]}


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(plan["model"])
    model = AutoModelForSequenceClassification.from_pretrained(plan["model"], num_labels=1, dtype=torch.float32)
    rows = [json.loads(line) for line in Path(plan["ordered"]).read_text("utf-8").splitlines()]
    collator = None
    if "chosen_ids" in rows[0]:
        collator = PairCollator(pad_token_id=tokenizer.pad_token_id)
        collator.separator = tokenizer.sep_token_id
    clock = Clock()
    trainer = KeepingTrainer(
        model=model,
        args=trl.RewardConfig(
            output_dir=plan["output"],
            use_cpu=True,  # without it bfloat16 is refused where there is no GPU
            max_steps=plan["steps"],
            per_device_train_batch_size=plan["batch"],
            learning_rate=plan["lr"],
            lr_scheduler_type="constant",
            max_length=plan["max_length"],
            bf16=plan["precision"] == "bfloat16",
            gradient_checkpointing=plan["checkpointing"],
            train_sampling_strategy="sequential",
            save_strategy="no",
            report_to="none",
        ),
        data_collator=collator,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    assert len(trainer.train_dataset) == len(rows), "TRL drops pairs above max_length"
    trainer.losses = []
    trainer.train()
    assert model.is_gradient_checkpointing == plan["checkpointing"]
    losses = torch.stack(trainer.losses).tolist()
    print(json.dumps({"version": f"trl {trl.__version__}", "times": clock.times, "losses": losses}))


if __name__ == "__main__":
    main()
