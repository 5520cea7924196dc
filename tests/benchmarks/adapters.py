"""A merge of adapters against the merge of dense models: whole processes that take turns.

    python -m tests.benchmarks.adapters --folder /dev/shm/bench --size 1.1B

Every adapter has rank 16 on all linear layers, in float32, as peft writes them. `adapters` merges two of them, `one adapter` an
adapter with a dense model; both are divided by the merge of two dense models that ran just before. On a machine with other work
CPU seconds are the steadier measure.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from tests.benchmarks.llama import build, shapes
from tests.benchmarks.merge import ratio, table
from warmkit.formats.dtypes import DTYPES
from warmkit.formats.safetensors_file import build_header

RANK = 16


def build_adapter(folder: Path, size: str, seed: int) -> None:
    """Write a random adapter on all linear layers whose differences are a hundredth of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    factors: dict[str, np.ndarray] = {}
    for name, shape in shapes(size).items():
        if len(shape) == 2 and ".layers." in name:
            module = f"base_model.model.{name.removesuffix('.weight')}"
            factors[f"{module}.lora_A.weight"] = draw.standard_normal((RANK, shape[1]), dtype=np.float32) * np.float32(0.02)
            factors[f"{module}.lora_B.weight"] = draw.standard_normal((shape[0], RANK), dtype=np.float32) * np.float32(0.0025)
    header = build_header(((name, DTYPES["F32"], value.shape) for name, value in factors.items()), {"format": "pt"})
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(header)
        for value in factors.values():
            file.write(value.tobytes())
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "base_model_name_or_path": "../m0"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def contenders(folder: Path, output: Path) -> dict[str, list[str]]:
    dense = [str(folder / "m1"), str(folder / "m2")]
    adapters = [f"{folder / 'm0'}+{folder / each}" for each in ("a1", "a2")]
    warmkit = [sys.executable, "-m", "warmkit", "merge", "-q", "-o", str(output), "--json", "--threads", "2"]
    commands: dict[str, list[str]] = {}
    for method, options in (("lerp", []), ("slerp", ["--init", str(folder / "m0")])):
        for name, models in (("dense", dense), ("one adapter", [adapters[0], dense[1]]), ("adapters", adapters)):
            commands[f"{method}, {name}"] = [*warmkit, "--method", method, *options, *models]
    return commands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/warmkit-bench"), help="in memory, for the engine alone")
    parser.add_argument("--size", default="1.1B", choices=("0.1B", "0.3B", "1.1B"))
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    folder = given.folder / given.size
    for number in range(3):
        if not (folder / f"m{number}" / "config.json").exists():
            build(folder / f"m{number}", given.size, number)
        if number and not (folder / f"a{number}" / "adapter_config.json").exists():
            build_adapter(folder / f"a{number}", given.size, number)
    output = given.folder / "out"
    warm = sum(file.stat().st_size for file in (folder / "m0").iterdir()) + (1 << 29)  # the output, and the processes
    measured = table(contenders(folder, output), output, given.runs, warm)
    for method in ("lerp", "slerp"):
        for name in ("one adapter", "adapters"):
            for attribute in ("wall", "work", "cpu"):
                ratio(measured, f"{method}, {name}", f"{method}, dense", attribute)


if __name__ == "__main__":
    main()
