"""What the verbs that evaluate policies share: `eval policy`, `front`, `bon`, `sxs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmkit.cli.console import Console
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.data.prompts import Prompt
    from warmkit.evaluation.policies import Candidate, EvaluationSettings, PolicyTrial
    from warmkit.evaluation.rewards import Term

Like = Annotated[
    Path | None,
    typer.Option("--recipe", help="Recipe of the policies' training: prompts, rewards and sampling where no option says else."),
]
PromptFile = Annotated[str | None, typer.Option("--prompts", help="Prompts to answer.")]
Rewards = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        metavar="[NAME=][WEIGHT*]WHAT",
        help="A reward model (several with commas: their mean), module:function, 'command: LINE', or http://host/score. "
        "Repeatable: they are added.",
    ),
]
Controls = Annotated[
    list[str] | None, typer.Option("--control", metavar="[NAME=]WHAT", help="A reward that is only reported. Repeatable.")
]
Sft = Annotated[str | None, typer.Option("--sft", help="The model that the KL is reported to.")]
Samples = Annotated[int, typer.Option("--samples", min=1, help="Completions of every prompt.")]
Temperature = Annotated[float | None, typer.Option("--temperature", min=1e-3, help="Sampling temperature.", show_default="0.9")]
NewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", min=1, help="Tokens of a completion, its end included.", show_default="64")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        metavar="TOKEN",
        help="A token that ends a completion, beside EOS and those of the checkpoint's generation config and chat template. "
        "Repeatable.",
    ),
]
AsChats = Annotated[bool, typer.Option("--chat", help="Make chats of rows that are texts, for the model's chat template.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of sampling, the same for every policy.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Completions at a time.")]


def evaluation_settings(
    recipe: Path | None,
    *,
    prompts: str | None,
    rewards: Sequence[str] | None,
    controls: Sequence[str] | None,
    sft: str | None,
    temperature: float | None,
    max_new_tokens: int | None,
    samples: int,
    seed: int,
    batch_size: int,
    stop: Sequence[str] | None = None,
    chat: bool = False,
    needed: Sequence[str] = ("prompts", "rewards"),
) -> EvaluationSettings:
    """Lay the options over what a training recipe says.

    Raises:
        UsageError: If neither says what is `needed`: the prompts or the rewards.
    """
    from warmkit.evaluation.policies import EvaluationSettings
    from warmkit.evaluation.reward_term import parse_reward_term

    known = {} if recipe is None else _of_recipe(recipe)
    given: dict[str, Any] = {
        "prompts": prompts,
        "rewards": [parse_reward_term(each) for each in rewards] if rewards else None,
        "controls": [parse_reward_term(each) for each in controls] if controls else None,
        "sft": sft,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "samples": samples,
        "seed": seed,
        "batch_size": batch_size,
        "stop": list(stop) if stop else None,
        "chat": chat or None,
    }
    values: dict[str, Any] = {"rewards": []} | known | {key: value for key, value in given.items() if value is not None}
    options = {"prompts": "--prompts", "rewards": "--reward", "controls": "--control"}
    if missing := [options[key] for key in needed if not values.get(key)]:
        raise UsageError(f"expected {' and '.join(missing)}, or a --recipe that says so")
    return EvaluationSettings(**values)


def _of_recipe(path: Path) -> dict[str, Any]:
    from warmkit.recipes.recipe import read_recipe
    from warmkit.training.policy_recipe import PolicyRecipe, evaluation_keys

    return evaluation_keys(read_recipe(path, PolicyRecipe, ()).content)


def open_candidate(console: Console, trial: PolicyTrial, path: str) -> Candidate:
    """Load a policy and its prompts; say if it does not see them whole, or not in the form that it may know."""
    from warmkit.modeling.generation_config import told

    candidate = trial.open(path)
    tell_truncated_prompts(console, path, candidate.data.truncated, len(candidate.data))
    templated = [path] if candidate.evaluator.encoder.templated else []
    tell_texts(console, candidate.data.prompts, templated, [*trial.rewards, *trial.controls], trial.settings.chat)
    if candidate.asked:
        console.note(f"{path}: {told(candidate.asked)}")
    return candidate


def tell_texts(
    console: Console, prompts: Sequence[Prompt], policies: Sequence[str], terms: Sequence[Term], chat: bool | None
) -> None:
    """Say how many prompts are texts to models of chats: policies that are, and reward models among the terms."""
    from warmkit.modeling.untemplated import note_on_texts

    models = [*policies, *(f"the reward {term.label}" for term in terms if term.templated)]
    note = note_on_texts([(each.content,) for each in prompts], "prompts", models, chat, "--chat makes chats of them")
    if note is not None:
        console.note(note)


def tell_truncated_prompts(console: Console, what: str, truncated: int, prompts: int) -> None:
    """Say how many prompts are not seen whole (`model.overlong: truncate`)."""
    if truncated:
        console.note(f"{what}: {truncated} of {prompts} prompts are too long and lost their oldest tokens")
