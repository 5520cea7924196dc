"""WARM and WARP in miniature: preferences, six reward models, their average, two policies, their merge, the front.

    DEMO/sft/at-100                         the SFT model, a tiny decoder of the testbed's language
    DEMO/reward-models/demo/runs/run-1/...  six reward models; a quarter of their labels are swapped
    DEMO/merged/warm                        the average of the three best: the reward of the policies
    DEMO/reward-models/memorising/runs/...  reward models that learn a few pairs by heart
    DEMO/policies/policy-1/model, ...       two policies with an EMA anchor, and the first once more without it
    DEMO/merged/slerp, DEMO/merged/liti     SLERP of the two, and the same drawn back towards the SFT model
    DEMO/found/NAME.json                    what each task found
    DEMO/demo.json, DEMO/report.html        what all found

The tasks are in `demo_stages`, which processes import that this one starts; it needs no torch itself.

Source: WARM (Ramé et al., 2024), section 3; WARP (Ramé et al., 2024), algorithm 1.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.common.json_files import dump_json
from warmkit.common.records import is_natural, read_record
from warmkit.common.whole_files import write_whole, writing
from warmkit.engine.devices import cores
from warmkit.errors import OutputError
from warmkit.evidence.tasks import Advance, Task, carry_out
from warmkit.evidence.testbed.sizes import PoliciesSection, PretrainingSection, RewardModelsSection, TestbedSettings
from warmkit.evidence.workers import forking
from warmkit.recipes.recipe import plain
from warmkit.training.recipe_sections import number_in

DOCUMENT, MARK = "demo.json", "setting.json"
MEMBERS = 6
ETAS = (0.0, 0.3, 0.5, 0.8, 1.0, 1.2)
LITI = 0.3
POLICIES: dict[str, dict[str, Any]] = {
    "policy 1": {"order": 1},
    "policy 2": {"order": 2},
    "no anchor": {"order": 1, "anchor": "none"},
}
"""What is particular to each: the last one is the first without its anchor, and like it in everything else."""
MOST = 8
"""Processes at a time; there are never more tasks to do."""
IMPORTS = ("warmkit.evidence.demo.demo_stages", "transformers.models.llama.modeling_llama")


@dataclass(frozen=True)
class HeartSection:
    """Reward models that learn a few pairs by heart.

    Attributes:
        models: How many.
        pairs: To learn from.
        corrupt: Share whose labels are swapped.
        lr: Learning rate, the same for all.
        steps: Of a run.
    """

    models: int = number_in(2, default=4)
    pairs: int = number_in(1, default=400)
    corrupt: float = number_in(0, 1, default=0.25)
    lr: float = number_in(0, default=1.5e-3)
    steps: int = number_in(1, default=400)


@dataclass(frozen=True)
class DemoSettings:
    """How large the demo is.

    Attributes:
        testbed: Its models and runs.
        heart: What is learned by heart.
        saved: Steps between states that a killed run goes on from.
    """

    testbed: TestbedSettings = TestbedSettings(
        pretraining=PretrainingSection(steps=1200, batch_size=32, spread=0.1),
        reward_models=RewardModelsSection(pairs=6000, held_out=4000, lr=[1e-3, 7e-4, 1.4e-3], steps=300, batch_size=8),
        warp_policies=PoliciesSection(steps=150, batch_size=4, samples=2, lr=1e-3, anchor="ema", beta=1.0, watched=6),
        evaluated=64,
    )
    heart: HeartSection = HeartSection()
    saved: int = number_in(1, default=50)


SETTINGS = DemoSettings()


@dataclass(frozen=True)
class Plan:
    """A demo that is told in a folder."""

    folder: Path
    seed: int
    settings: DemoSettings = SETTINGS

    def __hash__(self) -> int:
        return hash((self.folder, self.seed))


@dataclass(frozen=True)
class Story:
    """What the demo found; `document` is what `demo.json` holds.

    Attributes:
        path: Its folder.
        document: `reward_models` (accuracies, shares), `members` (runs that are averaged), `measured` (how many pairs chose
            them, how many others measured), `notes`, `memorised` (the same of models that learned few pairs by heart),
            `differences` and `memorised_differences` (between two rows, with 95% intervals), `policies` (each with its
            numbers), `points` (trajectories and the front), `examples` (answers).
        seconds: Seconds of a processor that each task took, of those that were done now.
    """

    path: Path
    document: dict[str, Any]
    seconds: dict[str, float]


def folders_of(output: Path, seeds: Sequence[int]) -> dict[int, Path]:
    """Return the folder of every seed: the output itself where there is one, else `seed-N` inside.

    Raises:
        OutputError: If there are several, and the output holds something else.
    """
    if len(seeds) == 1:
        return {seeds[0]: output}
    with writing(output):
        if output.exists() and not output.is_dir():
            raise OutputError(f"{output}: expected an empty directory or none; choose another -o")
        strange = [each.name for each in output.iterdir() if not _of_seeds(each.name)] if output.exists() else []
    if strange:
        raise OutputError(f"{output}: holds {strange[0]}, which is of no seed; choose another -o")
    return {seed: output / f"seed-{seed}" for seed in seeds}


def _of_seeds(name: str) -> bool:
    return name == "report.html" or (name.startswith("seed-") and name.removeprefix("seed-").isdigit())


def run_demos(
    folders: dict[int, Path],
    advance: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
    *,
    settings: DemoSettings = SETTINGS,
    jobs: int | None = None,
) -> list[Story]:
    """Tell the story of several seeds, or go on where it was stopped.

    Args:
        folders: Where everything of each seed goes.
        advance: Progress callback, in hundredths of a second that a core takes, about.
        tell: Called with what is done now.
        settings: How large it is.
        jobs: Processes at a time, by default two a core, which keep cores busy while another waits; 0 does
            everything in this one. Numbers are the same.

    Raises:
        OutputError: If a folder holds something else, or a demo of another seed or other settings.
        TrainingError: If a process ended without a result; what is finished stays.
    """
    plans = [Plan(folder, seed, settings) for seed, folder in folders.items()]
    for plan in plans:
        _enter(plan)
    waiting = [plan for plan in plans if not (plan.folder / DOCUMENT).exists()]
    tasks = [task for plan in waiting for task in tasks_of(plan)]
    jobs = min(2 * cores(), MOST * len(plans)) if jobs is None else jobs
    seconds = carry_out(tasks, jobs, forking(IMPORTS), advance, tell)
    return [_story(plan, seconds) for plan in plans]


def _enter(plan: Plan) -> None:
    folder, mark, setting = plan.folder, plan.folder / MARK, dump_json({"seed": plan.seed, **plain(plan.settings)})
    with writing(folder):
        if mark.exists():
            known = read_record(mark, {"seed": is_natural})
            if known != json.loads(setting):
                other = f"another seed than {plan.seed}" if known["seed"] != plan.seed else "other settings"
                raise OutputError(f"{folder}: holds a demo of {other}; choose another -o")
            return
        if folder.exists() and (not folder.is_dir() or {each.name for each in folder.iterdir()} - {f".{MARK}.partial"}):
            raise OutputError(f"{folder}: expected an empty directory or none; choose another -o")
        folder.mkdir(parents=True, exist_ok=True)
    write_whole(mark, setting)


def tasks_of(plan: Plan) -> list[Task]:
    """Return what there is to do, what others wait for first; costs are hundredths of a second of an idle core, about."""
    settings = plan.settings
    members = [f"run-{number + 1}" for number in range(MEMBERS)]
    hearts = [f"run-{number + 1}" for number in range(settings.heart.models)]

    def task(stage: str, part: str, cost: float, after: Sequence[str] = (), *arguments: Any) -> Task:
        name = " ".join([stage, *arguments])
        return Task(f"{before}{name}", part, cost, _Stage(plan, stage, arguments), [before + each for each in after])

    before, names = f"seed {plan.seed}: ", list(POLICIES)
    return [
        task("sft", "SFT model", 2500),
        task("preferences", "SFT model", 80),
        task("others", "reward models", 250, ["sft"]),
        task("probe", "reward models", 200, ["sft", "preferences"]),
        *(task("member", "reward models", 300, ["probe"], run) for run in members),
        task("scores", "reward models", 100, ["others", "probe"], "probe"),
        *(task("scores", "reward models", 100, ["others", f"member {run}"], run) for run in members),
        task("choice", "reward models", 500, [f"scores {run}" for run in ("probe", *members)]),
        *(task("policy", "policies", 500, ["choice"], name) for name in names),
        task("front", "policies", 350, [f"policy {name}" for name in names[:2]]),
        *(task("heart", "what is memorised", 300, ["sft", "preferences"], run) for run in hearts),
        task("memory", "what is memorised", 200, [f"heart {run}" for run in hearts] + ["others"]),
        task("answers", "policies", 50, ["front", *(f"policy {name}" for name in names)]),
        task("whole", "policies", 1, ["choice", "memory", "answers", *(f"policy {name}" for name in names)]),
    ]


@dataclass(frozen=True)
class _Stage:
    """A task as processes are given it: they import what it needs, the process that starts them does not."""

    plan: Plan
    name: str
    arguments: tuple[Any, ...]

    def __call__(self, advance: Advance) -> None:
        stages = importlib.import_module("warmkit.evidence.demo.demo_stages")
        getattr(stages, self.name)(self.plan, *self.arguments, advance)


def _story(plan: Plan, seconds: dict[str, float]) -> Story:
    mine = f"seed {plan.seed}: "
    document = read_record(plan.folder / DOCUMENT, {"seed": is_natural})
    return Story(plan.folder, document, {name.removeprefix(mine): each for name, each in seconds.items() if mine in name})
