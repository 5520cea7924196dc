"""`warmkit train rm`, `sft` and `policy`; `warmkit train-rm` and `train-policy`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import typer

from warmkit.cli.command import Command, argument, command, option
from warmkit.cli.console import Console, table
from warmkit.cli.policy_options import tell_truncated_prompts
from warmkit.cli.usage import Commands
from warmkit.common.records import is_number
from warmkit.common.units import number

T = TypeVar("T")
R = TypeVar("R", bound=Any)


@dataclass(eq=False, repr=False)
class RecipeRun:
    """Recipe, and what becomes of it."""

    recipe: Path = argument("RECIPE", "A YAML file, or - for standard input.", show_default=False)
    overrides: list[str] | None = option(
        None, "Change a key of the recipe: rm.lr=1e-5. Repeatable.", "--set", metavar="KEY=VALUE"
    )
    dry_run: bool = option(False, "Print the resolved recipe, the size and the steps; train nothing.")
    force: bool = option(False, "Start again where a run of another recipe lies.")

    def read(self, kind: type[T], more: Sequence[str] = (), instead: Mapping[str, type[T]] | None = None) -> T:
        """Read the recipe with its overrides; `instead` are other kinds, by the key that tells them.

        Raises:
            RecipeError: If it is none of them.
        """
        from warmkit.recipes.recipe import read_recipe

        return read_recipe(self.recipe, kind, [*(self.overrides or ()), *more], instead).content

    def train(self, console: Console, content: Any, precision: str, train: Callable[..., R]) -> R:
        """Train, in all processes of `accelerate launch` if this is one of them; say what the run noted of itself."""
        from warmkit.training import distributed

        tell_slow_precision(console, precision)
        with console.progress("training", unit="steps") as advance:
            result = train(content, force=self.force, advance=advance, tell=console.note)
        distributed.leave()
        console.note(*result.summary.get("notes") or ())
        return result


app = typer.Typer(cls=Commands, help="Train reward models, language models and policies from recipes.", no_args_is_help=True)


@command(resumes=True, needs_transformers=True)
def rm(console: Console, run: RecipeRun) -> None:
    """Train a reward model on preference pairs.

    A killed run goes on where it stopped when the same command is given again. Accuracies are shares from 0 to 1. Needs the
    `train` extra.

    Examples:

    - `warmkit train rm recipe.yaml`
    - `warmkit train rm recipe.yaml --set rm.lr=4e-5 --set output.path=runs/b`
    - `warmkit train rm recipe.yaml --dry-run`
    """
    from warmkit.training.recipe_sections import RewardModelRecipe

    content, console = run.read(RewardModelRecipe), join(console)
    from warmkit.training import reward_modeling

    if run.dry_run:
        model = reward_modeling.open_for_training(content.model, content.rm.dropout)
        data = reward_modeling.load_comparisons(content.data, content.model, model, console.note)
        _plan(console, content, model.model, content.rm.steps_for(len(data["train"])), data)
        return
    result = run.train(console, content, content.rm.precision, reward_modeling.train_reward_model)
    rows = [
        [name, str(each["pairs"]), f"{each['accuracy']:.3f} ({each['low']:.3f}-{each['high']:.3f})", f"{each['loss']:.4f}"]
        for name, each in result.summary["evaluation"].items()
    ]
    console.result(
        {"path": str(result.path), "resumed": result.resumed, **result.summary},
        table(None, ["data", "pairs", "accuracy (95%)", "loss"], rows),
        str(result.path),
    )


@command(resumes=True, needs_transformers=True)
def sft(console: Console, run: RecipeRun) -> None:
    """Fine-tune a language model on texts or on the chosen answers of pairs.

    `sft.keep: [800, 1000]` keeps the models of these steps: the inits that WARM's Baklava starts from.

    Examples:

    - `warmkit train sft recipe.yaml`
    - `warmkit train sft recipe.yaml --set 'sft.keep=[80, 90]'`
    """
    from warmkit.training.recipe_sections import SftRecipe

    content, console = run.read(SftRecipe), join(console)
    from warmkit.training import sft as training

    if run.dry_run:
        task = training.open_task(content, console.note)
        _plan(console, content, task.model, content.sft.steps_for(task.examples), task.data)
        return
    result = run.train(console, content, content.sft.precision, training.train_sft)
    if opened := result.summary.get("opened_otherwise"):
        console.note(
            f"the chat template opens an answer with {opened!r}, which finished chats have not: answers were learned without "
            "it, and will be sampled behind it"
        )
    losses = [f"{key.replace('_', ' ')}: {result.summary[key]:.4f}" for key in ("validation_loss",) if key in result.summary]
    places = [str(path) for path in result.kept.values()] + [str(result.path)]
    kept = {str(step): str(path) for step, path in result.kept.items()}
    console.result({"path": str(result.path), "kept": kept, **result.summary}, *losses, *places)


@command(resumes=True, needs_transformers=True)
def policy(console: Console, run: RecipeRun) -> None:
    """Train a policy on rewards by REINFORCE, with a KL to an anchor: its own moving average (WARP) or its init.

    A killed run goes on where it stopped when the same command is given again. Needs the `train` extra.

    Examples:

    - `warmkit train policy recipe.yaml`
    - `warmkit train policy recipe.yaml --set policy.order=1 --set output.path=runs/b`
    - `warmkit train policy recipe.yaml --dry-run`
    """
    from warmkit.training.policy_recipe import PolicyRecipe

    content, console = run.read(PolicyRecipe), join(console)
    if run.dry_run:
        from warmkit.training.policy_opening import open_policy

        task = open_policy(content, console.note)
        for name, each in task.data.items():
            tell_truncated_prompts(console, f"data.{name}", each.truncated, len(each))
        _plan(console, content, task.model, content.policy.steps_for(len(task.data["train"])), task.data)
        return
    from warmkit.training.policy import train_policy

    result = run.train(console, content, content.policy.precision, train_policy)
    for name, each in result.summary["data"].items():
        tell_truncated_prompts(console, f"data.{name}", each["truncated"], each["prompts"])
    if asked := result.summary.get("not_followed"):
        from warmkit.modeling.generation_config import told

        console.note(f"{content.model.path}: {told(asked)}")
    console.note(*result.summary["warnings"])
    if result.summary["stopped"] is not None:
        console.note(f"stopped after {result.summary['steps']} steps: the KL is above policy.kl_ceiling")
    kept = {str(step): str(path) for step, path in result.kept.items()}
    console.result(
        {"path": str(result.path), "kept": kept, "resumed": result.resumed, **result.summary},
        table(None, ["", "last step", "validation"], _policy_rows(result.summary)),
        *map(str, (*result.kept.values(), result.path)),
    )


def _policy_rows(summary: dict[str, Any]) -> list[list[str]]:
    """Return the rewards and what else tells about a policy, of the last step and of the validation prompts."""
    shown = ("reward", "control_", "kl_", "entropy", "length", "without_eos")
    last = {name: value for name, value in summary["last"].items() if name.startswith(shown)}
    return [[name.replace("_", " "), _cell(each), _cell(summary.get(f"validation_{name}"))] for name, each in last.items()]


def _cell(value: Any) -> str:
    return f"{value:.4f}" if is_number(value) else ""


def join(console: Console) -> Console:
    """Join the processes of `accelerate launch`, if this is one of several; the first alone says what it has to say."""
    from warmkit.training.distributed import group

    if not group().first:
        console.quiet, console.verbose, console.json = True, False, False
    return console


def tell_slow_precision(console: Console, precision: str) -> None:
    """Note that a precision which was asked for is slow on this machine."""
    from warmkit.modeling.precision import slow_precision

    if (line := slow_precision(precision)) is not None:
        console.note(line)


def _plan(console: Console, content: Any, model: Any, steps: int, data: dict[str, Any]) -> None:
    from warmkit.recipes.recipe import plain, recipe_text

    parameters = sum(each.numel() for each in model.parameters())
    sizes = {name: len(each) if not isinstance(each, tuple) else len(each[0]) for name, each in data.items()}
    document = {"recipe": plain(content), "parameters": parameters, "steps": steps, "data": sizes}
    counted = ", ".join(f"{name} {size}" for name, size in sizes.items())
    console.result(document, recipe_text(content), f"{number(parameters)} parameters, {steps} steps; {counted}")


for each in (rm, sft, policy):
    app.command(cls=Command)(each)
