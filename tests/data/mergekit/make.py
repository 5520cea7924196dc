"""Write small models, and what mergekit 0.1.5 makes of them by the recipes of `cases.yaml`.

    python -m venv mergekit && mergekit/bin/pip install torch==2.13.0 mergekit==0.1.5
    mergekit/bin/python make.py

`models/` are Llamas of one layer in float64: `base`, `c`, `d` and `e` have one vocabulary, `a` and `b` added tokens to it. In
`said/` lie the results, all tensors of each, and the tokens of those whose vocabulary changed; `several` is mergekit-multi's.
Names of cases make those alone anew.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
TEXTS = ["the cat sat on the mat", "a dog and a cat"] * 4
ADDED: dict[str, list[str]] = {"base": [], "c": [], "d": [], "e": [], "a": ["<x>", "<y>"], "b": ["<z>", "<x>"]}
SIZES = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}


def tokenizer(added: list[str]) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.BPE())
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    words.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=22, special_tokens=["<s>", "</s>"], show_progress=False))
    words.add_special_tokens(added)
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")


def write(name: str, added: list[str], seed: int) -> None:
    """Write a model: the same weights plus noise of its own, rows by token."""
    words = tokenizer(added)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=24, initializer_range=0.5, bos_token_id=0, eos_token_id=1, **SIZES))
    model.resize_token_embeddings(len(words), mean_resizing=False)
    model.double()
    own = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.1 * torch.randn(each.shape, generator=own, dtype=torch.float64))
    model.save_pretrained(HERE / "models" / name)
    words.save_pretrained(HERE / "models" / name)
    (HERE / "models" / name / "generation_config.json").unlink()


def say(case: str, recipe: dict[str, Any], folder: Path) -> None:
    (folder / f"{case}.yml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    command = [Path(sys.executable).with_name("mergekit-yaml"), folder / f"{case}.yml", folder / case, "--no-write-model-card"]
    subprocess.run(command, cwd=HERE / "models", check=True)
    save_file(load_file(folder / case / "model.safetensors"), HERE / "said" / f"{case}.safetensors")
    if "tokenizer" in recipe:
        content = json.loads((folder / case / "tokenizer.json").read_text())
        said = {
            "added": content["added_tokens"],
            "vocab_size": json.loads((folder / case / "config.json").read_text())["vocab_size"],
        }
        (HERE / "said" / f"{case}.json").write_text(json.dumps(said, indent=1) + "\n")


def several(recipes: str, folder: Path) -> None:
    (folder / "several.yml").write_text(recipes)
    command = [Path(sys.executable).with_name("mergekit-multi"), folder / "several.yml", "-I", folder / "inner"]
    subprocess.run([*command, "--out-path", folder / "several", "--no-write-model-card"], cwd=HERE / "models", check=True)
    save_file(load_file(folder / "several" / "model.safetensors"), HERE / "said" / "several.safetensors")


def main() -> None:
    cases = yaml.safe_load((HERE / "cases.yaml").read_text())
    chosen = sys.argv[1:] or [*cases, "several"]
    for part in ("models", "said") if len(sys.argv) == 1 else ():
        shutil.rmtree(HERE / part, ignore_errors=True)
    (HERE / "said").mkdir(exist_ok=True)
    for seed, (name, added) in enumerate(ADDED.items() if len(sys.argv) == 1 else ()):
        write(name, added, seed + 1)
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen:
            if case == "several":
                several((HERE / "several.yaml").read_text(), Path(folder))
            else:
                say(case, cases[case], Path(folder))


if __name__ == "__main__":
    main()
