"""What the callbacks of `warmkit.trl` cost: shares of a step of TRL's trainers.

    /path/to/venv/bin/python -m tests.benchmarks.trl_callbacks

The environment is that of `tests.experiments.with_trl`. The model is a Llama of ten million parameters with random weights in
float32; RLOO and GRPO sample 32 tokens for eight prompts, four completions each; DPO learns from eight pairs of 256 tokens, SFT
(transformers' Trainer) from eight texts of as many. The anchor's cost is the seconds of its update over those of the step
around it; the average's the seconds of writing it, as the run grows, over those of the steps between two saves. Beside it,
the same average is written by a process of its own. Medians; the first steps do not count.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
import trl
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

from tests.benchmarks.policy import PROMPTS, SETTINGS, build_llama, build_prompts, share
from warmkit.trl import AverageCheckpoints, EMAAnchor

WARM_UP, SAVE = 3, 50  # steps that do not count; steps between saves
SAVES = 10
TRAINERS = ("rloo", "grpo", "dpo", "sft")
Now = Callable[[], float]
TOKENS = 256  # of a text or a pair's half, at most


class Clock(TrainerCallback):
    """Notes when steps begin."""

    def __init__(self, now: Now) -> None:
        self.now, self.times = now, list[float]()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.times.append(self.now())

    @property
    def step(self) -> float:
        own = self.times[WARM_UP:]
        return statistics.median(later - earlier for earlier, later in itertools.pairwise(own))


def timed(callback: Any, event: str, now: Now) -> list[float]:
    """Let an event of a callback note its seconds."""
    seconds: list[float] = []
    inner = getattr(callback, event)

    @functools.wraps(inner)
    def call(*arguments: Any, **more: Any) -> None:
        began = now()
        inner(*arguments, **more)
        seconds.append(now() - began)

    setattr(callback, event, call)
    return seconds


def e_share(prompts: Any, completions: Any, **_: Any) -> list[float]:
    return share(prompts, completions)


def trainer_of(name: str, model: Path, train: Path, output: str, steps: int, dtype: torch.dtype) -> Trainer:
    shared: dict[str, Any] = {
        "output_dir": output,
        "use_cpu": True,
        "bf16": False,
        "max_steps": steps,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "logging_strategy": "no",
    }
    policy, tokenizer = AutoModelForCausalLM.from_pretrained(model, dtype=dtype), AutoTokenizer.from_pretrained(model)
    rows = [json.loads(line) for line in train.read_text("utf-8").splitlines()]
    if name == "sft":
        draw = torch.Generator().manual_seed(0)
        texts = [torch.randint(2, 8192, (TOKENS,), generator=draw) for _ in range(64)]
        data: Any = [{"input_ids": each, "attention_mask": torch.ones_like(each), "labels": each} for each in texts]
        return Trainer(policy, TrainingArguments(per_device_train_batch_size=8, **shared), train_dataset=data)
    how: dict[str, Any] = {"processing_class": tokenizer}
    if name == "dpo":
        long = " the sea is here and so are we" * 40
        rows = [{**row, "chosen": long, "rejected": long[1:]} for row in rows]
        args: Any = trl.DPOConfig(per_device_train_batch_size=8, max_length=TOKENS, **shared)
        return trl.DPOTrainer(policy, args=args, train_dataset=datasets.Dataset.from_list(rows), **how)
    kind = {"rloo": "RLOO", "grpo": "GRPO"}[name]
    sampling = {"num_generations": 4, "max_completion_length": 32, "temperature": 0.9, "beta": 0.1}
    args = getattr(trl, f"{kind}Config")(per_device_train_batch_size=32, **sampling, **shared)
    return getattr(trl, f"{kind}Trainer")(policy, e_share, args=args, train_dataset=datasets.Dataset.from_list(rows), **how)


def anchor_cost(make: Callable[[], Trainer], now: Now) -> tuple[float, float]:
    """Return the seconds of a step, and of the anchor's update in it."""
    trainer, clock = make(), Clock(now)
    anchor = EMAAnchor(trainer)
    updates = timed(anchor, "on_step_end", now)
    trainer.add_callback(clock)
    trainer.add_callback(anchor)
    trainer.train()
    return clock.step, statistics.median(updates[WARM_UP:])


def average_costs(folder: Path, trainer: Trainer) -> tuple[list[float], list[float], float, float]:
    """Return seconds of averages in line and in a process, as the run grows; CPU seconds of the last one of each."""
    callback = AverageCheckpoints("ema", mu=0.2)
    inline, beside, state = list[float](), list[float](), trainer.state
    own = other = 0.0
    for number in range(1, SAVES + 1):
        trainer.save_model(str(folder / f"checkpoint-{number * SAVE}"))
        state.global_step = number * SAVE
        began, cpu = time.perf_counter(), time.process_time()
        callback.on_save(trainer.args, state, trainer.control)
        inline.append(time.perf_counter() - began)
        own = time.process_time() - cpu
        found = [str(folder / f"checkpoint-{each * SAVE}") for each in range(1, number + 1)]
        how = ["-o", str(folder / "beside"), "--schedule", "ema", "--mu", "0.2", "--force", "--quiet"]
        began, cpu = time.perf_counter(), children()
        subprocess.run([sys.executable, "-m", "warmkit", "average", *found, *how], check=True)
        beside.append(time.perf_counter() - began)
        other = children() - cpu
    return inline, beside, own, other


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=TRAINERS)
    parser.add_argument(
        "--cpu", action="store_true", help="count CPU seconds, where the machine has other work; for one thread"
    )
    given = parser.parse_args()
    now = time.process_time if given.cpu else time.perf_counter
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model, train = build_llama(folder, SETTINGS["small"]), build_prompts(folder, PROMPTS)
        steps: dict[str, float] = {}
        for name in (each for each in given.trainers if each != "sft"):
            for dtype in (torch.float32, torch.bfloat16) if name == "dpo" else (torch.float32,):
                make = functools.partial(trainer_of, name, model, train, f"{place}/{name}", given.steps, dtype)
                step, update = anchor_cost(make, now)
                steps.setdefault(name, step)
                print(f"{name} {dtype}: step {step:.3f} s, anchor {1000 * update:.1f} ms, {update / step:.2%}", flush=True)
        if "sft" not in given.trainers:
            return
        trainer, clock = trainer_of("sft", model, train, f"{place}/sft", given.steps, torch.float32), Clock(now)
        trainer.add_callback(clock)
        trainer.train()
        steps["sft"] = clock.step
        inline, beside, own, other = average_costs(folder / "sft", trainer)
        print("average, in line", *(f"{each:.3f}" for each in inline), f"s; the last {own:.2f} s of the CPU")
        print("average, process", *(f"{each:.3f}" for each in beside), f"s; the last {other:.2f} s of the CPU")
        for name, step in steps.items():
            shares = [each / (SAVE * step) for each in inline]
            often = f"{statistics.median(shares):.2%}, at most {max(shares):.2%}"
            print(f"{name}: step {step:.3f} s, a save every {SAVE} steps: average {often}")


if __name__ == "__main__":
    main()
