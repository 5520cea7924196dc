"""Rank files of FSDP against the same weights in safetensors, and against verl's model_merger: whole processes that take turns.

    python -m tests.benchmarks.rank_files --verl /path/to/venv/bin/python

Four ranks hold a Llama of 1.1B parameters as verl saves them (FSDP2, shards along the first dimension), written by torch from
shapes and random numbers. `one` makes a model directory of them, as model_merger does; `two` is the LERP of two, which reads
twice as much as it writes. model_merger needs seconds to import its libraries: `imports` is that alone, and one ratio leaves it
out. At the end what both made of the rank files is compared, byte by byte.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

from tests.benchmarks.llama import SIZES, build
from tests.benchmarks.merge import FLOOR, Run, ratio, table

RANKS = 4
SMALL_FILES = Path(__file__).parents[1] / "data" / "rank_files" / "fsdp1" / "global_step_2" / "actor" / "huggingface"
IMPORTS = "import verl.model_merger.fsdp_model_merger"


def shard(model: Path, home: Path) -> None:
    """Write the rank files of a model that lies in safetensors, one rank after another."""
    import torch
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    (home / "huggingface").mkdir(parents=True)
    for file in SMALL_FILES.glob("tokenizer*"):
        shutil.copy(file, home / "huggingface")
    shutil.copy(model / "config.json", home / "huggingface")
    for rank in range(RANKS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=RANKS)
            torch.save(_parts(model, rank), home / f"model_world_size_{RANKS}_rank_{rank}.pt")
            dist.destroy_process_group()
    (home / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": RANKS}))


def _parts(model: Path, rank: int) -> dict[str, Any]:
    from safetensors import safe_open
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    mesh, parts = init_device_mesh("cpu", (RANKS,), mesh_dim_names=("fsdp",)), dict[str, Any]()
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                whole = opened.get_tensor(name)
                size = -(-len(whole) // RANKS)
                local = whole[rank * size : (rank + 1) * size].clone()
                cut = {"shape": whole.shape, "stride": whole.stride(), "run_check": False}
                parts[name] = DTensor.from_local(local, mesh, [Shard(0)], **cut)
    return parts


def contenders(folder: Path, output: Path, verl: str | None) -> dict[str, list[str]]:
    warmkit = [
        sys.executable,
        "-m",
        "warmkit",
        "merge",
        "--method",
        "lerp",
        "-q",
        "-o",
        str(output),
        "--json",
        "--threads",
        "2",
    ]
    commands = {"copy, one": [sys.executable, FLOOR, str(output), str(folder / "m1")]}
    for name, kind, more in (("safetensors", "m", []), ("rank files", "r", ["--allow-pickle"])):
        one, two = str(folder / f"{kind}1"), str(folder / f"{kind}2")
        commands[f"{name}, one"] = [*warmkit, *more, one]
        commands[f"{name}, two"] = [*warmkit, *more, one, two]
    if verl:
        merger = [verl, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
        commands["model_merger, one"] = [*merger, "--local_dir", str(folder / "r1"), "--target_dir", str(output)]
        commands["imports"] = [verl, "-c", IMPORTS]
    return commands


def without_imports(measured: dict[str, list[Run]]) -> None:
    turns = zip(measured["model_merger, one"], measured["imports"], measured["rank files, one"])
    ratios = [(merger.wall - imports.wall) / (ours.work or ours.wall) for merger, imports, ours in turns]
    print(f"model_merger without its imports / rank files, one, work = {statistics.median(ratios):.2f}")


def compare(commands: dict[str, list[str]], output: Path) -> None:
    """Run both once more, and compare what they wrote."""
    import subprocess

    import torch
    from safetensors import safe_open

    found: list[dict[str, Any]] = []
    for name in ("rank files, one", "model_merger, one"):
        shutil.rmtree(output, ignore_errors=True)
        subprocess.run(commands[name], check=True, capture_output=True)
        tensors = dict[str, Any]()
        for file in output.glob("*.safetensors"):
            with safe_open(file, "pt") as opened:
                tensors |= {key: opened.get_tensor(key).bfloat16() for key in opened.keys()}  # noqa: SIM118
        found.append(tensors)
    ours, theirs = found
    different = [
        key
        for key in ours.keys() | theirs.keys()
        if not (key in ours and key in theirs and torch.equal(ours[key], theirs[key]))
    ]
    print(f"{len(ours)} tensors, {len(different)} differ from model_merger's in bfloat16 {different[:3] or ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/warmkit-bench"), help="in memory, for the engine alone")
    parser.add_argument("--verl", help="Python of a virtual environment with verl; without it only safetensors are compared")
    parser.add_argument("--size", default="1.1B", choices=SIZES)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    folder, output = given.folder / f"ranks-{given.size}-{given.dtype}", given.folder / "out"
    for number in (1, 2):
        if not (folder / f"m{number}" / "config.json").exists():
            build(folder / f"m{number}", given.size, number, dtype=given.dtype)
        if not (folder / f"r{number}" / "fsdp_config.json").exists():
            shutil.rmtree(folder / f"r{number}", ignore_errors=True)
            shard(folder / f"m{number}", folder / f"r{number}")
    weights = sum(file.stat().st_size for file in (folder / "m1").iterdir())
    commands = contenders(folder, output, given.verl)
    measured = table(commands, output, given.runs, weights * (5 if given.verl else 1) + (1 << 29))
    for count in ("one", "two"):
        for attribute in ("wall", "work", "cpu"):
            ratio(measured, f"rank files, {count}", f"safetensors, {count}", attribute)
    ratio(measured, "rank files, one", "copy, one", "wall")
    if given.verl:
        for attribute in ("wall", "cpu", "memory"):
            ratio(measured, "model_merger, one", "rank files, one", attribute)
        without_imports(measured)
        compare(commands, output)


if __name__ == "__main__":
    main()
