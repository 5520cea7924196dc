"""`warm` of four runs, each single-threaded: one after the other against a Ray cluster of two nodes of one CPU on this machine.

    python -m tests.benchmarks.ray_warm [--steps 600] [--rounds 1]

The two alternate; what is compared is the whole pipeline: probe, runs, ranking, averages.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.unit.training import tiny
from warmkit.pipelines.warm import run_warm
from warmkit.training.recipe_sections import WarmRecipe, WarmSection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=1)
    how = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    root = Path(__file__).parents[2]
    nodes = subprocess.Popen(
        [sys.executable, str(root / "tests/unit/pipelines/cluster.py"), "1", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert nodes.stdin is not None
    assert nodes.stdout is not None
    address = nodes.stdout.readline().strip()
    with tempfile.TemporaryDirectory() as folder:
        base = tiny.recipe(Path(folder), "bert", "warm", steps=how.steps, save_every=100, batch_size=16)
        content = WarmRecipe(base.model, base.data, base.output, base.rm, WarmSection(runs=4, jobs=1, orders=2))
        for number in range(how.rounds):
            seconds = {}
            for executor in ("processes", "ray"):
                output = replace(content.output, path=f"{base.output.path}-{executor}-{number}")
                mine = replace(content, output=output, warm=replace(content.warm, executor=executor))
                began = time.perf_counter()
                run_warm(mine, address=address if executor == "ray" else None)
                seconds[executor] = time.perf_counter() - began
            ratio = seconds["ray"] / seconds["processes"]
            load = os.getloadavg()[0]
            print(f"serial {seconds['processes']:.1f} s, ray {seconds['ray']:.1f} s: {100 * ratio:.0f}%, load {load:.1f}")
    nodes.communicate("")


if __name__ == "__main__":
    main()
