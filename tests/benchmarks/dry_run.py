"""What `warmkit merge --dry-run` says of models that are larger than this machine: SLERP of two and LERP of two.

    python -m tests.benchmarks.dry_run [--folder FOLDER] [--probe SIZE]

The files are holes: headers are real, and weights are zeros that take no room. So a sample is read at the speed of memory; with
`--probe` the bytes per second of real files of that size are taken instead, in the same folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import llama
from warmkit.engine.plan import Output, parse_size, plan_output
from warmkit.formats.dtypes import BY_TORCH_NAME

LARGE = {
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "vocab_size": 128256},
    "700B": {"hidden_size": 20480, "intermediate_size": 65536, "num_hidden_layers": 142, "vocab_size": 128256},
}
METHODS = ("lerp", "slerp")


def holes(folder: Path, size: str) -> int:
    """Write a model whose weights are holes; return its bytes."""
    folder.mkdir(parents=True)
    tensors = [Output(name, BY_TORCH_NAME["bfloat16"], shape) for name, shape in llama.shapes(size).items()]
    plan = plan_output(tensors, parse_size("5GB"), {"format": "pt"})
    for shard in plan.shards:
        with (folder / shard.file).open("wb") as file:
            file.write(shard.header)
            file.truncate(shard.size)
    assert plan.index is not None
    (folder / "model.safetensors.index.json").write_bytes(plan.index)
    (folder / "config.json").write_text(json.dumps(llama.config(size)))
    return plan.nbytes


def told(folder: Path, method: str) -> dict[str, float]:
    """Return what a dry run says; that the disk is too small is part of it."""
    models = [str(folder / name) for name in ("a", "b")]
    command = [sys.executable, "-m", "warmkit", "merge", "--method", method, *models, "-o", str(folder / "out")]
    command += ["--init", str(folder / "init")] if method == "slerp" else []
    done = subprocess.run([*command, "--dry-run", "--json"], check=False, capture_output=True, text=True)
    said = json.loads(done.stdout)
    return {"read": said["bytes_read"], "written": said["bytes_written"], **said["estimate"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "warmkit-dry-run")
    parser.add_argument("--probe", choices=llama.SIZES, help="take the speed from real models of this size")
    how = parser.parse_args()
    llama.SIZES.update(LARGE)
    speed: dict[str, float] = {}
    try:
        if how.probe:
            for seed, name in enumerate(("init", "a", "b")):
                llama.build(how.folder / "probe" / name, how.probe, seed)
            speed = {method: told(how.folder / "probe", method)["bytes_per_second"] for method in METHODS}
        for size in LARGE:
            for name in ("init", "a", "b"):
                holes(how.folder / size / name, size)
            for method in METHODS:
                said = told(how.folder / size, method)
                rate = speed.get(method, said["bytes_per_second"])
                hours = (said["read"] + said["written"]) / rate / 3600
                print(
                    f"{size:5} {method:6} reads {said['read'] / 1e9:7.0f} GB, writes {said['written'] / 1e9:6.0f} GB: "
                    f"{60 * hours:5.0f} min at {rate / 1e9:.2f} GB/s"
                )
    finally:
        shutil.rmtree(how.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
