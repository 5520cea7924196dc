"""Models whose best merge is known, and scores of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.unit.training import tiny

BEST = (0.3, 0.6)  # of the two task vectors
NAME = "model.layers.1.mlp.down_proj.weight"


def family(folder: Path) -> tuple[Path, list[Path]]:
    """Write an init and two models, and beside them what the best merge's matrix is, and what another score wants."""
    init = tiny.make(folder / "init", "llama")
    before = tiny.tensors(init)[NAME]
    draw = torch.Generator().manual_seed(0)
    steps = [torch.randn(before.shape, generator=draw) for _ in range(2)]
    models: list[Path] = []
    for number, step in enumerate(steps):
        models.append(_moved(init, folder / f"model-{number}", 0.1 * step))
    wanted = {"target": sum(0.1 * share * step for share, step in zip(BEST, steps)), "other": 0.1 * steps[0]}
    (folder / "near.py").write_text(MODULE)
    save_file({name: before + move for name, move in wanted.items()}, folder / "targets.safetensors")
    return init, models


def _moved(source: Path, folder: Path, step: torch.Tensor) -> Path:
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[NAME] = tensors[NAME] + step
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def _distance(weight: torch.Tensor, what: str) -> float:
    return float((weight - load_file("targets.safetensors")[what]).square().mean())


def nearness(model: Any, tokenizer: Any) -> float:
    assert tokenizer.bos_token_id is not None
    assert not model.training
    return -_distance(model.get_parameter(NAME), "target")


def loss(model: Any, tokenizer: Any) -> float:
    return -nearness(model, tokenizer)


def other(model: Any, tokenizer: Any) -> float:
    return -_distance(model.get_parameter(NAME), "other")


def not_a_number(model: Any, tokenizer: Any) -> float:
    return float("nan")


def broken(model: Any, tokenizer: Any) -> float:
    raise KeyError("gold")


SCRIPT = f"""\
import sys
from safetensors.numpy import load_file
weight, targets = (load_file(each) for each in (sys.argv[1] + "/model.safetensors", "targets.safetensors"))
print("scoring", sys.argv[1])
print(-((weight[{NAME!r}] - targets["target"]) ** 2).mean())
"""
MODULE = f"""\
from safetensors.torch import load_file

def nearness(model, tokenizer):
    target = load_file("targets.safetensors")["target"]
    return -float((model.get_parameter({NAME!r}) - target).square().mean())
"""
