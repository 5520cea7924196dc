"""`warmkit label`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from warmkit.cli.command import argument, command, option, required
from warmkit.cli.console import Console, table
from warmkit.cli.endpoint_options import EndpointOptions
from warmkit.errors import EndpointError, UsageError, listed

if TYPE_CHECKING:
    from warmkit.labeling.label import LabelResult
    from warmkit.labeling.label_rows import Comparison

MOST_SHOWN = 100


@command(resumes=True)
def label(
    console: Console,
    *,
    data: str = argument("DATA", "JSON lines: prompt, and two answers.", show_default=False),
    output: Path = required("JSON lines of pairs to write.", "--output", "-o", show_default=False),
    endpoint: EndpointOptions,
    judge_model: str | None = option(None, "Reward model that judges, in place of an endpoint.", show_default=False),
    inconsistent: Literal["drop", "keep-first"] = option(
        "drop", "Rows on which the judge contradicts itself: leave out, or keep its first answer."
    ),
    force: bool = option(False, "Replace OUT."),
) -> None:
    """Label pairs of answers with the preferences of a judge: a language model behind an endpoint, or a reward model.

    Every pair is shown in both orders. Rows on which the two answers of the judge contradict each other are left out, into
    OUT.inconsistent.jsonl. What an endpoint answered is kept in a cache, so a second run asks only for what is missing.

    Examples:

    - `warmkit label samples.jsonl --endpoint http://localhost:8000/v1 --model judge -o pairs.jsonl`
    - `warmkit label samples.jsonl --judge-model runs/warm -o pairs.jsonl`
    """
    from warmkit.labeling.label import write_labels
    from warmkit.labeling.label_rows import check_destination, read_comparisons

    _check(judge_model, endpoint)
    check_destination(output, force)
    rows = read_comparisons(data)
    if Path(data).exists() and output.exists() and output.samefile(data):
        raise UsageError(f"{output}: is the file to label; choose another -o")
    if judge_model is not None:
        result, counts = _by_reward_model(console, rows, judge_model)
    else:
        result, counts = _by_endpoint(console, rows, output, endpoint)
    labelled = write_labels(result, output, inconsistent, force)
    _show(console, result, output, labelled, counts)


def _check(judge_model: str | None, endpoint: EndpointOptions) -> None:
    """Refuse options that contradict each other."""
    if (judge_model is None) == (endpoint.endpoint is None):
        raise UsageError("expected one judge: --endpoint URL with --model NAME, or --judge-model PATH")
    endpoint.check()
    if judge_model is not None and (endpoint.criteria is not None or endpoint.cache is not None):
        raise UsageError("--criteria and --cache are for an endpoint; a reward model has its own, and asking it is free")


def _by_reward_model(console: Console, rows: list[Comparison], path: str) -> tuple[LabelResult, dict[str, int]]:
    from warmkit.labeling.judge import RewardModelJudge
    from warmkit.labeling.label import label
    from warmkit.modeling.reward_model import load_scorer

    judge = RewardModelJudge(load_scorer(path).score, name=path)
    with console.progress("labelling", unit="questions") as advance:
        return label(rows, judge, concurrency=1, advance=advance), {"cached": 0, "requests": 0}


def _by_endpoint(
    console: Console, rows: list[Comparison], output: Path, options: EndpointOptions
) -> tuple[LabelResult, dict[str, int]]:
    from warmkit.labeling.label import label

    with options.judge(options.kept(output)) as judge, console.progress("labelling", unit="questions") as advance:
        result = label(rows, judge, options.concurrency, advance)
        return result, {"cached": judge.cached, "requests": judge.requests}


def _show(console: Console, result: LabelResult, output: Path, labelled: int, counts: dict[str, int]) -> None:
    """Print the counts; then fail if a row did."""
    rows = len(result.verdicts) + len(result.failed)
    outcomes = {"labelled": labelled, "inconsistent": len(result.inconsistent), "failed": len(result.failed)}
    numbers = {"rows": rows, **outcomes, **counts}
    names = ["rows", "labelled", "inconsistent", "failed", "answered from the cache", "requests"]
    shown = table(str(output), ["", "count"], [[name, str(count)] for name, count in zip(names, numbers.values())])
    failures = [vars(failure) for failure in result.failed]
    console.result({"path": str(output), "judge": result.judge, **numbers, "failures": failures}, shown)
    if result.failed:
        problems = listed([str(failure) for failure in result.failed], MOST_SHOWN)
        raise EndpointError(
            f"{len(result.failed)} of {rows} rows have no label; with --force the same command asks for them again:\n{problems}"
        )
