"""The demo on several seeds: accuracies, policies, what it concludes, and how long it takes, alone or beside busy processes.

    python -m tests.experiments.demo_seeds --seeds 10 -o demo-seeds.jsonl --page docs/experiments.md
    python -m tests.experiments.demo_seeds --seeds 1 --busy 2 -o demo-busy.jsonl

Every seed is a line of the file, written when it is done; the command can be given again, and begins the seed that was stopped
anew, so that its time is that of a whole run. The page gets tables between two marks. Ten seeds take about a quarter of an hour
on two cores that do nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tests.experiments.pages import write_between
from warmkit.evidence.demo.demo_spread import conclusion, ensemble_gain, members_gain, spread_tables
from warmkit.report.html_page import Table

WITHIN = 3.0
"""Points that WARM may be below its ensemble."""


def measure(folder: Path, seed: int, busy: int) -> dict[str, Any]:
    """Tell one seed from the beginning, by the command line, beside busy processes; return what it found and took."""
    shutil.rmtree(folder, ignore_errors=True)
    with beside(busy):
        began = time.perf_counter()
        command = [sys.executable, "-m", "warmkit", "demo", "-o", str(folder), "--seed", str(seed), "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        wall = time.perf_counter() - began
    told = json.loads(done.stdout)
    seconds, _ = told.pop("seconds"), [told.pop(name) for name in ("path", "report")]
    return {"seed": seed, "wall": round(wall, 1), "cpu": round(sum(seconds.values()), 1), "seconds": seconds, "document": told}


@contextlib.contextmanager
def beside(count: int) -> Generator[None]:
    """Keep processes busy as long as the block runs."""
    processes = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(count)]
    for each in processes:
        each.start()
    try:
        yield
    finally:
        for each in processes:
            each.kill()


def _spin() -> None:
    while True:
        pass


def known(file: Path) -> dict[int, dict[str, Any]]:
    """Return what was measured, by seed."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return {row["seed"]: row for row in map(json.loads, lines)}


def text_of(rows: list[dict[str, Any]], with_times: bool = True) -> str:
    """Write everything as Markdown: what all seeds say, whether the bars are met, the tables, and the times."""
    documents = [row["document"] for row in rows]
    met = [members_gain(each) > 0 and ensemble_gain(each) <= WITHIN for each in documents]
    bars = (
        f"WARM is at most {WITHIN:g} points below its ensemble and above its members' mean in {sum(met)} of {len(met)} seeds."
    )
    times = Table(
        ("seed", "wall time, s", "CPU time of its tasks, s"),
        [[str(row["seed"]), f"{row['wall']:.0f}", f"{row['cpu']:.0f}"] for row in rows],
        "Times",
    )
    parts = [
        conclusion(documents),
        bars,
        *(_markdown(each) for each in (*spread_tables(documents), *([times] if with_times else []))),
    ]
    return "\n\n".join(parts)


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return f"{table.caption}:\n\n" + "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="file of a line a seed")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--busy", type=int, default=0, help="processes that keep the machine busy meanwhile")
    parser.add_argument("--page", type=Path, help="Markdown file with the two marks, which gets the tables")
    parser.add_argument("--no-times", action="store_true", help="leave the times out, where other work ran beside")
    given = parser.parse_args()
    for seed in range(given.seeds):
        if seed not in known(given.output):
            row = measure(given.output.with_suffix(".now"), seed, given.busy)
            with given.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"seed {seed}: {row['wall']:.0f} s, {row['cpu']:.0f} s of a core", flush=True)
    shutil.rmtree(given.output.with_suffix(".now"), ignore_errors=True)
    text = text_of([known(given.output)[seed] for seed in range(given.seeds)], not given.no_times)
    if given.page is None:
        print(text)
    else:
        write_between(given.page, "demo seeds", "tests.experiments.demo_seeds", text)


if __name__ == "__main__":
    main()
