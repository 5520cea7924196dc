"""WARP's claims on a synthetic language in which reward hacking appears: anchors, SLERP, LITI, iterations, with seeds.

    OMP_NUM_THREADS=1 python -m tests.experiments.warp_synthetic --folder warp-experiment --seeds 0,1,2,3,4
    python -m tests.experiments.warp_synthetic --folder warp-experiment --report

Every seed pre-trains its own SFT model, trains its own proxy (a reward model on pairs of which a quarter are swapped) and its
own policies, all with warmkit's own training; merges are warmkit's. A seed takes about ten minutes on one thread. Its numbers
go to `seed-N.json`; a seed that has one is left alone, and runs that are finished are not run again. The gold reward is a
control: it is measured, and nothing learns from it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import warmkit
from tests.experiments import warp_synthetic_figures as figures
from tests.experiments import warp_synthetic_report as report
from tests.experiments.warp_synthetic_seed import Setting, Testbed
from warmkit.checkpoints.merge import Merger


def anchors(bed: Testbed) -> None:
    """Observation 1: an anchor that follows the policy, against the SFT model as the anchor."""
    bed.trajectory("anchors", "no KL", bed.rl("no-kl", anchor="none", beta=0.0))
    for beta in bed.setting.ema:
        name = "policy-1" if beta == bed.setting.ema[0] else f"ema-{beta:g}"
        bed.trajectory("anchors", f"EMA {beta:g}", bed.rl(name, beta=beta))
    for beta in bed.setting.static:
        bed.trajectory("anchors", f"SFT {beta:g}", bed.rl(f"static-{beta:g}", anchor="init", beta=beta))


def policies(bed: Testbed) -> list[Path]:
    """Train policies that differ in the order of prompts and the seed of sampling; the first is one of the anchors' runs."""
    return [bed.rl(f"policy-{order}", order=order).path for order in range(1, bed.setting.orders + 1)]


def slerp_against_lerp(bed: Testbed, models: list[Path]) -> None:
    """Observations 2 and 3: SLERP boosts the reward, LERP keeps the KL low."""
    for method in ("slerp", "lerp"):
        merger = Merger(models[:2], init=bed.sft, method=method, threads=1)
        with bed.timed("evaluating merges"):
            for share in bed.setting.lambdas:
                bed.measure("lambda", method.upper(), share, merger.state_dict(lambda_=share))


def angles(bed: Testbed, models: list[Path]) -> dict[str, list[float]]:
    """Observation 4: angles of task vectors and of full weights, in degrees, for every pair of policies."""
    means = warmkit.compare(models, init=bed.sft, threads=1).mean_angles()
    return {name: [each[name] for each in means] for name in ("task_vectors", "weights")}


def fronts(bed: Testbed, models: list[Path]) -> None:
    """Observation 5: LITI against the trajectories of the runs that are merged, and what more policies bring."""
    bed.trajectory("fronts", "trajectory 2", bed.rl("policy-2", order=2))
    for m in range(1, len(models) + 1):
        bed.front("fronts", f"SLERP M = {m}", models[:m])
    for m in sorted({2, len(models)}):
        bed.front("fronts", f"LERP M = {m}", models[:m], method="lerp")


def iterations(bed: Testbed, models: list[Path]) -> None:
    """Observation 6: iterations of WARP with two policies, against one run that costs as much.

    The fronts interpolate towards the iteration's own init (figure 4c), and towards the SFT model (the output of algorithm 1).
    The first iteration's are those of `fronts` with M = 2.
    """
    init, pair = bed.sft, models[:2]
    for iteration in range(2, bed.setting.iterations + 1):
        folder = bed.folder / f"iteration-{iteration}"
        following, merged = folder / "init", folder / "slerp"
        warmkit.merge(pair, following, init=init, method="slerp", eta=bed.setting.eta, threads=1, force=True)
        init, seeds = following, (10 * iteration + 1, 10 * iteration + 2)
        pair = [bed.rl(f"iteration-{iteration}/policy-{seed}", init=init, order=seed).path for seed in seeds]
        warmkit.merge(pair, merged, init=init, method="slerp", threads=1, force=True)
        bed.front("iterations", f"WARP {iteration}, to its init", [merged], init=init)
        bed.front("iterations", f"WARP {iteration}, to SFT", [merged])
    cost = 2 * bed.setting.iterations
    long = bed.rl("long", runs=cost)
    bed.trajectory("iterations", "long run", long)
    for runs in range(4, cost + 1, 2):
        bed.front("iterations", f"long run of {runs} T, LITI", [long.kept[runs * bed.setting.steps]])


def run(folder: Path, seed: int, setting: Setting) -> dict[str, Any]:
    """Measure every claim with one SFT seed, or read what was measured before."""
    target = folder / f"seed-{seed}.json"
    if not target.exists():
        bed = Testbed(folder, seed, setting)
        anchors(bed)
        models = policies(bed)
        slerp_against_lerp(bed, models)
        fronts(bed, models)
        iterations(bed, models)
        found = {
            "seed": seed,
            "setting": asdict(setting),
            "seconds": bed.seconds,
            "proxy": bed.proxy_report,
            "angles": angles(bed, models),
            "points": bed.points,
        }
        target.write_text(json.dumps(found, indent=1) + "\n")
    return json.loads(target.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("warp-experiment"))
    parser.add_argument("--seeds", default="", help="run these, 0,1,2 for instance")
    parser.add_argument("--report", action="store_true", help="tables to stdout, figures to the folder, of all seeds there are")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in (int(each) for each in given.seeds.split(",") if each):
        run(given.folder, seed, Setting())
    if given.report:
        seeds = report.read(given.folder)
        report.print_tables(seeds)
        figures.draw_all(seeds, given.folder)


if __name__ == "__main__":
    main()
