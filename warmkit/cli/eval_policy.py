"""`warmkit eval policy`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli.command import argument, command, option
from warmkit.cli.console import Console, table
from warmkit.cli.gate import Gates
from warmkit.cli.output import DocumentFile, write_rows
from warmkit.cli.policy_options import Judges, Samples, Sampling, open_candidate
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.evaluation.accuracy import Estimate
    from warmkit.evaluation.answers import Answers
    from warmkit.evaluation.policies import EvaluationSettings
    from warmkit.evaluation.policy_row import PolicyRow

PLAIN = ("entropy", "length", "without_eos")
"""Numbers that the tables show without their intervals."""

REWARDS = ("reward", "control_", "best_of_", "win_rate")
"""How the names of the first table's numbers start."""


@dataclass(eq=False, repr=False)
class Measures:
    """What else is measured of the answers."""

    against: str | None = option(None, "Whom the win rate by reward is against; ties are half.", metavar="MODEL")
    best_of: int | None = option(None, "Also the best of N answers by reward; N samples or more.", metavar="N", min=1)
    encoder: str | None = option(None, "Sentence encoder for the similarity of two samples' meanings.", metavar="MODEL")

    def check(self, samples: int) -> None:
        """Refuse what needs more samples."""
        if self.best_of is not None and self.best_of > samples:
            raise UsageError(f"--best-of {self.best_of} needs as many samples: add --samples {self.best_of}")
        if self.encoder is not None and samples < 2:
            raise UsageError("--encoder compares two answers to a prompt: give --samples 2 or more")


@dataclass(eq=False, repr=False)
class AnswerFiles(DocumentFile):
    """What is written beside what is printed."""

    force: bool = option(False, "Replace files that exist.")
    completions: Path | None = option(None, "JSONL file to create: every completion with its numbers.")


@command(needs_transformers=True)
def policy(
    console: Console,
    *,
    models: list[str] = argument("POLICY", "Directories or Hub repositories.", show_default=False),
    judges: Judges,
    sampling: Sampling,
    measures: Measures,
    gates: Gates,
    files: AnswerFiles,
    sft: str | None = option(None, "The model that the KL is reported to."),
    samples: Samples = 2,
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
    gates.check(console)
    files.check(files.completions)
    measures.check(samples)
    settings = sampling.settings(samples, judges, sft)
    _tell_similarity(console, samples)
    from warmkit.evaluation.diversity import open_encoder
    from warmkit.evaluation.policy_row import policy_row

    embed = None if measures.encoder is None else open_encoder(measures.encoder)
    answers, ends = _answers(console, settings, models, measures.against)
    reference = answers[measures.against] if measures.against is not None else None
    rows = [policy_row(path, answers[path], reference, measures.best_of, embed) for path in models]
    found = {name: each.value for name, each in rows[-1].estimates().items()}
    gates.check_names(list(found))
    options = {"against": measures.against, "encoder": measures.encoder, "ends": ends}
    document = _document(settings, rows, answers[models[0]], options)
    files.write(document)
    write_rows(files.completions, _rows(answers))
    gates.result(console, found, models[-1], document, *_tables(document))


def _tell_similarity(console: Console, samples: int) -> None:
    """Say why there is no similarity, before anything is sampled."""
    from warmkit.evaluation.diversity import ADVICE, has_sacrebleu

    if samples < 2:
        console.note("similarity is left out: it needs --samples 2 or more")
    elif not has_sacrebleu():
        console.note(f"similarity is left out: {ADVICE}")


def _answers(
    console: Console, settings: EvaluationSettings, models: list[str], against: str | None
) -> tuple[dict[str, Answers], dict[str, list[str]]]:
    """Let every policy answer once, one in memory at a time; return the answers, and the tokens that end them."""
    from warmkit.evaluation.policies import PolicyTrial

    paths = list(dict.fromkeys(models if against is None else [*models, against]))
    answers: dict[str, Answers] = {}
    ends: dict[str, list[str]] = {}
    with console.progress("evaluating", unit="policies") as advance:
        trial = PolicyTrial(settings)
        advance(0, len(paths))
        for path in paths:
            candidate = open_candidate(console, trial, path)
            answers[path], ends[path] = candidate.answers(), candidate.ends
            del candidate
            advance(1, len(paths))
    return answers, ends


def _document(
    settings: EvaluationSettings, rows: list[PolicyRow], answers: Answers, options: Mapping[str, Any]
) -> dict[str, Any]:
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
