"""`warmkit average` beside the copy floor and an average in torch's memory, in one run.

    python -m tests.benchmarks.average --folder /dev/shm/warmkit-bench --size 0.3B --count 20

Every row is a whole process (see `tests.benchmarks.merge`); `work` is without imports.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.benchmarks.llama import SIZES, build
from tests.benchmarks.merge import FLOOR, WARM, ratio, table

SIX = "uniform,linear,minus-sqrt,cosine,ema,bema"
IN_MEMORY = str(Path(__file__).with_name("torch_average.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/warmkit-bench"))
    parser.add_argument("--size", choices=SIZES, default="0.3B")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    run, output = given.folder / f"run-{given.size}", given.folder / "out"
    models = [run / f"checkpoint-{100 * number}" for number in range(1, given.count + 1)]
    for number, model in enumerate(models):
        if not (model / "config.json").exists():
            build(model, given.size, number)
    average = [sys.executable, "-m", "warmkit", "average", str(run), "--last", str(given.count), "-o", str(output), "--json"]
    average += ["--threads", "2"]
    floor, torch = f"copy floor, {given.count} in 1 out", f"torch in memory, {given.count}"
    commands = {
        floor: [sys.executable, FLOOR, str(output), *map(str, models)],
        "warmkit average": average,
        "warmkit average, six": [*average, "--schedule", SIX],
        torch: [sys.executable, IN_MEMORY, str(output), *map(str, models)],
    }
    measured = table(commands, output, given.runs, WARM // 2)
    ratio(measured, "warmkit average", floor, "work")
    ratio(measured, "warmkit average, six", "warmkit average", "work")
    ratio(measured, torch, "warmkit average", "wall")
    ratio(measured, torch, "warmkit average", "work")


if __name__ == "__main__":
    main()
