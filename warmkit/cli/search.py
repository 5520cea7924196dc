"""`warmkit search`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli import completions
from warmkit.cli.command import command, option
from warmkit.cli.console import Console, table
from warmkit.cli.output import Plot, check_picture, draw_picture
from warmkit.cli.shared_options import AllowPickle, Antiparallel, Granularity, Models, OutputPath, StateDict, Threads, given
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.evaluation.candidate_scores import Score
    from warmkit.evaluation.search import SearchResult

SCORE = "[NAME=]WHAT"


@dataclass(eq=False, repr=False)
class Searched:
    """What is searched."""

    methods: list[str] | None = option(
        None,
        "Merge method; repeatable, to choose among several.",
        "--method",
        "-m",
        autocompletion=completions.method,
        show_default="slerp",
    )
    init: str | None = option(None, "What the models were fine-tuned from.")
    ranges: list[str] | None = option(
        None,
        "A number and its range: lambda=0:1, coefficients=0:1, eta=0:1.2, last=2:10 and mu=0.05:1 of a run's checkpoints, or a "
        "parameter of the method: density=0.1:1. lambda=0:1x4 is a gradient of four numbers over the layers. Repeatable.",
        "--range",
        metavar="NAME=LOW:HIGH",
    )
    granularity: Granularity = None
    antiparallel: Antiparallel = None

    def keywords(self) -> dict[str, Any]:
        """Return what was given, parsed, for the library."""
        from warmkit.verbs.search_space import read_range

        fixed = given({"granularity": self.granularity, "antiparallel": self.antiparallel})
        ranges = [read_range(each) for each in self.ranges or []]
        return given({"methods": self.methods, "init": self.init}) | {"ranges": ranges, "fixed": fixed}


@dataclass(eq=False, repr=False)
class Judged:
    """What decides."""

    scores: list[str] | None = option(
        None,
        "What decides, more is better: a command with {} for the model directory, which prints the score on its last line; "
        "module:function, called with the model in memory and its tokenizer; or accuracy:FILE of a reward model's pairs. "
        "Repeatable: several give a front.",
        "--score",
        metavar=SCORE,
    )
    losses: list[str] | None = option(None, "The same, less is better. Repeatable.", "--loss", metavar=SCORE)
    held_out: str | None = option(
        None,
        "The score on other data, for every candidate that is the best so far: it shows what is fitted to the score.",
        metavar="WHAT",
    )

    def read(self) -> list[Score]:
        """Return the scores that were given.

        Raises:
            UsageError: If there is none.
        """
        from warmkit.evaluation.candidate_scores import read_score

        if not self.scores and not self.losses:
            raise UsageError("expected what decides: --score 'python evaluate.py {}', or --loss where less is better")
        return [
            *(read_score(each) for each in self.scores or []),
            *(read_score(each, smaller=True, name="loss") for each in self.losses or []),
        ]


@dataclass(eq=False, repr=False)
class Strategy:
    """How candidates are chosen, and how many."""

    strategy: str | None = option(None, "cmaes, grid or random.", "--by", show_default="the first that fits")
    evaluations: int = option(50, "Most candidates to score, in all.", min=1)
    minutes: float | None = option(None, "Longest time of merging and scoring, in all.")
    steps: int = option(5, "Of a grid, values of every number.", min=2)
    seed: int = option(0, "Seed of the candidates.", min=0)


@command(resumes=True)
def search(
    console: Console,
    models: Models,
    output: OutputPath,
    searched: Searched,
    judged: Judged,
    strategy: Strategy,
    threads: Threads = None,
    allow_pickle: AllowPickle = False,
    state_dict: StateDict = None,
    plot: Plot = None,
) -> None:
    """Search the numbers of a merge for the best score: shares, eta, windows, methods, gradients over the layers.

    Candidate 0 is the merge without what is searched. The score that chooses a candidate is too good for it: --held-out is
    the same on other data. OUT/model is the best candidate. With several scores there is a front instead: the candidates
    that no other beats in all of them.

    Examples:

    - `warmkit search A B --init SFT --range lambda=0:1 --range eta=0.2:1.2 --score 'python evaluate.py {}' -o OUT`
    - `warmkit search A B C -m lerp --range coefficients=0:1 --score accuracy:val.jsonl --held-out accuracy:new.jsonl -o OUT`
    - `warmkit search A B -m lerp --range lambda=0:1x4 --score my_scores:tone --evaluations 100 -o OUT`
    - `warmkit search RUN@1000 RUN@2000 RUN@3000 -m lerp --range last=1:3 --loss my_scores:loss -o OUT`
    - `warmkit search A B --init SFT --range lambda=0:1 --score help=s:help --score brief=s:brief --plot front.png -o OUT`
    """
    from warmkit.evaluation.search import search as searches

    _refuse_recipes(models)
    scores = judged.read()
    check_picture(plot)
    if plot is not None and len(scores) < 2:
        raise UsageError("--plot draws one score against another: give two of --score or --loss")
    with console.progress("searching", unit="candidates") as advance:
        result = searches(
            models,
            output,
            scores=scores,
            held_out=judged.held_out,
            report=console.say,
            advance=advance,
            **searched.keywords(),
            **given(vars(strategy)),
            **given({"threads": threads, "allow_pickle": allow_pickle or None, "state_dict": state_dict}),
        )
    _draw(console, result, scores, plot)
    rows = result.front if len(scores) > 1 else _steps(result, scores[0])
    title = "candidates that no other beats" if len(scores) > 1 else "candidates that were the best so far"
    console.result(
        {
            "path": None if result.path is None else str(result.path),
            "best": asdict(result.best),
            "front": [asdict(each) for each in result.front],
            "tried": [asdict(each) for each in result.tried],
            "why": result.why,
        },
        table(title, *_table(rows, scores, judged.held_out is not None)),
        _sentence(result, scores[0], judged.held_out is not None),
    )


def _refuse_recipes(models: Sequence[str]) -> None:
    """Refuse a recipe in place of a model, with what to write instead of one of mergekit-evolve."""
    from warmkit.mergekit.evolve import advice

    for each in (Path(model) for model in models):
        if each.suffix in (".yaml", ".yml") and each.is_file():
            said = advice(each)
            what = "is a configuration of mergekit-evolve; write" if said else "is no model; name the models, as in"
            raise UsageError(f"{each} {what} {said or 'warmkit search A B --init SFT --range lambda=0:1'}")


def _steps(result: SearchResult, score: Score) -> list[Any]:
    """Return the candidates that were better than all before."""
    found = result.tried[:1]
    for each in result.tried[1:]:
        if score.cost(each.scores[score.name]) < score.cost(found[-1].scores[score.name]):
            found.append(each)
    return found


def _table(rows: Sequence[Any], scores: Sequence[Score], apart: bool) -> tuple[list[str], list[list[str]]]:
    numbers = list(dict.fromkeys(name for each in rows for name in each.candidate))
    columns = ["candidate", *numbers, *(each.name for each in scores), *(["held-out"] if apart else [])]
    shown = [
        [
            str(each.number),
            *(_shown(each.candidate.get(name, "")) for name in numbers),
            *(f"{each.scores[score.name]:.6g}" for score in scores),
            *([f"{each.held_out:.6g}" if each.held_out is not None else ""] if apart else []),
        ]
        for each in rows
    ]
    return columns, shown


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _sentence(result: SearchResult, score: Score, apart: bool) -> str:
    """Say what was gained, and what of it the held-out score confirms."""
    start, best = result.tried[0], result.best
    found = f"{len(result.tried)} candidates; {result.why}."
    if result.path is None:
        return f"{found} No model was written: merge the candidate of the front that you want."
    if best.number == 0:
        return f"{found} None is better than the merge without what is searched ({score.name} {start.scores[score.name]:.6g})."
    gained = f"{found} {score.name} {start.scores[score.name]:.6g} without the search, {best.scores[score.name]:.6g} with it"
    if not apart or start.held_out is None or best.held_out is None:
        return f"{gained}. The score that chooses is too good for what it chose: report another (--held-out)."
    gain, confirmed = (
        score.cost(a) - score.cost(b)
        for a, b in ((start.scores[score.name], best.scores[score.name]), (start.held_out, best.held_out))
    )
    verdict = f"{confirmed / gain:.0%} of the gain" if confirmed > 0 else "no gain: the search fitted the score"
    return f"{gained}; held-out {start.held_out:.6g} and {best.held_out:.6g}, {verdict}."


def _draw(console: Console, result: SearchResult, scores: Sequence[Score], plot: Path | None) -> None:
    from warmkit.report.runs.searches import search_chart

    draw_picture(
        console,
        lambda: [
            search_chart(
                [asdict(each) for each in result.tried], [asdict(each) for each in result.front], [each.name for each in scores]
            )
        ],
        plot,
    )
