"""Tables of `warp_synthetic`, from the numbers of all seeds.

Curves are compared at matched KL: every line of a seed starts at the SFT model (or at the init that it interpolates to), its
points are sorted by KL and joined by straight pieces, and it has no value beyond its ends. Between points far apart that shows
too little of what is concave, the gold reward near its peak. Differences are paired by seed, their intervals bootstraps over
seeds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.evaluation.accuracy import mean_interval

Seed = dict[str, Any]
Points = list[dict[str, Any]]
KLS = (2.0, 5.0, 10.0, 15.0, 20.0, 25.0)


def read(folder: Path) -> list[Seed]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("seed-*.json"))]


def line(seed: Seed, name: str) -> Points:
    """Return the points of a line in the order they were measured."""
    return [point for point in seed["points"] if point["line"] == name]


def names(seed: Seed, part: str) -> list[str]:
    return list(dict.fromkeys(point["line"] for point in seed["points"] if point["part"] == part))


def trajectory(seed: Seed) -> str:
    """Return the name of the run whose settings all merged policies have."""
    return f"EMA {seed['setting']['ema'][0]:g}"


def at_kl(points: Points, sft: dict[str, Any], number: str, kls: Sequence[float]) -> NDArray[np.float64]:
    """Return a number along a line at some KL, NaN beyond its ends; a line without a point at 0 starts at the SFT model."""
    start = [] if points[0]["at"] == 0 else [sft]
    ordered = sorted([*start, *points], key=lambda point: point["kl"])
    x, y = [point["kl"] for point in ordered], [point[number] for point in ordered]
    return np.interp(kls, x, y, left=np.nan, right=np.nan)


def curves(seeds: Sequence[Seed], name: str, number: str, kls: Sequence[float]) -> NDArray[np.float64]:
    """Return a line of every seed at some KL, [seeds, KL]."""
    return np.stack([at_kl(line(seed, name), seed["points"][0], number, kls) for seed in seeds])


# ---- tables ------------------------------------------------------------------------------------------------------------


def shown(values: Sequence[float], form: str = ".2f") -> str:
    """Return mean and interval of the seeds that have a value, and how many these are if not all."""
    kept = [value for value in values if not np.isnan(value)]
    if not kept:
        return "-"
    if len(values) == 1:
        return f"{values[0]:{form}}"
    mean = mean_interval(kept)
    few = "" if len(kept) == len(values) else f", {len(kept)} of {len(values)}"
    return f"{mean.value:{form}} ({mean.low:{form}} to {mean.high:{form}}{few})"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n### {title}\n")
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def ends(seeds: Sequence[Seed]) -> None:
    """Print where trajectories stand on the way and at their end, and where gold is highest."""
    rows: list[list[str]] = []
    lines = names(seeds[0], "anchors")
    watched = [point["at"] for point in line(seeds[0], lines[0])]
    places = (len(watched) // 2 - 1, len(watched) - 1)
    for name in lines:
        row = [name]
        for place in places:
            found = [line(seed, name)[place] for seed in seeds]
            row += [shown([point[number] for point in found]) for number in ("proxy", "gold", "kl")]
        best = [max(line(seed, name), key=lambda point: point["gold"]) for seed in seeds]
        rows.append([*row, shown([point["gold"] for point in best]), shown([point["kl"] for point in best], ".1f")])
    columns = [f"{number}, step {watched[place]}" for place in places for number in ("proxy", "gold", "KL")]
    table("Anchors, by steps", ["anchor and beta", *columns, "highest gold", "its KL"], rows)


def levels(seeds: Sequence[Seed], number: str) -> None:
    """Print every line at matched KL."""
    lines = [name for part in ("anchors", "fronts", "iterations") for name in names(seeds[0], part)]
    rows = [[name, *(shown(column) for column in curves(seeds, name, number, KLS).T)] for name in lines]
    table(f"{number} at matched KL", ["line", *(f"KL {kl:g}" for kl in KLS)], rows)


def comparisons(seed: Seed) -> list[tuple[str, list[str], list[str]]]:
    """Return claim, lines, and lines to compare with (a mean of several)."""
    first, most = trajectory(seed), seed["setting"]["orders"]
    anchors = [name for name in names(seed, "anchors") if not name.startswith("EMA")]
    best_static = [("EMA anchor against " + name, [first], [name]) for name in anchors]
    front = [
        ("LITI of one policy against its trajectory", ["SLERP M = 1"], [first]),
        ("LITI of two policies against their trajectories", ["SLERP M = 2"], [first, "trajectory 2"]),
    ]
    more = [(f"M = {m} against M = 1", [f"SLERP M = {m}"], ["SLERP M = 1"]) for m in range(2, most + 1)]
    methods = [(f"front of SLERP against LERP, M = {m}", [f"SLERP M = {m}"], [f"LERP M = {m}"]) for m in sorted({2, most})]
    again: list[tuple[str, list[str], list[str]]] = []
    for each in range(2, seed["setting"]["iterations"] + 1):
        own, before = f"WARP {each}, to its init", "SLERP M = 2" if each == 2 else f"WARP {each - 1}, to its init"
        again += [
            (f"WARP {each} against WARP {each - 1}", [own], [before]),
            *(
                [(f"WARP {each} against M = {2 * each}, same cost", [own], [f"SLERP M = {2 * each}"])]
                if 2 * each <= most
                else []
            ),
            (f"WARP {each} against the long run", [own], ["long run"]),
            (f"WARP {each} against LITI of a run of {2 * each} T", [own], [f"long run of {2 * each} T, LITI"]),
            (f"WARP {each}, to its init against to SFT", [own], [f"WARP {each}, to SFT"]),
        ]
    return [*best_static, *front, *more, *methods, *again]


def differences(seeds: Sequence[Seed], number: str) -> None:
    """Print paired differences at matched KL."""

    def mean(lines: list[str]) -> NDArray[np.float64]:
        return np.mean([curves(seeds, name, number, KLS) for name in lines], axis=0)

    rows = [
        [claim, *(shown(column, "+.2f") for column in (mean(ours) - mean(theirs)).T)]
        for claim, ours, theirs in comparisons(seeds[0])
    ]
    table(f"{number}: differences at matched KL, paired by seed", ["", *(f"KL {kl:g}" for kl in KLS)], rows)


def along_lambda(seeds: Sequence[Seed]) -> None:
    """Print SLERP and LERP of two policies between them."""
    found = {name: [line(seed, name) for seed in seeds] for name in ("SLERP", "LERP")}
    rows: list[list[str]] = []
    for place, share in enumerate(seeds[0]["setting"]["lambdas"]):
        both = [[each[place] for each in found[name]] for name in ("SLERP", "LERP")]
        row = [f"{share:g}"]
        for number in ("proxy", "gold", "kl"):
            slerp, lerp = (np.array([point[number] for point in points]) for points in both)
            row += [shown(slerp), shown(lerp), shown(slerp - lerp, "+.2f")]
        rows.append(row)
    columns = [f"{number}, {method}" for number in ("proxy", "gold", "KL") for method in ("SLERP", "LERP", "difference")]
    table("Two policies, along lambda", ["lambda", *columns], rows)


def print_tables(seeds: Sequence[Seed]) -> None:
    """Print every table."""
    zero = [seed["points"][0] for seed in seeds]
    print(
        f"Seeds {', '.join(str(seed['seed']) for seed in seeds)}. The proxy is 0 at the SFT model, in its deviations there.\n"
    )
    print(f"- gold of the SFT model {shown([each['gold'] for each in zero])}")
    print(f"- validation accuracy of the proxy {shown([100 * seed['proxy']['accuracy'] for seed in seeds], '.1f')}%")
    for name, what in (("task_vectors", "task vectors"), ("weights", "full weights")):
        print(f"- angle between {what}, degrees {shown([float(np.mean(seed['angles'][name])) for seed in seeds], '.1f')}")
    print(f"- minutes a seed {shown([sum(seed['seconds'].values()) / 60 for seed in seeds], '.1f')}")
    ends(seeds)
    along_lambda(seeds)
    for number in ("proxy", "gold"):
        levels(seeds, number)
        differences(seeds, number)
