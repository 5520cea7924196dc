"""TRL's side of `tests.benchmarks.policy`: runs inside TRL's own virtual environment and imports nothing of ours.

    /path/to/venv/bin/python -I tests/benchmarks/trl_policy.py plans.json

Prints a line of JSON for every plan: the version, the time after every step, seconds of generation and of the reward, average
lengths; for a comparison also completions and metrics. Everything that the plan does not name is TRL's default: transformers'
`generate`, the fused AdamW, the clipped loss with its pass for the old log-probabilities, a log every ten steps. Prompts come
in the order of the file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback


class Clock(TrainerCallback):
    """Notes the time when training begins and after every step."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now, self.times = now, []

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.times.append(self.now())

    def on_step_end(self, *_: object, **__: object) -> None:
        self.times.append(self.now())


class TimedTrainer(trl.RLOOTrainer):
    """Notes how long generation and rewards take, and what was sampled."""

    def _generate(self, prompts):
        began = self.now()
        result = super()._generate(prompts)
        self.generation.append(self.now() - began)
        self.sampled.append(result[1])
        return result

    def _calculate_rewards(self, *arguments):
        began = self.now()
        result = super()._calculate_rewards(*arguments)
        self.scoring.append(self.now() - began)
        return result


def share(completions: list[str], **_: object) -> list[float]:
    return [each.count("e") / max(1, len(each)) for each in completions]  # the reward of tests.benchmarks.policy


def run(plan: dict[str, Any]) -> dict[str, Any]:
    now = time.process_time if plan["cpu"] else time.perf_counter
    clock = Clock(now)
    trainer = TimedTrainer(
        model=AutoModelForCausalLM.from_pretrained(plan["model"], dtype=torch.float32),
        args=trl.RLOOConfig(
            output_dir=plan["output"],
            use_cpu=True,
            bf16=False,
            max_steps=plan["steps"],
            per_device_train_batch_size=plan["batch"] * plan["samples"],
            num_generations=plan["samples"],
            max_completion_length=plan["max_new_tokens"],
            temperature=plan["temperature"],
            beta=plan["beta"],
            learning_rate=plan["lr"],
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            shuffle_dataset=False,
            logging_steps=1 if plan["compare"] else 10,
            save_strategy="no",
            report_to="none",
        ),
        reward_funcs=share,
        train_dataset=Dataset.from_list([json.loads(line) for line in Path(plan["ordered"]).read_text("utf-8").splitlines()]),
        processing_class=AutoTokenizer.from_pretrained(plan["model"]),
        callbacks=[clock],
    )
    trainer.now, trainer.generation, trainer.scoring, trainer.sampled = now, [], [], []
    trainer.train()
    result = {
        "version": f"trl {trl.__version__}",
        "times": clock.times,
        "generation": trainer.generation,
        "scoring": trainer.scoring,
        "lengths": [sum(map(len, step)) / len(step) for step in trainer.sampled],
    }
    if plan["compare"]:
        result |= {"sampled": trainer.sampled, "metrics": [each for each in trainer.state.log_history if "grad_norm" in each]}
    return result


def main() -> None:
    for plan in json.loads(Path(sys.argv[1]).read_text("utf-8")):
        print(json.dumps(run(plan)))


if __name__ == "__main__":
    main()
