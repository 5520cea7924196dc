"""`warmkit eval policy`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmkit.cli.command import command
from warmkit.cli.console import Console, table
from warmkit.cli.gate import AtLeast, Print, check_names, check_print, floors, hold
from warmkit.cli.output import DocumentPath, refuse_existing, write_document, write_rows
from warmkit.cli.policy_options import (
    AsChats,
    BatchSize,
    Controls,
    Like,
    NewTokens,
    PromptFile,
    Rewards,
    Samples,
    Seed,
    Sft,
    Stop,
    Temperature,
    evaluation_settings,
    open_candidate,
)
from warmkit.cli.train import need_transformers
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.evaluation.accuracy import Estimate
    from warmkit.evaluation.answers import Answers
    from warmkit.evaluation.policies import EvaluationSettings
    from warmkit.evaluation.policy_row import PolicyRow

Advance = Callable[[int, int], None]
PLAIN = ("entropy", "length", "without_eos")
"""Numbers that the tables show without their intervals."""

REWARDS = ("reward", "control_", "best_of_", "win_rate")
"""How the names of the first table's numbers start."""


@command()
def policy(
    console: Console,
    models: Annotated[list[str], typer.Argument(metavar="POLICY", help="Directories or Hub repositories.", show_default=False)],
    prompts: PromptFile = None,
    rewards: Rewards = None,
    controls: Controls = None,
    recipe: Like = None,
    sft: Sft = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="Whom the win rate by reward is against; ties are half.")
    ] = None,
    best_of: Annotated[
        int | None,
        typer.Option("--best-of", metavar="N", min=1, help="Also the best of N answers by reward; N samples or more."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", metavar="MODEL", help="Sentence encoder for the similarity of two samples' meanings."),
    ] = None,
    samples: Samples = 2,
    temperature: Temperature = None,
    max_new_tokens: NewTokens = None,
    stop: Stop = None,
    chat: AsChats = False,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    completions: Annotated[
        Path | None, typer.Option("--completions", help="JSONL file to create: every completion with its numbers.")
    ] = None,
    at_least: AtLeast = None,
    printed: Print = None,
    output: DocumentPath = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Let policies answer prompts and say what the answers are worth, how far they are from the SFT model and how alike.

    One row a policy: reward and controls, KL to --sft, entropy a token, length, share without an end, best of N, win rate,
    similarity of two samples. Rates and similarities are shares from 0 to 1. Intervals are over prompts; differences to the
    first policy are paired. `--at-least` and `--print` are about a number of the last policy, as `--json` names it: reward,
    win_rate, kl_sft.

    Examples:

    - `warmkit eval policy runs/a/model --prompts held-out.jsonl --reward rm --sft sft --against sft`
    - `warmkit eval policy sft A B --recipe runs/a/recipe.yaml --control gold=gold-rm --samples 8 --best-of 8 -o eval.json`
    - `warmkit eval policy merged --prompts held-out.jsonl --reward rm --sft sft --against sft --at-least win_rate=0.5`
    - `warmkit eval policy merged --prompts held-out.jsonl --reward rm --print reward`, which prints one number
    """
    check_print(console, printed)
    gates = floors(at_least)
    refuse_existing([output, completions], force)
    if best_of is not None and best_of > samples:
        raise UsageError(f"--best-of {best_of} needs as many samples: add --samples {best_of}")
    if encoder is not None and samples < 2:
        raise UsageError("--encoder compares two answers to a prompt: give --samples 2 or more")
    need_transformers()
    settings = evaluation_settings(
        recipe,
        prompts=prompts,
        rewards=rewards,
        controls=controls,
        sft=sft,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        samples=samples,
        seed=seed,
        batch_size=batch_size,
        stop=stop,
        chat=chat,
    )
    _tell_similarity(console, samples)
    from warmkit.evaluation.diversity import open_encoder
    from warmkit.evaluation.policy_row import policy_row

    embed = None if encoder is None else open_encoder(encoder)
    with console.progress("evaluating", unit="policies") as advance:
        answers, ends = _answers(console, settings, models, against, advance)
    reference = answers[against] if against is not None else None
    rows = [policy_row(path, answers[path], reference, best_of, embed) for path in models]
    found = {name: each.value for name, each in rows[-1].estimates().items()}
    check_names(gates, printed, list(found))
    options = {"against": against, "encoder": encoder, "ends": ends}
    document = _document(settings, rows, answers[models[0]], options)
    write_document(output, document)
    write_rows(completions, _rows(answers))
    if printed is None:
        console.result(document, *_tables(document))
    else:
        console.number(found[printed])
    hold(gates, found, models[-1])


def _tell_similarity(console: Console, samples: int) -> None:
    """Say why there is no similarity, before anything is sampled."""
    from warmkit.evaluation.diversity import ADVICE, has_sacrebleu

    if samples < 2:
        console.note("similarity is left out: it needs --samples 2 or more")
    elif not has_sacrebleu():
        console.note(f"similarity is left out: {ADVICE}")


def _answers(
    console: Console, settings: EvaluationSettings, models: list[str], against: str | None, advance: Advance | None
) -> tuple[dict[str, Answers], dict[str, list[str]]]:
    """Let every policy answer once, one in memory at a time; return the answers, and the tokens that end them."""
    from warmkit.evaluation.policies import PolicyTrial

    trial = PolicyTrial(settings)
    paths: list[str] = list(dict.fromkeys(models if against is None else [*models, against]))
    answers: dict[str, Answers] = {}
    ends: dict[str, list[str]] = {}
    tick = advance or (lambda done, total: None)
    tick(0, len(paths))
    for path in paths:
        candidate = open_candidate(console, trial, path)
        answers[path], ends[path] = candidate.answers(), candidate.ends
        del candidate
        tick(1, len(paths))
    return answers, ends


def _document(
    settings: EvaluationSettings, rows: list[PolicyRow], answers: Answers, options: Mapping[str, Any]
) -> dict[str, Any]:
    from dataclasses import asdict

    known = asdict(settings, dict_factory=lambda pairs: {key: value for key, value in pairs if value not in (None, [])})
    policies = [
        {
            "policy": row.path,
            **_estimates(row.estimates()),
            "less_first": None if row is rows[0] else _estimates(row.less(rows[0])),
        }
        for row in rows
    ]
    return {"settings": known, "prompts": len(answers.prompts), **options, "policies": policies}


def _estimates(given: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: vars(each) for name, each in given.items()}


def _rows(answers: Mapping[str, Answers]) -> Iterator[dict[str, Any]]:
    return ({"policy": path, **row} for path, each in answers.items() for row in each.rows())


def _tables(document: dict[str, Any]) -> list[Any]:
    """Return a table of rewards and one of what else tells about the answers, a row a policy; then the differences."""
    policies = document["policies"]
    names = [name for name, each in policies[0].items() if isinstance(each, dict)]
    if all(each[name] == each["reward"] for each in policies for name in names if name.startswith("reward_")):
        names = [name for name in names if not name.startswith("reward_")]  # the one term is the reward
    parts = {"Rewards": [name for name in names if name.startswith(REWARDS)]}
    parts["Answers"] = [name for name in names if name not in parts["Rewards"]]
    where = f"{document['prompts']} prompts, {document['settings']['samples']} answers each (95%)"
    means = [_table(f"{part} on {where}", policies, shown, "") for part, shown in parts.items()]
    if len(policies) == 1:
        return means
    less = [{"policy": each["policy"], **each["less_first"]} for each in policies[1:]]
    return means + [_table(f"{part} less {policies[0]['policy']}, paired", less, parts[part], "+") for part in parts]


def _table(title: str, policies: Sequence[Mapping[str, Any]], names: Sequence[str], sign: str) -> Any:
    rows = [[each["policy"], *(_cell(name, each[name], sign) for name in names)] for each in policies]
    return table(title, ["policy", *(_heading(name) for name in names)], rows)


def _heading(name: str) -> str:
    known = {"kl_sft": "KL", "kl_sft_sampled": "KL sampled", "without_eos": "no EOS", "win_rate": "wins"}
    known |= {"semantic_similarity": "similarity in meaning"}
    return known.get(name, name.replace("_", " "))


def _cell(name: str, estimate: Mapping[str, float], sign: str) -> str:
    value, low, high = (_short(estimate[key], sign) for key in ("value", "low", "high"))
    return value if name in PLAIN else f"{value} ({low} to {high})"


def _short(value: float, sign: str) -> str:
    if abs(value) < 1e-6:  # rounding of float32
        return "0"
    return f"{value:{sign}.0f}" if abs(value) >= 1000 else f"{value:{sign}.3g}"
