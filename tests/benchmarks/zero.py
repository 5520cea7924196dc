"""DeepSpeed's ZeRO made into safetensors: warmkit against DeepSpeed's own zero_to_fp32, whole processes that take turns.

    python -m tests.benchmarks.zero --deepspeed /path/to/venv/bin/python

Four ranks hold a Llama of 0.3B parameters with AdamW's moments, written one rank after another in the layout of DeepSpeed
0.19.8; before that, the layout is compared with small files that DeepSpeed wrote (`tests/data/zero`). At the end what both made
is compared, byte by byte. zero_to_fp32 imports DeepSpeed; `imports` is that alone. `copy` reads and writes as many bytes.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import llama
from tests.benchmarks.merge import FLOOR, Run, table
from warmkit.formats.zero_files import read_model, read_optimizer

DATA = Path(__file__).parents[1] / "data" / "zero"
STAGES = (2, 3)
CONVERT = """
import sys
from deepspeed.utils.zero_to_fp32 import convert_zero_checkpoint_to_fp32_state_dict as convert
convert(sys.argv[1], sys.argv[2], safe_serialization=True)
"""


def write(run: Path, shapes: dict[str, tuple[int, ...]], stage: int, ranks: int, numbers: Any) -> None:
    """Write a checkpoint of one group of parameters, step 1.

    Args:
        run: Its folder.
        shapes: Of the parameters, in order.
        stage: 2 or 3.
        ranks: How many.
        numbers: Returns a parameter, flat, by its name and shape.
    """
    import torch

    step = run / "global_step1"
    step.mkdir(parents=True)
    world, total = {"dp_world_size": ranks, "mp_world_size": 1}, sum(map(math.prod, shapes.values()))
    kept = {"param_shapes": [{name: torch.Size(shape) for name, shape in shapes.items()}], "buffer_names": []}
    kept |= {"frozen_param_shapes": {}, "frozen_param_fragments": {}, "shared_params": {}, "global_steps": 1, **world}
    part = -(-total // (2 * ranks)) * 2
    for rank in range(ranks):
        if stage == 3:
            flat = torch.cat([_part(numbers(name, shape), rank, ranks) for name, shape in shapes.items()])
            module = {name: torch.empty(0, dtype=torch.bfloat16) for name in shapes}
            torch.save(
                {"module": module, **kept, "ds_version": "0.19.8"}, step / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"
            )
        else:
            flat = _span(shapes, rank * part, min(total, (rank + 1) * part), numbers)
        moments = {"step": torch.tensor(1.0), "exp_avg": torch.zeros_like(flat), "exp_avg_sq": torch.zeros_like(flat)}
        inner = {"state": {0: moments}, "param_groups": [{"lr": 1e-5, "params": [0]}]}
        if stage == 3:
            state = {"zero_stage": 3, "partition_count": ranks, "optimizer_state_dict": inner, "fp32_flat_groups": [flat]}
        else:
            state = {"zero_stage": 2, "partition_count": [ranks], "base_optimizer_state": inner}
            state |= {"single_partition_of_fp32_groups": [flat], "param_alignment_paddings": [[0] * len(shapes)]}
        held = {"optimizer_state_dict": state, "ds_config": {"zero_optimization": {"stage": stage}}, "ds_version": "0.19.8"}
        torch.save(held, step / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    if stage == 2:
        module = {name: numbers(name, shape).view(shape).bfloat16() for name, shape in shapes.items()}
        torch.save({"module": module, **kept, "ds_version": "0.19.8"}, step / "mp_rank_00_model_states.pt")
    (run / "latest").write_text("global_step1")


def _part(flat: Any, rank: int, ranks: int) -> Any:
    import torch

    size = -(-len(flat) // ranks)
    own = flat[rank * size : (rank + 1) * size]
    return torch.cat([own, own.new_zeros(size - len(own))])


def _span(shapes: dict[str, tuple[int, ...]], low: int, high: int, numbers: Any) -> Any:
    import torch

    parts, start = [], 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        if start < high and low < start + count:
            parts.append(numbers(name, shape)[max(0, low - start) : high - start])
        start += count
    return torch.cat(parts) if parts else torch.empty(0)


def random_numbers(name: str, shape: tuple[int, ...]) -> Any:
    import torch

    seed = int.from_bytes(name.encode()[-7:], "little") + int.from_bytes(name.encode(), "big") % 1_000_003
    return 0.02 * torch.randn(math.prod(shape), generator=torch.Generator().manual_seed(seed % (1 << 62)))


def check_layout() -> None:
    """Write the parameters of small saves of DeepSpeed again, a group at a time, and compare the flat partitions."""
    from safetensors import safe_open

    for stage in STAGES:
        real = DATA / f"stage{stage}-bfloat16" / "global_step2"
        files = sorted(real.glob("*optim_states.pt"))
        model = read_model(min(real.glob("*model_states.pt")))
        with (
            safe_open(DATA / "said" / f"stage{stage}-bfloat16.safetensors", "pt") as said,
            tempfile.TemporaryDirectory() as made,
        ):
            for number, group in enumerate(model.groups or []):
                run = Path(made) / str(number)
                write(run, group, stage, len(files), lambda name, _: said.get_tensor(name).flatten())
                padding = -sum(map(math.prod, group.values()))
                for one, two in zip(files, sorted(run.rglob("*optim_states.pt")), strict=True):
                    there, here = (_flat(each) for each in (read_optimizer(one).flat[number], read_optimizer(two).flat[0]))
                    assert len(there) == len(here), f"{one}: group {number} has another size in what is written here"
                    padding += len(there) - int((there != here).sum())  # which may hold anything
                assert padding >= 0, f"{real}: group {number} lies otherwise in what is written here"
    print("the layout is that of DeepSpeed's own small files, stages 2 and 3")


def _flat(tensor: Any) -> Any:
    import torch

    with tensor.file.open("rb") as file:
        file.seek(tensor.offset)
        return torch.frombuffer(bytearray(file.read(4 * tensor.shape[0])), dtype=torch.float32)


def compare(commands: dict[str, list[str]], output: Path) -> None:
    """Run both once more, and compare what they wrote."""
    from safetensors import safe_open

    found: list[dict[str, Path]] = []
    for number, command in enumerate(commands.values()):
        shutil.rmtree(output, ignore_errors=True)
        subprocess.run(command, check=True, capture_output=True)
        kept = output.with_name(f"compared-{number}")
        shutil.rmtree(kept, ignore_errors=True)
        output.rename(kept)
        found.append({name: file for file in kept.glob("*.safetensors") for name in safe_open(file, "pt").keys()})  # noqa: SIM118
    ours, theirs = found
    different = [name for name in ours.keys() | theirs.keys() if not _same(name, ours.get(name), theirs.get(name))]
    print(f"{len(ours)} tensors, {len(different)} differ from zero_to_fp32's {different[:3] or ''}")
    for file in {file.parent for each in found for file in each.values()}:
        shutil.rmtree(file)


def _same(name: str, one: Path | None, two: Path | None) -> bool:
    import torch
    from safetensors import safe_open

    if one is None or two is None:
        return False
    a, b = (safe_open(file, "pt").get_tensor(name) for file in (one, two))
    return a.dtype == b.dtype and torch.equal(a.view(torch.int32), b.view(torch.int32))


def summary(stage: int, measured: dict[str, list[Run]]) -> None:
    ours, theirs = measured[f"warmkit, stage {stage}"], measured.get(f"zero_to_fp32, stage {stage}", [])
    print(f"stage {stage}: {statistics.median(a.wall / b.wall for a, b in zip(ours, measured['copy'])):.2f} times the copy")
    if not theirs:
        return
    faster = statistics.median(b.wall / a.wall for a, b in zip(ours, theirs))
    without = statistics.median((b.wall - i.wall) / a.wall for a, b, i in zip(ours, theirs, measured["imports"]))
    memory = max(each.memory for each in ours) / max(each.memory for each in theirs)
    print(f"stage {stage}: {faster:.1f}x faster ({without:.1f}x without its imports), {memory:.3f} of its peak memory")


def apart(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in a process of its own: what is started from here counts the memory of this process as its own peak."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/warmkit-bench"), help="in memory, for the engine alone")
    parser.add_argument("--deepspeed", help="Python of a virtual environment with DeepSpeed; without it warmkit runs alone")
    parser.add_argument("--size", default="0.3B", choices=llama.SIZES)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    apart(check_layout)
    for stage in STAGES:
        run, output = given.folder / f"zero{stage}-{given.size}", given.folder / "out"
        if not (run / "latest").exists():
            shutil.rmtree(run, ignore_errors=True)
            apart(write, run, llama.shapes(given.size), stage, given.ranks, random_numbers)
        ours = [sys.executable, "-m", "warmkit", "merge", "--method", "lerp", "-q", "-o", str(output), "--json"]
        commands = {f"warmkit, stage {stage}": [*ours, "--threads", "2", "--allow-pickle", str(run)]}
        if given.deepspeed:
            commands[f"zero_to_fp32, stage {stage}"] = [given.deepspeed, "-c", CONVERT, str(run), str(output)]
        dense, timed = given.folder / "dense", dict(commands)
        subprocess.run(commands[f"warmkit, stage {stage}"], check=True, capture_output=True)
        shutil.rmtree(dense, ignore_errors=True)
        output.rename(dense)
        timed["copy"] = [sys.executable, FLOOR, str(output), str(dense)]
        if given.deepspeed:
            timed["imports"] = [given.deepspeed, "-c", CONVERT[: CONVERT.rindex("convert(")]]
        nbytes = 4 * sum(map(math.prod, llama.shapes(given.size).values()))
        summary(stage, table(timed, output, given.runs, 3 * nbytes + (1 << 29)))
        shutil.rmtree(dense)
        if given.deepspeed:
            apart(compare, commands, output)
        shutil.rmtree(run)


if __name__ == "__main__":
    main()
