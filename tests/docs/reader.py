"""The folder of a reader: tiny models, adapters, checkpoints and data under the names that the pages use.

python -m tests.docs.reader FOLDER
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.unit.training import tiny
from warmkit.training.reward_modeling import train_reward_model

FINE_TUNED = {
    "SFT": ["A", "B", "C", "D", "MODEL", "MATH-RL", "CODE-RL", "TOOLS-RL"],
    "BASE": ["MATH", "CODE", "CHAT", "TOXIC", "DENSE"],
    "run": [f"checkpoint-{each}" for each in (600, 800, 1000)],
}
"""Models by what they were fine-tuned from; those of a run are its checkpoints."""
RANK_FILES = Path(__file__).parents[1] / "data" / "rank_files" / "run"
RECIPE = """\
merge:
  method: slerp
  init: {init}
  models: [{models}]
  eta: 0.3
output:
  path: from-a-recipe
"""
MERGEKIT = """\
merge_method: linear
models:
  - {model: A, parameters: {weight: 0.5}}
  - {model: B, parameters: {weight: 0.5}}
dtype: float32
"""
SCORE = """\
import sys
from pathlib import Path

print(len((Path(sys.argv[1]) / "config.json").read_bytes()))
"""


def make(folder: Path) -> None:
    """Write everything that a page takes for granted."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    init = tiny.make(Path("SFT"), "llama", max_position_embeddings=512)
    shutil.copytree(init, "BASE")
    seeds = iter(range(1, 1000))
    for source, names in FINE_TUNED.items():
        for name in names:
            moved(init, Path(source, name) if source == "run" else Path(name), next(seeds))
    for checkpoint in Path("run").iterdir():
        trainer_states(checkpoint)
    texts()
    shutil.copytree(RANK_FILES, "verl-run")
    reward_models(init)
    value_heads(init)
    vocabularies(init)
    adapters(init)
    other_forms()
    for name, text in {"mergekit_config.yml": MERGEKIT, "evaluate.py": SCORE, "perplexity.py": SCORE}.items():
        Path(name).write_text(text)
    Path("recipe.yaml").write_text(RECIPE.format(init="SFT", models="A, B"))


def moved(source: Path, target: Path, seed: int, scale: float = 0.02) -> Path:
    """Write a model whose matrices are those of another, moved at random."""
    shutil.copytree(source, target)
    draw, weights = torch.Generator().manual_seed(seed), load_file(target / "model.safetensors")
    for name, value in weights.items():
        if value.ndim > 1:
            weights[name] = value + scale * torch.randn(value.shape, generator=draw)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def texts() -> None:
    """Write preferences, prompts and texts."""
    for name, (count, seed) in {"train": (48, 0), "val": (60, 50), "ood": (60, 70)}.items():
        tiny.write(Path(f"{name}.jsonl"), tiny.rows(count, seed))
    for name, seed in {"prompts": 1, "held-out": 3}.items():
        tiny.write(Path(f"{name}.jsonl"), [{"prompt": each} for each in tiny.sentences(6, seed)])
    tiny.write(Path("texts.jsonl"), [{"text": each} for each in tiny.sentences(6, 5)])


def reward_models(init: Path) -> None:
    """Train a reward model, in a run that a report can show, and write some that are near it."""
    for name, steps in {"a": 24, "b": 2}.items():
        recipe = tiny.recipe(Path("training"), name=f"../runs/{name}", steps=steps, batch_size=16, lr=3e-3)
        trained = train_reward_model(recipe).path
        if name == "a":
            for seed, other in enumerate(("RM", "GOLD", "RM-1", "RM-2", "RM-3", "WARM")):
                moved(trained, Path(other), seed, scale=0.005)


def trainer_states(checkpoint: Path) -> None:
    """Write what transformers' Trainer keeps beside the weights."""
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.randn(4), "exp_avg_sq": torch.rand(4)}
    torch.save({"state": {0: moments}, "param_groups": []}, checkpoint / "optimizer.pt")
    step = checkpoint.name.partition("-")[2]
    (checkpoint / "trainer_state.json").write_text(f'{{"global_step": {step}}}')


def value_heads(init: Path) -> None:
    """Write models that have a value head in a file of its own."""
    for seed, name in enumerate(("VALUE-SFT", "VALUE-A", "VALUE-B")):
        head = torch.randn((1, tiny.HIDDEN), generator=torch.Generator().manual_seed(seed))
        save_file({"v_head.summary.weight": head}, moved(init, Path(name), 50 + seed) / "value_head.safetensors")


def vocabularies(init: Path) -> None:
    """Write two models with added tokens of their own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name, tokens in {"CHAT-A": ["<|user|>", "<|bot|>"], "CHAT-B": ["<|bot|>"]}.items():
        model, tokenizer = AutoModelForCausalLM.from_pretrained(init), AutoTokenizer.from_pretrained(init)
        tokenizer.add_tokens(tokens)
        model.resize_token_embeddings(len(tokenizer))
        model.save_pretrained(name)
        tokenizer.save_pretrained(name)


def adapters(init: Path) -> None:
    """Write two adapters in peft's form."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    for seed, name in enumerate(("adapter-1", "adapter-2")):
        torch.manual_seed(seed)
        config: Any = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
        get_peft_model(AutoModelForCausalLM.from_pretrained("BASE"), config).save_pretrained(name)


def other_forms() -> None:
    """Write what `torch.save` and a trainer under FSDP leave."""
    import torch.distributed.checkpoint as dcp

    for name, file in {"A": "run-a/pytorch_model.bin", "B": "run-b/last.ckpt"}.items():
        weights = load_file(Path(name) / "model.safetensors")
        Path(file).parent.mkdir()
        torch.save({"state_dict": weights}, file)
        torch.save({"state_dict": weights, "state_dict_ema": weights}, Path(file).with_name("ema.ckpt"))
        dcp.save({"model": weights}, checkpoint_id=f"fsdp-{name.lower()}/checkpoint-500", no_dist=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
