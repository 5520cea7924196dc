"""Options shared by the verbs that evaluate policies: `eval policy`, `front`, `bon`, `sxs`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmkit.cli.command import option
from warmkit.cli.console import Console
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.data.prompts import Prompt
    from warmkit.evaluation.policies import Candidate, EvaluationSettings, PolicyTrial
    from warmkit.evaluation.rewards import Term

Samples = Annotated[int, typer.Option("--samples", min=1, help="Completions of every prompt.")]
AsChats = Annotated[bool, typer.Option("--chat", help="Make chats of rows that are texts, for the model's chat template.")]
Rewards = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        metavar="[NAME=][WEIGHT*]WHAT",
        help="A reward model (several with commas: their mean), module:function, 'command: LINE', or http://host/score. "
        "Repeatable: they are added.",
    ),
]


@dataclass(eq=False, repr=False)
class Judges:
    """What judges answers."""

    rewards: Rewards = None
    controls: list[str] | None = option(None, "A reward that is only reported. Repeatable.", "--control", metavar="[NAME=]WHAT")


@dataclass(eq=False, repr=False)
class Sampling:
    """Which prompts policies answer, and how."""

    prompts: str | None = option(None, "Prompts to answer.")
    recipe: Path | None = option(
        None, "Recipe of the policies' training: prompts, rewards and sampling where no option says else."
    )
    temperature: float | None = option(None, "Sampling temperature.", min=1e-3, show_default="0.9")
    max_new_tokens: int | None = option(None, "Tokens of a completion, its end included.", min=1, show_default="64")
    stop: list[str] | None = option(
        None,
        "A token that ends a completion, beside EOS and those of the checkpoint's generation config and chat template. "
        "Repeatable.",
        metavar="TOKEN",
    )
    chat: AsChats = False
    seed: int = option(0, "Seed of sampling, the same for every policy.")
    batch_size: int = option(64, "Completions at a time.", min=1)

    def settings(
        self, samples: int, judges: Judges, sft: str | None = None, needed: Sequence[str] = ("prompts", "rewards")
    ) -> EvaluationSettings:
        """Lay the options over what a training recipe says.

        Raises:
            UsageError: If neither says what is `needed`: the prompts or the rewards.
        """
        from warmkit.evaluation.policies import EvaluationSettings
        from warmkit.evaluation.reward_term import parse_reward_term

        own: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "recipe"}
        terms = {name: [parse_reward_term(each) for each in given] for name, given in vars(judges).items() if given}
        given = {**own, "samples": samples, "sft": sft, "stop": self.stop or None, "chat": self.chat or None, **terms}
        known = {} if self.recipe is None else _of_recipe(self.recipe)
        values: dict[str, Any] = {"rewards": [], **known, **{name: value for name, value in given.items() if value is not None}}
        options = {"prompts": "--prompts", "rewards": "--reward", "controls": "--control"}
        if missing := [options[name] for name in needed if not values.get(name)]:
            raise UsageError(f"expected {' and '.join(missing)}, or a --recipe that says so")
        return EvaluationSettings(**values)


def _of_recipe(path: Path) -> dict[str, Any]:
    from warmkit.recipes.recipe import read_recipe
    from warmkit.training.policy_recipe import PolicyRecipe, evaluation_keys

    return evaluation_keys(read_recipe(path, PolicyRecipe, ()).content)


def sampling_only(settings: EvaluationSettings) -> PolicyTrial:
    """Open a trial of policies whose answers nobody judges yet."""
    from warmkit.evaluation.policies import PolicyTrial

    return PolicyTrial(replace(settings, rewards=[], controls=[], sft=None))


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
