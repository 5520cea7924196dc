"""A merge of quantised models against the merge of the same weights in bfloat16: whole processes that take turns.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.quantised --folder /dev/shm/warmkit-bench --size 0.3B

`fp8`: float8_e4m3fn with a float32 scale for every block of 128 x 128, all linear layers but the head. On a machine with other
work CPU seconds are the steadier measure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.benchmarks.llama import config, shapes
from tests.benchmarks.merge import ratio, table
from warmkit.formats.coded import blocks_of
from warmkit.formats.dtypes import DTYPES, E4M3, DType
from warmkit.formats.safetensors_file import build_header

BLOCK = (128, 128)
SAID = {"quant_method": "fp8", "weight_block_size": list(BLOCK), "activation_scheme": "dynamic"}


def build_fp8(folder: Path, size: str, seed: int) -> None:
    """Write a model of random codes, none of them NaN."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    tensors = dict[str, tuple[DType, tuple[int, ...]]]()
    for name, shape in shapes(size).items():
        coded = len(shape) == 2 and ".layers." in name
        tensors[name] = (E4M3 if coded else DTYPES["BF16"], shape)
        if coded:
            tensors[f"{name}_scale_inv"] = (DTYPES["F32"], blocks_of(shape, BLOCK))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(build_header(((name, kind, shape) for name, (kind, shape) in tensors.items()), {"format": "pt"}))
        for kind, shape in tensors.values():
            count = int(np.prod(shape))
            if kind == E4M3:
                file.write((draw.integers(0, 0x70, count, np.uint8) | (draw.integers(0, 2, count, np.uint8) << 7)).tobytes())
            elif kind.name == "F32":
                file.write(draw.uniform(1e-4, 2e-4, count).astype("float32").tobytes())
            else:
                file.write((draw.standard_normal(count, np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes())
    (folder / "config.json").write_text(json.dumps({**config(size), "quantization_config": SAID}))


def merge(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "warmkit", "merge", "-q", "--json", "--threads", "2", *arguments]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/warmkit-bench"), help="in memory, for the engine alone")
    parser.add_argument("--size", default="0.3B", choices=("0.1B", "0.3B", "1.1B"))
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    folder, output = given.folder / given.size, given.folder / "out"
    for number in (1, 2):
        coded, dense = folder / f"fp8-{number}", folder / f"fp8-{number}-dense"
        if not (coded / "config.json").exists():
            build_fp8(coded, given.size, number)
        if not dense.exists():
            subprocess.run(merge("--method", "uniform", str(coded), "-o", str(dense)), check=True, stdout=subprocess.DEVNULL)
    warm = sum(file.stat().st_size for file in (folder / "fp8-1-dense").iterdir()) + (1 << 29)  # the output, and the processes
    pairs = {"bfloat16": "fp8-{}-dense", "fp8": "fp8-{}"}
    lerp = ["-o", str(output), "--method", "lerp"]
    commands = {name: merge(*lerp, *(str(folder / form.format(number)) for number in (1, 2))) for name, form in pairs.items()}
    measured = table(commands, output, given.runs, warm)
    for attribute in ("wall", "work", "cpu"):
        ratio(measured, "fp8", "bfloat16", attribute)


if __name__ == "__main__":
    main()
