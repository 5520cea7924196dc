"""Files of the mistakes that `mistakes.py` makes: tiny models, damaged ones, recipes and data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.cli.conftest import classifier
from tests.conftest import CONFIG, make_family, save, weights
from tests.unit.training import tiny

Tensors = dict[str, torch.Tensor]
NORM = "model.layers.1.norm.weight"
WEIGHTS = "model.safetensors"


def build(folder: Path) -> None:
    """Write everything that the commands read."""
    make_family(folder)
    _damage(folder)
    _unreadable(folder)
    _places(folder)
    _recipes(folder)
    _trained(folder)


def _changed(folder: Path, name: str, change: Callable[[Tensors], None]) -> None:
    tensors = load_file(folder / "b" / WEIGHTS)
    change(tensors)
    save(folder / name, tensors)


def _damage(folder: Path) -> None:
    """Write models that do not go together with the others."""
    _changed(folder, "lacking", lambda tensors: tensors.pop(NORM))
    _changed(folder, "extra", lambda tensors: tensors.update({"model.layers.1.bias": torch.ones(8)}))
    _changed(folder, "larger", lambda tensors: tensors.update({NORM: torch.ones(16)}))
    _changed(folder, "wider", lambda tensors: tensors.update({"lm_head.weight": torch.ones(48, 8)}))
    _changed(folder, "nan", lambda tensors: tensors[NORM].fill_(float("nan")))
    _changed(folder, "huge", lambda tensors: tensors[NORM].fill_(1e30))
    _changed(folder, "gptq", lambda tensors: tensors.update({"model.layers.0.q.qweight": torch.ones(8, 8, dtype=torch.int32)}))
    _changed(folder, "fp8", lambda tensors: tensors.update({NORM: tensors[NORM].to(torch.float8_e4m3fn)}))
    rope = {**CONFIG, "rope_theta": 1_000_000.0}
    save(folder / "rope", weights(2), rope)
    head = "lm_head.weight"
    save(folder / "opposite", {**weights(2), head: 2 * weights(0)[head] - weights(1)[head]})
    save(folder / "bert", weights(2), {**CONFIG, "model_type": "bert", "architectures": ["BertModel"]})


def _unreadable(folder: Path) -> None:
    """Write what looks like a model and is none, or one that is not read."""
    (folder / "empty").mkdir()
    (folder / "around" / "model").mkdir(parents=True)
    shutil.copy(folder / "a" / WEIGHTS, folder / "around" / "model")
    (folder / "model.gguf").write_bytes(b"GGUF\x03\0\0\0")
    (folder / "notes.txt").write_text("to do\n")
    cut = save(folder / "cut", weights(2)) / WEIGHTS
    cut.write_bytes(cut.read_bytes()[:-5000])
    pointer = save(folder / "pointer", weights(2)) / WEIGHTS
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4813\n")
    (save(folder / "config", weights(2)) / "config.json").write_text('{"model_type": "llama",')
    index = save(folder / "index", weights(2), shards=2)
    (index / "model-00002-of-00002.safetensors").unlink()
    both = save(folder / "both", weights(2), shards=2)
    shutil.copy(folder / "b" / WEIGHTS, both)
    (folder / "pickled").mkdir()
    torch.save(weights(2), folder / "pickled" / "pytorch_model.bin")
    shutil.copy(folder / "b" / "config.json", folder / "pickled")
    (folder / "adapter").mkdir()
    lora = {f"base_model.model.{NORM}.lora_{half}.weight": torch.ones(2, 2) for half in "AB"}
    save_file(lora, folder / "adapter" / "adapter_model.safetensors")
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))


def _places(folder: Path) -> None:
    """Write places that are taken."""
    save(folder / "taken", weights(3))
    keep = save(folder / "keep", weights(3))
    (keep / "thesis.txt").write_text("years of work\n")


def _recipes(folder: Path) -> None:
    """Write recipes, each with one mistake, and what is right beside them."""
    merge = {"merge": {"method": "lerp", "models": ["a", "b"]}, "output": {"path": "out"}}
    linear = {"merge_method": "linear", "models": [{"model": name, "parameters": {"weight": 0.5}} for name in "ab"]}
    slerp = {"merge_method": "slerp", "base_model": "a", "models": [{"model": "a"}, {"model": "b"}]}
    train = {
        "model": {"path": "sft"},
        "data": {"train": "pairs.jsonl"},
        "rm": {"steps": 2, "lr": 1e-5, "batch_size": 2},
        "output": {"path": "run"},
    }
    texts = {
        "merge": merge,
        "method": {**merge, "merge": {**merge["merge"], "method": "linear"}},
        "key": {**merge, "merge": {**merge["merge"], "weights": [0.5, 0.5]}},
        "section": {**merge, "outputs": merge["output"]},
        "number": {**merge, "merge": {**merge["merge"], "lambda": "half"}},
        "models": {"merge": {"method": "lerp"}, "output": {"path": "out"}},
        "mergekit-slerp": slerp,
        "mergekit-method": {**linear, "merge_method": "lineer"},
        "mergekit-lacked": {**linear, "merge_method": "nuslerp", "parameters": {"nuslerp_flatten": False}},
        "mergekit-weight": {**linear, "models": [{"model": "a"}, {"model": "b"}]},
        "mergekit-key": {**linear, "parameters": {"wieght": 0.5}},
        "train": train,
        "train-key": {**train, "rm": {**train["rm"], "learning_rate": 1e-5}},
        "train-type": {**train, "rm": {**train["rm"], "steps": "many"}},
        "train-data": {key: value for key, value in train.items() if key != "data"},
        "command": {
            "model": {"path": "policy"},
            "command": {"run": "python train.py {init} {output} --seed {seed}"},
            "warp": {"runs": 2},
            "output": {"path": "out"},
        },
        "train-choice": {**train, "rm": {**train["rm"], "schedule": "cosin"}},
    }
    for name, content in texts.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (folder / "nothing.yaml").write_text("")
    (folder / "tabs.yaml").write_text("merge:\n\tmethod: lerp\n")
    (folder / "twice.yaml").write_text("merge:\n  models: [a, b]\n  method: lerp\n  method: slerp\n")


def _trained(folder: Path) -> None:
    """Write a reward model, a policy, and data, good and bad."""
    for name, architecture in (("rm", "llama"), ("rm-bert", "bert")):
        classifier(folder / name, architecture, 1)
    tiny.make(folder / "policy", "llama")
    rows = tiny.rows(8)
    tiny.write(folder / "pairs.jsonl", rows)
    tiny.write(folder / "equal.jsonl", [*rows[:2], {**rows[2], "rejected": rows[2]["chosen"]}])
    tiny.write(folder / "keys.jsonl", [{"question": "2 + 2?", "good": "4", "bad": "5"}])
    (folder / "broken.jsonl").write_text(json.dumps(rows[0]) + '\n{"prompt": "the cat"\n')
    (folder / "nothing.jsonl").write_text("")
    (folder / "table.csv").write_text("prompt,chosen,rejected\n")
    tiny.write(folder / "answers.jsonl", [{"prompt": "the cat"}])
    tiny.write(folder / "prompts.jsonl", [{"prompt": row["prompt"]} for row in rows])
