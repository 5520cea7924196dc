"""Candidates of `warmkit search`: merged into a model in memory, against merges on disk that are loaded, in turns.

    python -m tests.benchmarks.search --size 0.1B --candidates 50

Two models and their init, SLERP of different lambdas and etas, files in memory. Scoring is left out: a score of nothing.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import warmkit
from tests.benchmarks.llama import SIZES, build
from tests.unit.training import tiny
from warmkit.evaluation.candidate_scores import Trials, read_score
from warmkit.modeling.causal_model import load_causal_model
from warmkit.verbs.search_space import Space, read_range


def nothing(model: Any, tokenizer: Any) -> float:
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/warmkit-bench"), help="in memory, for the engine alone")
    parser.add_argument("--size", default="0.1B", choices=SIZES)
    parser.add_argument("--candidates", type=int, default=50)
    given = parser.parse_args()
    folder, output = given.folder / f"search-{given.size}", given.folder / "out"
    models = [folder / f"m{number}" for number in range(3)]
    for number, model in enumerate(models):
        if not (model / "config.json").exists():
            build(model, given.size, number)
            tiny.tokenizer("llama").save_pretrained(model)
    init, *merged = map(str, models)
    space = Space(2, ["slerp"], [read_range("lambda=0:1"), read_range("eta=0.2:1.2")], {})
    score = read_score("tests.benchmarks.search:nothing")
    began = time.perf_counter()
    trials = Trials(space, merged, init, [score], given.folder / "candidate", {})
    opened = time.perf_counter() - began
    inside, outside = list[float](), list[float]()
    for number in range(given.candidates):
        candidate = space.at([number / given.candidates, (7 * number % given.candidates) / given.candidates], "slerp")
        _, seconds = trials.measure(candidate, [score])
        inside.append(seconds["merging"])
        shutil.rmtree(output, ignore_errors=True)
        began = time.perf_counter()
        warmkit.merge(merged, output, init=init, **space.arguments(candidate))
        load_causal_model(str(output))
        outside.append(time.perf_counter() - began)
    shutil.rmtree(output, ignore_errors=True)
    print(f"{given.candidates} candidates of {given.size}: opening {opened:.2f} s")
    for name, each in (("in memory", inside), ("on disk, and loaded", outside)):
        print(f"{name:20} {statistics.median(each):.3f} s each ({min(each):.3f}-{max(each):.3f}), {sum(each):.1f} s in all")
    print(f"on disk / in memory = {sum(outside) / (sum(inside) + opened):.1f}, opening included")


if __name__ == "__main__":
    main()
