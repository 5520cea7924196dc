"""WARM from preference data to one merged model: probe, runs, ranking, averages, final model.

    OUT/recipe.yaml           every key resolved
    OUT/data/train.jsonl      the training pairs, swapped labels marked
    OUT/probe/model           the shared head on frozen features: the init of all runs, and the baseline
    OUT/runs/run-1/...        the fine-tunings, each a run directory
    OUT/evaluation/*.npz      scores of every model and average
    OUT/model                 the final model, written by the merge engine
    OUT/accuracy.png, orders.png, summary.json

Every step leaves its result, so a killed pipeline goes on where it was and nothing finished is done again.

Source: WARM (Ramé et al., 2024), section 3 and appendix C.3.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from warmkit.common.display import Displayed
from warmkit.common.json_files import dump_json
from warmkit.common.progress import Advance
from warmkit.common.random_streams import generator, run_seed
from warmkit.common.whole_files import write_whole
from warmkit.data.preferences import write_pairs
from warmkit.engine.contents import check_contents, write_contents
from warmkit.errors import UsageError, nearest
from warmkit.evaluation.averaging import Contest
from warmkit.evaluation.comparisons import Comparisons
from warmkit.evaluation.ranking_pairs import halves, with_ranking
from warmkit.evaluation.side_by_side import PROBE
from warmkit.layouts.compatibility import align
from warmkit.layouts.opening import open_inputs
from warmkit.modeling.reward_model import RewardModel
from warmkit.pipelines.executors import open_executor
from warmkit.pipelines.members import check_model, is_finished, unrecorded
from warmkit.pipelines.processes import Job, RunJobs, check_all_finished, default_jobs
from warmkit.pipelines.warm_choice import choose, findings
from warmkit.recipes.recipe import recipe_text
from warmkit.training.distributed import refuse_group
from warmkit.training.recipe_sections import ChoiceSection, DataSection, RewardModelRecipe, RunsSection, WarmRecipe
from warmkit.training.reward_modeling import (
    describe,
    load_comparisons,
    open_for_training,
    pairs_of,
    probe_head,
    save_reward_model,
    split,
    training_pairs,
)
from warmkit.training.run import RunDirectory
from warmkit.training.run_identity import run_identity
from warmkit.training.telling import Tell
from warmkit.training.trackers import check_trackers
from warmkit.training.trained_precision import with_precision
from warmkit.verbs.merge import merge


@dataclass(frozen=True, repr=False)
class WarmResult(Displayed):
    """What the pipeline found.

    Attributes:
        path: The final model.
        summary: What `summary.json` holds.
    """

    path: Path
    summary: dict[str, Any]

    def _facts(self) -> Mapping[str, object]:
        final = self.summary["final"]
        worth = {"score": final["score"]} if "score" in final else {"validation": final["validation"]["accuracy"]}
        return {"path": self.path, "of": len(self.summary["runs"]), "average of": final["members"], **worth}

    def _rows(self) -> Sequence[Mapping[str, object]]:
        if "scores" in self.summary:
            return [{"run": name, "score": score} for name, score in self.summary["scores"]["individuals"].items()]
        shown = ("data", "m", "wa", "ens", "individual", "probe")
        return [{name: row[name] for name in shown} for row in self.summary["accuracy"]]


def run_warm(
    recipe: WarmRecipe,
    *,
    force: bool = False,
    advance: Advance | None = None,
    address: str | None = None,
    tell: Tell | None = None,
    stage: Callable[[str], None] = lambda name: None,
) -> WarmResult:
    """Run WARM: train reward models and average the best; or go on where a killed run stopped.

    Args:
        recipe: Recipe of the whole pipeline.
        force: Delete a pipeline of another recipe that lies there.
        advance: Progress callback, in steps of all runs.
        address: Of the Ray cluster of `warm.executor: ray`.
        tell: Called with a line for every run whose worker on it was lost, and about data that may be meant otherwise.
        stage: Called with the name of every part of the work as it begins.

    Raises:
        ChangedError: If a finished run's model, or what it began with, was changed since.
        ClusterError: If the Ray cluster cannot be reached, or is lost.
        DataError: If a row of the data cannot be used.
        TrainingError: If runs failed; the finished ones stay, and `warm.exclude` leaves the failed ones out.
        UsageError: What `check` refuses.
    """
    refuse_group("warm")
    check(recipe)
    run_jobs = open_executor(recipe.warm.executor, address, tell)
    recipe, out = with_precision(recipe, "rm"), Path(recipe.output.path)
    directory = RunDirectory(out, recipe_text(recipe), force, run_identity(_identity(recipe)))
    _same_family([recipe.model.path, *(recipe.warm.inits or [])])
    recipe = replace(recipe, data=prepared_data(recipe, out))
    stage("probing")
    train_probe(recipe, out, tell)
    runs = {name: each for name, each in run_recipes(recipe, out).items() if name not in recipe.warm.exclude}
    stage("fine-tuning")
    _fine_tune(runs, recipe, out, run_jobs, advance)
    stage("averaging")
    model = open_for_training(replace(recipe.model, path=str(out / "probe" / "model")))
    data = split(load_comparisons(recipe.data, recipe.model, model))
    result = _conclude(recipe, out, runs, model, data, directory.notes)
    del directory  # its lock
    return result


def check(recipe: WarmRecipe) -> tuple[int, int]:
    """Refuse what could only fail later; return how many validation pairs rank the runs, and how many say what they are worth.

    Raises:
        DataError: If a row of the validation set cannot be used, or they are too few to divide.
        UsageError: If the runs cannot be ranked, share no head, names to leave out are none of theirs or leave too few, or a
            tracker is not installed.
    """
    check_trackers(recipe.output)
    if recipe.data.validation is None:
        raise UsageError("data.validation: expected a held-out set, which ranks the runs")
    if recipe.model.head is not None:
        raise UsageError("model.head: the runs share the head that warm itself trains on frozen features; leave it out")
    check_excluded(recipe.warm)
    ranking, rest = halves(pairs_of(recipe.data, recipe.data.validation))
    return len(ranking), len(rest)


def check_excluded(warm: RunsSection) -> None:
    """Refuse names to leave out that are no run's, or that leave too few.

    Raises:
        UsageError: Saying which.
    """
    names = [f"run-{number + 1}" for number in range(warm.runs)]
    for name in warm.exclude:
        if name not in names:
            raise UsageError(f"warm.exclude: no run is called {name!r}{nearest(name, names)}")
    left = len(set(names) - set(warm.exclude))
    if left < max(2, warm.m or 0):
        raise UsageError(f"warm.exclude leaves {left} of {len(names)} runs; expected at least {max(2, warm.m or 0)}")


# ---- runs -----------------------------------------------------------------------------------------------------------


def run_recipes(recipe: WarmRecipe, out: Path) -> dict[str, RewardModelRecipe]:
    """Return the recipe of every run: the grid of rates, dropouts and inits in a drawn order, each with its own data order."""
    warm = recipe.warm
    grid = list(
        itertools.product(warm.lr or [recipe.rm.lr], warm.dropout or [recipe.rm.dropout], warm.inits or [recipe.model.path])
    )
    order = generator("grid order", warm.seed).permutation(len(grid))
    runs: dict[str, RewardModelRecipe] = {}
    for number in range(warm.runs):
        lr, dropout, init = grid[order[number % len(grid)]]
        name = f"run-{number + 1}"
        runs[name] = RewardModelRecipe(
            model=replace(recipe.model, path=init, head=str(out / "probe" / "model")),
            data=replace(recipe.data, corrupt=0.0),
            output=replace(recipe.output, path=str(out / "runs" / name)),
            rm=replace(
                recipe.rm,
                lr=lr,
                dropout=dropout,
                order=run_seed(recipe.rm.order, number),
                seed=run_seed(recipe.rm.seed, number),
            ),
            probe=recipe.probe,
            lora=recipe.lora,
        )
    return runs


def _fine_tune(
    runs: dict[str, RewardModelRecipe], recipe: WarmRecipe, out: Path, run_jobs: RunJobs, advance: Advance | None
) -> None:
    jobs: list[Job] = []
    for name, each in runs.items():
        directory = Path(each.output.path)
        file = out / "runs" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        write_whole(file, recipe_text(each).encode())
        if not is_finished(each):
            jobs.append(Job(name, ["reward-model", str(file)], directory / "metrics.jsonl"))
    steps = recipe.rm.steps_for((out / "data" / "train.jsonl").read_bytes().count(b"\n"))
    most = min(recipe.warm.jobs or default_jobs(), recipe.warm.runs)  # not the runs left: threads decide the last bits
    check_all_finished(run_jobs(jobs, most, steps, advance), len(runs), "warm.exclude")


def train_probe(recipe: WarmRecipe, out: Path, tell: Tell | None = None) -> Path:
    """Train the head that all runs share on frozen features, once; return the reward model that has it."""
    target = out / "probe" / "model"
    if not target.exists():
        model = open_for_training(recipe.model)
        data = load_comparisons(recipe.data, recipe.model, model, tell)
        probe_head(model, recipe.probe.l2, {"train": data["train"]})
        save_reward_model(model, target)
        write_contents(target)
        del model
        torch.cuda.empty_cache()  # the runs need it
    check_contents(target)
    return target


def prepared_data(recipe: WarmRecipe, out: Path) -> DataSection:
    """Write the training pairs with their swapped labels once, so that all runs and evaluations read the same."""
    file = out / "data" / "train.jsonl"
    if not file.exists():
        pairs = training_pairs(recipe.data)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_pairs(pairs, file)
    return replace(recipe.data, train=str(file), corrupt=0.0)


def _same_family(paths: Sequence[str]) -> None:
    """Refuse inits whose weights or vocabularies cannot be averaged, before anything is trained."""
    if len(paths) > 1:
        align(open_inputs(paths, {}))


def _identity(recipe: WarmRecipe) -> WarmRecipe:
    """Return the recipe without the keys that change what is concluded, not what is trained."""
    return replace(
        recipe, warm=replace(recipe.warm, runs=2, jobs=None, executor="processes", exclude=[], orders=0, final="all", m=None)
    )


# ---- conclusions ----------------------------------------------------------------------------------------------------


def _conclude(
    recipe: WarmRecipe,
    out: Path,
    runs: dict[str, RewardModelRecipe],
    model: RewardModel,
    data: dict[str, Comparisons],
    notes: Sequence[str],
) -> WarmResult:
    members = {name: out / "runs" / name / "model" for name in runs}
    paths = {**members, PROBE: out / "probe" / "model"}
    contest = Contest(model, with_ranking(data), paths, out / "evaluation", recipe.rm.precision)
    differ = {name: {"lr": each.rm.lr, "dropout": each.rm.dropout, "init": each.model.path} for name, each in runs.items()}

    def recheck() -> None:
        for each in members.values():
            check_model(each)

    return average_chosen(contest, recipe.warm, differ, out, recheck, [*notes, *unrecorded(members)], recipe.warm.exclude)


def average_chosen(
    contest: Contest,
    warm: ChoiceSection,
    differ: Mapping[str, Mapping[str, Any]],
    out: Path,
    recheck: Callable[[], object],
    notes: Sequence[str] = (),
    excluded: Sequence[str] = (),
) -> WarmResult:
    """Choose models of a pool, write their average, and say what it is worth.

    Args:
        contest: Of the pool; its data has `ranking`.
        warm: How to choose.
        differ: What tells the models apart, by name.
        out: Directory of the pipeline.
        recheck: Raises an error if a model is no longer what was measured and averaged.
        notes: What a user has to know, beside what is found.
        excluded: Names that were left out of the pool.
    """
    choice = choose(contest, list(differ), warm)
    write_final(out, [str(contest.members[name]) for name in choice.members])
    summary = {
        "data": {name: describe(each) for name, each in contest.data.items()},
        "runs": [{"name": name, **differ[name]} for name in choice.ranked],
        "excluded": list(excluded),
        **findings(contest, choice, random_orders(list(differ), warm.orders, warm.seed)),
    }
    summary["notes"] = [*notes, *summary["notes"]]
    recheck()
    _draw(out, summary)
    write_whole(out / "summary.json", dump_json(summary))
    return WarmResult(out / "model", summary)


def random_orders(names: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """Draw orders in which models may be added to an average, to hold the ranked order against."""
    draw = generator("random soups", seed)
    return [[names[int(place)] for place in draw.permutation(len(names))] for _ in range(count)]


def write_final(out: Path, models: Sequence[str]) -> None:
    """Write the average of the chosen, in place of another choice's."""
    target = out / "model"
    merge(models, target, method="uniform", force=target.exists())


def _draw(out: Path, summary: dict[str, Any]) -> None:
    from warmkit.report.specification import can_draw

    if not can_draw():
        return
    from warmkit.report.picture import draw
    from warmkit.report.runs.averaged_models import accuracy_charts, orders_chart

    draw(accuracy_charts(summary["accuracy"]), out / "accuracy.png")
    if (orders := orders_chart(summary["orders"])) is not None:
        draw([orders], out / "orders.png")
