"""`warmkit.trl` in TRL's own trainers: killed and resumed, under LoRA, in shards, and beside our own loop.

    /path/to/venv/bin/python -m tests.experiments.with_trl -o with_trl.json

The environment has TRL 1.16.0 (torch 2.13.0, transformers 5.24.0, accelerate 1.15.0), peft 0.21.2 and warmkit. The models are
tiny Llamas with random weights, trained for six steps of which every second one is saved. Each case is run as a whole, once
more with a SIGKILL in the fifth step, and resumed: policy, reference, anchor and the average of the checkpoints must have the
same bytes. Beside each whole run the anchor of our own loop (`warmkit.training.anchor`) follows the same policy, which must
give the same bytes, and what the trainer takes for its reference must say what that anchor says. DDP and FSDP2 have two
processes with gloo. For RLOO, our own loop is given the completions that TRL sampled. The run fails where something differs.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import peft
import torch
import trl
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.utils import use_adapter

import warmkit
from tests.benchmarks.policy import PROMPTS, Setting, build_llama, build_prompts, share, write_ordered
from tests.benchmarks.warmkit_policy import recipe, replay
from warmkit.evaluation import policy_evaluator
from warmkit.training.anchor import Anchor, anchor_of, follow
from warmkit.training.policy import train_policy
from warmkit.training.sharding import put_together
from warmkit.trl import AverageCheckpoints, EMAAnchor

STEPS, SAVE, KILL, MU = 6, 2, 5, 0.25
EPSILON = 1e-4  # large: Adam makes whole steps of what is but rounding
NEAR = 1e-3  # two implementations in float32, through six steps of Adam
TINY = Setting(64, 2, 1024, True, STEPS)
SAMPLES, BATCH, LENGTH = 4, 4, 8
TRAINERS = ("rloo", "grpo", "dpo", "kto")
KINDS = ("whole", "bfloat16", "lora", "lora, trained before")
LAUNCH = [
    *("-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"),
    *("--dynamo_backend", "no", "--main_process_port", "0"),
]
SHARDED = [
    *("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"),
    *("--fsdp_transformer_layer_cls_to_wrap", "LlamaDecoderLayer", "--fsdp_state_dict_type"),
]
TWO = {  # processes, with gloo
    "ddp": ["--multi_gpu"],
    "sharded": [*SHARDED, "SHARDED_STATE_DICT"],
    "sharded, saved whole": [*SHARDED, "FULL_STATE_DICT"],
}


# ---- one run, in a process of its own --------------------------------------------------------------------------------


def trainer_of(plan: dict[str, Any]) -> Any:
    """Make a trainer of TRL as its users do."""
    name, kind = plan["trainer"], plan["kind"]
    shared: dict[str, Any] = {
        "output_dir": plan["output"],
        "use_cpu": True,
        "bf16": False,
        "max_steps": STEPS,
        "save_steps": SAVE,
        "per_device_train_batch_size": BATCH * SAMPLES,
        "learning_rate": plan["lr"],
        "lr_scheduler_type": "constant",
        "adam_epsilon": EPSILON,
        "beta": 0.1,
        "logging_steps": 1,
        "report_to": "none",
        "shuffle_dataset": False,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }
    if name in ("rloo", "grpo"):
        shared |= {"num_generations": SAMPLES, "max_completion_length": LENGTH, "temperature": 0.9}
    else:
        del shared["shuffle_dataset"]
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(plan["model"], dtype=dtype)
    lora = peft.LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM") if "lora" in kind else None
    if kind == "lora, trained before":
        model, lora = peft.PeftModel.from_pretrained(model, plan["adapter"], is_trainable=True), None
    rows = [json.loads(line) for line in Path(plan["ordered"]).read_text("utf-8").splitlines()]
    if name == "dpo":
        rows = [{**row, "chosen": " the sea is here", "rejected": " no"} for row in rows]
    if name == "kto":
        rows = [{**row, "completion": " the sea", "label": place % 2 == 0} for place, row in enumerate(rows)]
    how = {"reward_funcs": e_share} if name in ("rloo", "grpo") else {}
    kinds = {"rloo": "RLOO", "grpo": "GRPO", "dpo": "DPO", "kto": "KTO"}
    return getattr(trl, f"{kinds[name]}Trainer")(
        model=model,
        args=getattr(trl, f"{kinds[name]}Config")(**shared),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(plan["model"]),
        peft_config=lora,
        **how,
    )


def e_share(prompts: Any, completions: Any, **_: Any) -> list[float]:
    return share(prompts, completions)


class Killed(TrainerCallback):
    """Kills the process in the middle of a step."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == KILL - 1:
            os.kill(os.getpid(), signal.SIGKILL)


class Ours(TrainerCallback):
    """The anchor of our own loop, which follows the same policy; of several processes, its formula on weights put together."""

    def __init__(self, several: bool) -> None:
        self.several, self.anchor = several, None
        self.copies: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self.several:
            self.copies = {name: each.clone() for name, each in put_all_together(model).items()}
        else:
            self.anchor = anchor_of(model, "ema", MU)
            self.copies = self.anchor.copies

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self.anchor is None:
            follow(self.copies, put_all_together(model), MU)
        else:
            self.anchor.update()


def put_all_together(model: Any) -> dict[str, torch.Tensor]:
    return {name: put_together(each.detach()) for name, each in model.named_parameters()} if model else {}


@torch.no_grad()
def said(trainer: Any) -> torch.Tensor:
    """Return what a trainer's reference says, as TRL asks it."""
    ids = torch.arange(3, 24)[None]
    if trainer.ref_model is not None:
        return trainer.ref_model(input_ids=ids).logits
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    with use_adapter(model, "ref" if "ref" in model.peft_config else None):
        return model(input_ids=ids).logits


def child(plan: dict[str, Any]) -> None:
    """Train as planned, and leave what came out."""
    torch.manual_seed(0)
    trainer = trainer_of(plan)
    sampled: list[Any] = []
    if plan["trainer"] in ("rloo", "grpo"):
        trainer._generate = _noted(trainer._generate, sampled)
    anchor, ours = EMAAnchor(trainer, mu=MU), Ours(plan["kind"] in TWO)
    trainer.add_callback(anchor)
    trainer.add_callback(AverageCheckpoints("ema", mu=0.2))
    if plan["ours"]:
        trainer.add_callback(ours)
    if plan["kill"]:
        trainer.add_callback(Killed())
    trainer.train(resume_from_checkpoint=plan["resume"])
    left = {
        "anchor": anchor.weights(),
        "policy": put_all_together(trainer.model),
        "reference": put_all_together(trainer.ref_model),
    }
    left |= {"sampled": sampled, "log": [each for each in trainer.state.log_history if "grad_norm" in each]}
    left |= {"ours": ours.copies if plan["ours"] else None, "said": said(trainer)}
    left["expected"] = ours.anchor(input_ids=torch.arange(3, 24)[None]).logits if ours.anchor else None
    if trainer.accelerator.is_main_process:
        torch.save(left, plan["left"])


def _noted(generate: Any, sampled: list[Any]) -> Any:
    @functools.wraps(generate)
    def call(*arguments: Any, **more: Any) -> Any:
        result = generate(*arguments, **more)
        sampled.append(result[1])
        return result

    return call


# ---- the cases -------------------------------------------------------------------------------------------------------


def start(folder: Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """Run a plan; return what it left, nothing where it was killed."""
    file, left = folder / "plan.json", folder / "left.pt"
    left.unlink(missing_ok=True)
    file.write_text(json.dumps({**plan, "left": str(left)}))
    module = ["-m", "tests.experiments.with_trl", "--plan", str(file), "-o", os.devnull]
    command = [sys.executable, "-W", "ignore", *module]
    if plan["kind"] in TWO:
        command = [sys.executable, *LAUNCH, *TWO[plan["kind"]], *module]
    settings = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment = {name: value for name, value in {**os.environ, **settings}.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=600)
    if plan["kill"]:
        assert done.returncode, "the run was not killed"
        return None
    if not left.exists():
        raise SystemExit(f"{plan['trainer']}, {plan['kind']}:\n{done.stdout[-2000:]}{done.stderr[-6000:]}")
    return torch.load(left, weights_only=False)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(each, other[name]) for name, each in one.items())


def killed_and_resumed(folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """Compare a run with one that was killed and resumed."""
    whole = start(folder, {**plan, "output": f"{plan['output']}/whole", "ours": True})
    start(folder, {**plan, "output": f"{plan['output']}/killed", "kill": True})
    resumed = start(folder, {**plan, "output": f"{plan['output']}/killed", "resume": True})
    assert whole is not None
    assert resumed is not None
    found: dict[str, Any] = {"case": f"{plan['trainer']}, {plan['kind']}"}
    found |= {name: same(whole[name], resumed[name]) for name in ("policy", "reference", "anchor")}
    averages = [load_file(Path(plan["output"], each, "average-ema", "model.safetensors")) for each in ("whole", "killed")]
    found["average"] = same(*averages)
    found["as our anchor"] = same(whole["anchor"], whole["ours"])
    expected = whole["expected"]
    if expected is None:  # of several processes: a plain model says what it should say
        model = AutoModelForCausalLM.from_pretrained(plan["model"])
        model.load_state_dict(whole["anchor"], strict=False)
        expected = model(input_ids=torch.arange(3, 24)[None]).logits
    most = 0.05 if plan["kind"] == "bfloat16" else 1e-5
    found["says what it should"] = bool((whole["said"] - expected).abs().max() < most)
    init = AutoModelForCausalLM.from_pretrained(plan["model"])(input_ids=torch.arange(3, 24)[None]).logits
    found["said, from the init's"] = float((whole["said"] - init).abs().max().detach())
    print(found, flush=True)
    return found


def beside_our_loop(folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """Give our own loop the completions that RLOO sampled; return how far the two are apart, relative to how far they went."""
    theirs = start(folder, {**plan, "output": f"{plan['output']}/theirs"})
    assert theirs
    more = {"samples": SAMPLES, "beta": 0.1, "temperature": 0.9, "max_new_tokens": LENGTH, "anchor": "ema", "apart": False}
    own = recipe({**plan, **more, "output": f"{plan['output']}/ours"})
    own = replace(own, policy=replace(own.policy, mu=MU, epsilon=EPSILON))
    anchors: list[dict[str, torch.Tensor]] = []
    update = Anchor.update

    def noted(anchor: Anchor) -> None:
        update(anchor)
        anchors.append({name: each.clone() for name, each in anchor.copies.items()})

    with patch.object(policy_evaluator, "sample", replay(theirs["sampled"])), patch.object(Anchor, "update", noted):
        train_policy(own)
    lines = [json.loads(line) for line in (Path(own.output.path) / "metrics.jsonl").read_text("utf-8").splitlines()]
    init = load_file(Path(plan["model"]) / "model.safetensors")
    found: dict[str, Any] = {"case": "rloo, beside our own loop"}
    went = {name: each - init[name] for name, each in theirs["anchor"].items()}
    apart = {name: each - theirs["anchor"][name] for name, each in anchors[-1].items()}
    found["anchor apart"] = largest(apart) / largest(went)
    for mine, length in zip(lines, (sum(map(len, step)) / len(step) for step in theirs["sampled"]), strict=True):
        mine["kl"] = mine["kl_anchor_sampled"] / length  # TRL divides by the tokens
    for name in ("grad_norm", "kl"):
        found[f"{name} apart"] = max(
            abs(mine[name] - other[name]) / max(1e-3, abs(other[name]))
            for mine, other in zip(lines, theirs["log"], strict=True)
        )
    found["kl"] = [other["kl"] for other in theirs["log"]]
    print(found, flush=True)
    assert all(found[f"{name} apart"] < NEAR for name in ("anchor", "grad_norm", "kl")), "our loop has another anchor"
    return found


def largest(tensors: dict[str, torch.Tensor]) -> float:
    return max(float(each.abs().max()) for each in tensors.values())


def plans(folder: Path) -> Iterator[dict[str, Any]]:

    model = str(build_llama(folder, TINY))
    plan: dict[str, Any] = {
        "model": model,
        "train": str(build_prompts(folder, PROMPTS)),
        "ordered": str(folder / "ordered.jsonl"),
    }
    plan |= {"lr": 1e-3, "kill": False, "resume": None, "ours": False, "batch": BATCH, "steps": STEPS}
    write_ordered(plan, PROMPTS)
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    for name, each in adapted.named_parameters():
        if ".lora_" in name:
            each.data.mul_(0.1)
    adapted.save_pretrained(folder / "adapter")
    plan["adapter"] = str(folder / "adapter")
    for name in TRAINERS:
        for kind in (*KINDS, *TWO):
            yield {**plan, "trainer": name, "kind": kind, "output": str(folder / "runs" / f"{name} {kind}")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    options, found = parser.parse_args(), list[dict[str, Any]]()
    if options.plan:
        child(json.loads(options.plan.read_text()))
        return
    print("warmkit", warmkit.__version__, "torch", torch.__version__, flush=True)
    with tempfile.TemporaryDirectory() as place:
        for plan in plans(Path(place)):
            if options.only in f"{plan['trainer']}, {plan['kind']}":
                found.append(killed_and_resumed(Path(place), plan))
                options.output.write_text(json.dumps(found, indent=2) + "\n")
        if options.only in "rloo, beside our own loop":
            found.append(beside_our_loop(Path(place), {**next(plans(Path(place))), "output": f"{place}/beside"}))
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    assert all(value for each in found for value in each.values()), "something differs"


if __name__ == "__main__":
    main()
