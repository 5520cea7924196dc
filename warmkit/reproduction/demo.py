"""WARM and WARP in miniature: preferences, six reward models, their average, two policies, their merge, the front.

    DEMO/sft/at-100                         the SFT model, a tiny decoder of the testbed's language
    DEMO/reward-models/demo/runs/run-1/...  six reward models; a quarter of their labels are swapped
    DEMO/merged/warm                        the average of the three best: the reward of the policies
    DEMO/reward-models/memorising/runs/...  four reward models that learn a few pairs by heart
    DEMO/policies/policy-1/model, ...       two policies with an EMA anchor, and one that nothing holds back
    DEMO/merged/slerp, DEMO/merged/liti     SLERP of the two, and the same drawn back towards the SFT model
    DEMO/demo.json, DEMO/report.html        what was found

Source: WARM (Ramé et al., 2024), section 3; WARP (Ramé et al., 2024), algorithm 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from warmkit.checkpoints.checkpoint import dump_json
from warmkit.checkpoints.staging import writing
from warmkit.checkpoints.whole_files import write_whole
from warmkit.errors import OutputError
from warmkit.evaluation.accuracy import Scores, pairwise_accuracy
from warmkit.evaluation.averaging import Contest
from warmkit.evaluation.ranking_pairs import RANKING, VALIDATION, with_ranking
from warmkit.pipelines.warm_choice import choose
from warmkit.records import parsed
from warmkit.reproduction.claims import warm_corruption
from warmkit.reproduction.claims.proxies import proxy
from warmkit.testbed.bed import Testbed
from warmkit.testbed.judge import Judge
from warmkit.testbed.settings import PoliciesSection, RewardModelsSection, TestbedSettings
from warmkit.training.policy import PolicyResult
from warmkit.training.recipe import WarmSection

Advance = Callable[[int, int], None]
DOCUMENT = "demo.json"
MEMBERS = 6
ETAS = (0.0, 0.3, 0.5, 0.8, 1.0, 1.2)
SECONDS = {"sft": 45, "reward models": 45, "memorising": 20, "policies": 50, "front": 15}
"""What parts take, about: the places of the progress bar."""
SETTINGS = TestbedSettings(
    reward_models=RewardModelsSection(pairs=6000, held_out=4000, lr=[1e-3, 7e-4, 1.4e-3], steps=300, batch_size=8),
    warp_policies=PoliciesSection(steps=150, batch_size=4, samples=2, lr=1e-3, anchor="ema", beta=1.0, watched=6),
    evaluated=64,
)
MEMORISING = warm_corruption.Settings(models=4)


@dataclass(frozen=True)
class Story:
    """What the demo found; `document` is what `demo.json` holds.

    Attributes:
        path: Its folder.
        document: `reward_models` (accuracies in percent), `members` (runs that are averaged), `measured` (how many pairs chose
            them, how many others measured), `notes`, `memorised` (accuracies of models that learned few pairs by heart),
            `policies` (each with its numbers), `points` (trajectories and the front), `examples` (what three policies answer).
    """

    path: Path
    document: dict[str, Any]


def run_demo(
    folder: Path,
    seed: int = 0,
    advance: Advance | None = None,
    settings: TestbedSettings = SETTINGS,
    memorising: warm_corruption.Settings = MEMORISING,
) -> Story:
    """Tell the story, or go on where a killed demo stopped.

    Args:
        folder: Where everything goes.
        seed: Of everything.
        advance: Progress callback, in seconds that are expected.
        settings: Of the testbed.
        memorising: How much is learned by heart.

    Raises:
        OutputError: If the folder holds something else, or a demo of another seed.
    """
    _enter(folder, seed)
    total, tick = sum(SECONDS.values()), advance or (lambda done, of: None)
    tick(0, total)
    bed = Testbed(folder, seed, settings)
    assert bed.sft
    tick(SECONDS["sft"], total)
    models = _reward_models(bed)
    warm = bed.average("warm", models.pop("paths"))
    tick(SECONDS["reward models"], total)
    memorised = _memorised(bed, memorising)
    tick(SECONDS["memorising"], total)
    reward = proxy(bed, [warm])
    runs = {
        "policy 1": bed.policy("policy-1", [reward], settings.warp_policies, order=1),
        "policy 2": bed.policy("policy-2", [reward], settings.warp_policies, order=2),
        "no anchor": bed.policy("no-anchor", [reward], settings.warp_policies, order=1, anchor="none", beta=0.0),
    }
    tick(SECONDS["policies"], total)
    document = {"seed": seed, **models, "memorised": memorised, **_policies(bed, Judge(bed, reward), runs)}
    write_whole(folder / DOCUMENT, dump_json(document))
    tick(SECONDS["front"], total)
    return Story(folder, document)


def _enter(folder: Path, seed: int) -> None:
    mark = folder / "seed.json"
    with writing(folder):
        if mark.exists():
            if parsed(mark.read_bytes(), mark) != seed:
                raise OutputError(f"{folder}: holds a demo of another seed than {seed}; choose another -o")
            return
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder}: expected an empty directory or none; choose another -o")
        folder.mkdir(parents=True, exist_ok=True)
    write_whole(mark, json.dumps(seed).encode())


def _reward_models(bed: Testbed) -> dict[str, Any]:
    """Train six reward models; choose and measure as `warmkit warm` does with its defaults."""
    pool = bed.pool("demo", MEMBERS, inits=[bed.sft])
    everything = bed.contest(pool)
    contest = Contest(everything.model, with_ranking(everything.data), everything.members, everything.cache)
    choice = choose(contest, list(pool.runs), WarmSection(runs=MEMBERS))
    scored = {
        "probe only": contest.individual("probe"),
        **{name: contest.individual(name) for name in pool.runs},
        "WARM": contest.average(choice.members),
        "ensemble": contest.ensemble(choice.members),
    }
    return {
        "reward_models": _accuracies(scored),
        "members": choice.members,
        "measured": {name: len(contest.data[name]) for name in (RANKING, VALIDATION)},
        "notes": choice.notes,
        "paths": [pool.runs[name] for name in choice.members],
    }


def _memorised(bed: Testbed, how: warm_corruption.Settings) -> list[dict[str, Any]]:
    """Let reward models learn a few pairs by heart, swapped labels too: accuracies in percent, of each, WA and ENS of all."""
    pool = warm_corruption.memorising(bed, how)
    contest, names = bed.contest(pool), list(pool.runs)
    scored = {name: contest.individual(name) for name in names}
    return _accuracies({**scored, "WARM": contest.average(names), "ensemble": contest.ensemble(names)})


def _accuracies(scored: Mapping[str, Mapping[str, Scores]]) -> list[dict[str, Any]]:
    return [{"model": name, **{data: 100 * pairwise_accuracy(each[data]) for data in each}} for name, each in scored.items()]


def _policies(bed: Testbed, judge: Judge, runs: dict[str, PolicyResult]) -> dict[str, Any]:
    """Merge the two policies, and evaluate them, the merge, and the way back to the SFT model."""
    pair = [runs[name].path for name in ("policy 1", "policy 2")]
    bed.average("slerp", pair, init=str(bed.sft), method="slerp")
    bed.average("liti", pair, init=str(bed.sft), method="slerp", eta=0.3)
    front = judge.sweep(pair, ETAS, bed.sft)
    points = [{"line": name, **point} for name, run in runs.items() for point in judge.trajectory(run)]
    points += [{"line": "SLERP and LITI", **point} for point in front]
    ends = {name: [point for point in points if point["line"] == name][-1] for name in runs}
    rows = {"SFT": judge.sft, **ends, "SLERP": _at(front, 1.0), "LITI 0.3": _at(front, 0.3)}
    places = {"SFT": bed.sft, "no anchor": runs["no anchor"].path, "LITI 0.3": bed.folder / "merged" / "liti"}
    return {
        "policies": [{"policy": name, **numbers} for name, numbers in rows.items()],
        "points": points,
        "examples": _examples(judge, places),
    }


def _at(front: list[dict[str, float]], eta: float) -> dict[str, float]:
    return next(point for point in front if point["at"] == eta)


def _examples(judge: Judge, places: dict[str, Path]) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for name, path in places.items():
        judge.measure(load_file(path / "model.safetensors"))
        answers = judge.candidate.answers(samples=1)
        rows.append({"policy": name, "prompt": answers.prompts[0], "answer": answers.texts[0][0]})
    return rows
