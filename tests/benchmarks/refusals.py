"""What warmkit and mergekit do with inputs that are wrong, and with a place that is taken: one table in one run.

    python -m tests.benchmarks.refusals --mergekit /path/to/venv/bin/mergekit-yaml

Each case is two tiny models, one of them damaged in one way, averaged by both programs as whole processes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.benchmarks.llama import SIZES, build

SIZES["tiny"] = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 256}
WEIGHTS = "model.safetensors"
Tensors = dict[str, torch.Tensor]


def main() -> None:
    """Run every case and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mergekit", required=True)
    options = parser.parse_args()
    print("| two models, of which one ... | warmkit | mergekit |\n|---|---|---|")
    for name, damage in CASES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for seed in (1, 2):
                build(folder / f"m{seed}", "tiny", seed, shards=1)
            damage(folder)
            ours = [sys.executable, "-m", "warmkit", "merge", "--method", "lerp", "m1", "m2", "-o", "out"]
            (folder / "recipe.yaml").write_text(
                "merge_method: linear\ndtype: bfloat16\nmodels:\n"
                + "".join(f"  - model: {folder / model}\n    parameters: {{weight: 0.5}}\n" for model in ("m1", "m2"))
            )
            print(
                f"| {name} | {_tried(ours, folder)} | {_tried([options.mergekit, 'recipe.yaml', 'out'], folder)} |", flush=True
            )


def _tried(command: list[str], folder: Path) -> str:
    """Run one program and say in words how it ended."""
    before = _content(folder / "out")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    after = _content(folder / "out")
    said = (done.stderr or done.stdout).strip().splitlines() or [""]
    if done.returncode:
        left = "" if after == before else "; OUT is changed"
        said_as = "traceback" if "Traceback" in done.stderr else "error"
        result = f"{said_as}{left}: `{said[-1][:110]}`"
    else:
        values = load_file(folder / "out" / WEIGHTS) if (folder / "out" / WEIGHTS).exists() else {}
        files = sorted((folder / "out").glob("*.safetensors"))
        values = values or {name: value for file in files for name, value in load_file(file).items()}
        broken = sum(not bool(value.isfinite().all()) for value in values.values())
        result = (
            f"exit 0, {len(values)} tensors"
            + (f", {broken} with NaN" if broken else "")
            + (", what was there is gone" if before and not set(before) <= set(after) else "")
        )
    shutil.rmtree(folder / "out", ignore_errors=True)
    if before:
        _occupied(folder)
    return result


def _content(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")} if folder.exists() else {}


def _edited(change: Callable[[Tensors], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "m2" / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / "m2" / WEIGHTS, metadata={"format": "pt"})

    return damage


def _configured(**keys: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "m2" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return damage


NAME = "model.layers.1.mlp.up_proj.weight"


def _missing(tensors: Tensors) -> None:
    del tensors[NAME]


def _extra(tensors: Tensors) -> None:
    tensors["model.layers.1.mlp.up_proj.bias"] = torch.ones(256, dtype=torch.bfloat16)


def _nan(tensors: Tensors) -> None:
    tensors[NAME][3, 5] = float("nan")


def _narrow(tensors: Tensors) -> None:
    tensors[NAME] = tensors[NAME][:, :1].contiguous()


def _scaled(tensors: Tensors) -> None:
    tensors[NAME] = tensors[NAME].to(torch.float8_e4m3fn)
    tensors[f"{NAME}_scale"] = torch.ones(1)


def _truncated(folder: Path) -> None:
    path = folder / "m2" / WEIGHTS
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5000)


def _occupied(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / WEIGHTS).write_bytes((folder / "m1" / WEIGHTS).read_bytes())
    (folder / "out" / "config.json").write_bytes((folder / "m1" / "config.json").read_bytes())


CASES: dict[str, Callable[[Path], None]] = {
    "lacks a tensor": _edited(_missing),
    "has a tensor more": _edited(_extra),
    "holds a NaN": _edited(_nan),
    "has a tensor of another shape": _edited(_narrow),
    "has an FP8 tensor with its scale": _edited(_scaled),
    "is cut off at its end": _truncated,
    "has another rope base": _configured(rope_theta=1000000.0),
    "has another number of attention heads": _configured(num_attention_heads=4, head_dim=32),
    "is right, and OUT holds a model": _occupied,
}

if __name__ == "__main__":
    main()
