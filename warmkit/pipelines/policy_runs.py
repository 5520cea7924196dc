"""Runs of WARP that we train ourselves: their recipes, and what starts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmkit.common.progress import Advance
from warmkit.common.random_streams import run_seed
from warmkit.common.whole_files import write_whole
from warmkit.data.prompts import read_prompts
from warmkit.evaluation.policies import EvaluationSettings
from warmkit.pipelines.members import is_finished
from warmkit.pipelines.processes import Job, RunJobs, check_all_finished, default_jobs
from warmkit.pipelines.steps import Steps
from warmkit.recipes.recipe import recipe_text
from warmkit.training.optimizers import check_warmup
from warmkit.training.policy_recipe import PolicyRecipe, evaluation_keys
from warmkit.training.recipe_sections import RunOutput
from warmkit.training.warp_recipe import Variation, WarpRecipe


def run_name(iteration: int, m: int) -> str:
    """Return the name of a run, for messages and `warp.exclude`; iterations count from 1, runs from 0."""
    return f"iteration-{iteration}/run-{m + 1}"


def run_recipes(recipe: WarpRecipe, iteration: int, init: str) -> dict[str, PolicyRecipe]:
    """Return the recipes of one iteration's runs by name: every run of all iterations has its own order of the prompts.

    Args:
        recipe: Recipe of the whole pipeline.
        iteration: Counted from 1.
        init: What the runs start from.
    """
    warp = recipe.warp
    steps = None if warp.steps is None else warp.steps[min(iteration, len(warp.steps)) - 1]
    runs: dict[str, PolicyRecipe] = {}
    for m in range(warp.runs):
        name, number = run_name(iteration, m), (iteration - 1) * warp.runs + m
        own = warp.vary[m % len(warp.vary)] if warp.vary else Variation()
        changes = {key: value for key in ("lr", "beta", "mu") if (value := getattr(own, key)) is not None}
        seeds = {key: run_seed(getattr(recipe.policy, key), number) for key in ("order", "seed")}
        how = replace(recipe.policy, **seeds, **changes)
        runs[name] = PolicyRecipe(
            model=replace(recipe.model, path=init, sft=recipe.model.sft or recipe.model.path),
            data=recipe.data,
            rewards=own.rewards or recipe.rewards,
            output=replace(recipe.output, path=str(run_home(Path(recipe.output.path), name))),
            policy=how if steps is None else replace(how, steps=steps, epochs=None),
            controls=recipe.controls,
            value=recipe.value,
            lora=recipe.lora,
        )
    return runs


def steps_of_iterations(recipe: WarpRecipe, prompts: int) -> list[int]:
    """Return the steps of a run in every iteration that trains, for a number of prompts."""
    first = 1 if recipe.warp.policies is None else 2
    iterations = range(first, recipe.warp.iterations + 1)
    return [next(iter(run_recipes(recipe, i, "").values())).policy.steps_for(prompts) for i in iterations]


def run_home(out: Path, name: str) -> Path:
    """Return the directory of a run."""
    iteration, _, run = name.partition("/")
    return out / iteration / "runs" / run


class PolicyRuns:
    """Policies that we train ourselves."""

    evaluates = True

    def __init__(self, recipe: WarpRecipe, run_jobs: RunJobs, advance: Advance) -> None:
        self.recipe, self.warp, self.run_jobs, self.advance = recipe, recipe.warp, run_jobs, advance
        self.prompts = len(read_prompts(recipe.data.train))
        lengths = steps_of_iterations(recipe, self.prompts)
        for steps in lengths:
            check_warmup(recipe.policy, steps, "policy", recipe.value.warmup if recipe.policy.baseline == "value" else 0)
        self.total = sum(lengths) * recipe.warp.runs

    def train(self, iteration: int, init: str) -> dict[str, str]:
        runs = {name: each for name, each in run_recipes(self.recipe, iteration, init).items() if name not in self.warp.exclude}
        jobs = [job for name, each in runs.items() if (job := _job(name, each)) is not None]
        steps = next(iter(runs.values())).policy.steps_for(self.prompts)
        self.advance((len(runs) - len(jobs)) * steps, self.total)
        if jobs:
            most = min(self.warp.jobs or default_jobs(), self.warp.runs)  # not the runs left: threads decide the last bits
            failed = self.run_jobs(jobs, most, steps, lambda done, _: self.advance(done, self.total))
            check_all_finished(failed, len(runs), "warp.exclude")
        return {name: str(Path(each.output.path) / "model") for name, each in runs.items()}

    def scores(self, models: Mapping[str, str], steps: Steps) -> None:
        return None

    def settings(self) -> EvaluationSettings:
        recipe = self.recipe
        run = PolicyRecipe(recipe.model, recipe.data, recipe.rewards, RunOutput(""), recipe.policy, recipe.controls)
        how: dict[str, Any] = {**evaluation_keys(run), "samples": self.warp.samples, "batch_size": _rows(recipe)}
        return EvaluationSettings(**how)


def _rows(recipe: WarpRecipe) -> int:
    return -(-recipe.policy.batch_size // recipe.policy.accumulation) * recipe.policy.samples


def _job(name: str, run: PolicyRecipe) -> Job | None:
    """Write the recipe of a run; return its job, or None if it is done."""
    directory = Path(run.output.path)
    file = directory.with_name(f"{directory.name}.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, recipe_text(run).encode())
    if is_finished(run):
        return None
    return Job(name, ["policy", str(file)], directory / "metrics.jsonl")
