"""WARM's observations 1-3 on docstrings: WA, ENS, individuals and the probe, several seeds, clean and with flipped labels.

    python -m tests.experiments.warm_docstrings --folder warm-experiment --seeds 5

Every seed draws its own data and its own runs. Each pipeline resumes where it was killed, so the command can be given again. On
two cores it takes about 50 minutes. Intervals are Student's t over seeds, differences are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from warmkit.evaluation.few_values import student_interval

RECIPE = Path(__file__).parents[2] / "recipes" / "warm-docstrings.yaml"
CONDITIONS = {"clean": 0.0, "corrupt": 0.25}


def warmkit(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "warmkit", *arguments, "--quiet"], check=True)


def run(folder: Path, seed: int, condition: str, extra: list[str]) -> dict[str, Any]:
    """Run one pipeline, or go on with it, and return its summary."""
    data, out = folder / f"data-{seed}", folder / f"{condition}-{seed}"
    if not (data / "about.json").exists():
        warmkit("docstrings", "-o", str(data), "--train", "500", "--validation", "400", "--ood", "400", "--seed", str(seed))
    values = {
        **{f"data.{name}": data / f"{name}.jsonl" for name in ("train", "validation", "ood")},
        "data.corrupt": CONDITIONS[condition],
        "data.corrupt_seed": seed,
        "rm.order": 100 * seed,
        "rm.seed": 100 * seed,
        "warm.seed": seed,
        "warm.orders": 0,  # they add many averages to score; ask for them with --set warm.orders=5
        "output.path": out,
    }
    overrides = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    if not (out / "summary.json").exists():
        warmkit("warm", str(RECIPE), *overrides, *extra)
    return json.loads((out / "summary.json").read_text())


def table(summaries: list[dict[str, Any]]) -> None:
    """Print, for every data set and M, means over seeds with their intervals."""
    cells: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for summary in summaries:
        individuals: dict[str, list[float]] = defaultdict(list)
        for row in summary["accuracy"]:
            name, cell = row["data"], cells[row["data"], row["m"]]
            individuals[name].append(row["individual"])
            for key in ("wa", "ens", "individual", "probe"):
                cell[key].append(100 * row[key])
            cell["wa - ens"].append(100 * (row["wa"] - row["ens"]))
            cell["wa - mean of members"].append(100 * (row["wa"] - float(np.mean(individuals[name]))))
    columns = ("wa", "ens", "individual", "probe", "wa - ens", "wa - mean of members")
    print("| data | M | WA | ENS | number M alone | probe only | WA - ENS | WA - mean of members |")
    print("|---|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(name for name, _ in cells):
        for m in sorted(m for each, m in cells if each == name):
            shown = [_shown(cells[name, m][column], signed="-" in column) for column in columns]
            print(f"| {name} | {m} | " + " | ".join(shown) + " |")


def _shown(values: list[float], signed: bool) -> str:
    mean = student_interval(values)
    form = "+.1f" if signed else ".1f"
    return f"{mean.value:{form}} ({mean.low:{form}} to {mean.high:{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("warm-experiment"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--set", action="append", default=[], help="passed on to warmkit warm, warm.jobs=2 for instance")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    extra = [part for override in given.set for part in ("--set", override)]
    summaries = defaultdict(list)
    for seed in range(given.seeds):
        for condition in given.conditions:
            summaries[condition].append(run(given.folder, seed, condition, extra))
            print(f"seed {seed}, {condition}: done", file=sys.stderr, flush=True)
    for condition in given.conditions:
        print(f"\n{condition}: {100 * CONDITIONS[condition]:.0f}% of the training labels swapped, {given.seeds} seeds\n")
        table(summaries[condition])


if __name__ == "__main__":
    main()
