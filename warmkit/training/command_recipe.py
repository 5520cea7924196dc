"""Recipes of `warmkit warm` and `warmkit warp` whose runs are commands: any program that trains."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from warmkit.common.units import seconds_of
from warmkit.errors import UsageError
from warmkit.evaluation.reward_term import RewardTerm, check_labels
from warmkit.training.policy_recipe import PolicyModelSection
from warmkit.training.recipe_sections import ProbeSection, RunOutput, RunsSection, number_in
from warmkit.training.warp_recipe import IterationsSection

NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
GIVEN = ("init", "output", "seed", "order", "reward", "anchor", "iteration", "member")
"""Placeholders that the pipeline fills; the others are the grid's."""


def _check_grid(grid: dict[str, Any]) -> None:
    for name, values in grid.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UsageError(f"expected names of arguments, found {name!r}")
        if name in GIVEN:
            raise UsageError(f"{name!r} is a placeholder that warmkit fills itself; give the argument another name")
        if not isinstance(values, list) or not values or not all(isinstance(each, str | int | float) for each in values):
            raise UsageError(f"expected a list of numbers or texts for {name}, found {values!r}")


def _check_take(take: str | int) -> None:
    if isinstance(take, str) and take not in ("last", "best"):
        raise UsageError(f"expected last, best or the number of a step, found {take!r}")


def _keys_with(check: Any, **default: Any) -> Any:
    return field(metadata={"check": check}, **default)


@dataclass(frozen=True)
class CommandSection:
    """`command:`, any program that trains one run.

    Attributes:
        run: A line for the shell, with placeholders: `{init}` (what to start from), `{output}` (a directory for checkpoints),
            `{seed}`, `{order}` (another number for every run), `{member}` (the run's number), those of the grid, and in `warp`
            `{iteration}`, `{reward}` (the reward model) and `{anchor}`. The program finds the same values in its environment,
            as WARMKIT_INIT and so on. `{{` and `}}` are braces.
        grid: Arguments by name, each with a list of values: `lr: [1e-5, 2e-5]` fills `{lr}`.
        take: Which of the checkpoints in `{output}` is the member: the newest (`last`), the one that transformers' trainer
            names in its `trainer_state.json` (`best`), or the number of a step.
        limit: How long a run may take, `90s`, `30min`, `2h`; a longer one is ended.
        evaluate: A line for the shell with `{model}`, a model's directory; the number on the last line that it prints is the
            model's score, higher is better. In `warm` in place of `data.validation`; in `warp` the policies, the merges and the
            final model are scored.
        anchor: What `{anchor}` is in `warp`, the model that the KL is taken to: the run's `init`, where WARP's moving average
            begins, or the `sft` model.
        cpus: Threads of a run, and what it takes of a Ray cluster; by default its share of this machine.
        gpus: GPUs that a run sees, or takes of a Ray cluster; by default one where there are any.
        seed: The run of number n, from 0, gets the seed 1000 seed + n.
        order: The same for the order of the data.
    """

    run: str
    grid: dict[str, Any] = _keys_with(_check_grid, default_factory=lambda: {})
    take: str | int = _keys_with(_check_take, default="last")
    limit: str | float | None = _keys_with(seconds_of, default=None)
    evaluate: str | None = None
    anchor: Literal["init", "sft"] = "init"
    cpus: int | None = number_in(1, default=None)
    gpus: float | None = number_in(0, default=None)
    seed: int = number_in(0, default=0)
    order: int = number_in(0, default=0)


@dataclass(frozen=True)
class InitSection:
    """`model:`, what the runs start from.

    Attributes:
        path: The checkpoint.
        max_length: Tokens of prompt and answer together when models are scored; by default what the model allows.
        pad_token: What to pad with while the shared head is trained, where the tokenizer has no token of its own for it.
    """

    path: str
    max_length: int | None = number_in(8, default=None)
    pad_token: str | None = None


@dataclass(frozen=True)
class PoolDataSection:
    """`data:` of reward models that commands train: files or `datasets` names.

    Attributes:
        validation: Held out. The models are ranked on half of it and measured on the other; or `command.evaluate` ranks them.
        ood: Held out, of another distribution.
        train: Pairs on which the head that all runs share is trained first; needed where `model.path` is no reward model.
        chat: Make chats of rows that are texts, for the models' chat template.
        equal_pairs: Whether pairs of two equal answers are refused, or left out and counted.
    """

    validation: str | None = None
    ood: str | None = None
    train: str | None = None
    chat: bool = False
    equal_pairs: Literal["refuse", "skip"] = "refuse"


@dataclass(frozen=True)
class CommandWarmRecipe:
    """A recipe of `warmkit warm` whose reward models are trained by commands."""

    model: InitSection
    output: RunOutput
    command: CommandSection
    data: PoolDataSection = PoolDataSection()
    warm: RunsSection = RunsSection()
    probe: ProbeSection = ProbeSection()


@dataclass(frozen=True)
class HeldOutPrompts:
    """`data:` of policies that commands train.

    Attributes:
        validation: Prompts of the evaluations; without them no front is evaluated.
        chat: Make chats of prompts that are texts, for the policy's chat template; by default a text stays one.
    """

    validation: str | None = None
    chat: bool | None = None


@dataclass(frozen=True)
class SamplingSection:
    """`sampling:`, how policies that commands train are evaluated.

    Attributes:
        temperature: Of sampling.
        max_new_tokens: Tokens of a completion, its end included.
        batch_size: Completions at a time.
        banned: Tokens that are never sampled, beside `suppress_tokens` of the checkpoint's generation config.
        stop: Tokens that end a completion, beside EOS and those of the checkpoint's generation config and chat template.
        precision: Of the products; `auto` is bfloat16 where the device has instructions for it, else float32.
    """

    temperature: float = number_in(1e-3, default=0.9)
    max_new_tokens: int = number_in(1, default=64)
    batch_size: int = number_in(1, default=64)
    banned: list[str] = field(default_factory=lambda: [])
    stop: list[str] = field(default_factory=lambda: [])
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


@dataclass(frozen=True)
class CommandWarpRecipe:
    """A recipe of `warmkit warp` whose policies are trained by commands."""

    model: PolicyModelSection
    output: RunOutput
    command: CommandSection
    data: HeldOutPrompts = HeldOutPrompts()
    rewards: list[RewardTerm] = field(default_factory=lambda: [])
    controls: list[RewardTerm] = field(default_factory=lambda: [])
    sampling: SamplingSection = SamplingSection()
    warp: IterationsSection = IterationsSection()

    def __post_init__(self) -> None:
        check_labels(self.rewards, "rewards")
        check_labels(self.controls, "controls")


@dataclass(frozen=True)
class OneCommand:
    """`command:` of one run.

    Attributes:
        run: The line, with its placeholders.
        values: What stands for them, without init and output.
        take: Which checkpoint is the member.
        limit: How long it may take.
    """

    run: str
    values: dict[str, Any]
    take: str | int = "last"
    limit: str | float | None = None


@dataclass(frozen=True)
class StartSection:
    """`model:` of one run.

    Attributes:
        path: What it starts from.
    """

    path: str


@dataclass(frozen=True)
class CommandRecipe:
    """The recipe of one run of a command, which a pipeline writes."""

    model: StartSection
    command: OneCommand
    output: RunOutput
