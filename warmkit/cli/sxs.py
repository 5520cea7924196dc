"""`warmkit sxs`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmkit.cli import policy_options as options
from warmkit.cli.command import command
from warmkit.cli.console import Console, say_error, table
from warmkit.cli.evaluate import Plot, share
from warmkit.cli.label import endpoint_options
from warmkit.cli.output import DocumentPath, check_picture, draw_picture, refuse_existing, write_document
from warmkit.cli.shared_options import numbers
from warmkit.cli.train import need_transformers
from warmkit.errors import EndpointError, UsageError, listed

if TYPE_CHECKING:
    from warmkit.evaluation.policies import EvaluationSettings
    from warmkit.evaluation.pool import Pool
    from warmkit.evaluation.tournament import Tournament
    from warmkit.labeling.label import Failure

    Played = tuple[Tournament, list[Failure], dict[str, Any]]  # the result, what failed, and what is known about the judge
    Play = Callable[[dict[str, Pool]], Played]

MOST_SHOWN = 100
LONGEST = 600  # characters of a text that --examples shows


@command(endpoint_options, resumes=False)
def sxs(
    console: Console,
    policies: Annotated[
        list[str],
        typer.Argument(
            metavar="POLICY",
            help="Two or more: directories, Hub repositories, or JSON lines of prompt and completions.",
            show_default=False,
        ),
    ],
    prompts: options.PromptFile = None,
    reward: options.Rewards = None,
    tie_margin: Annotated[
        float | None, typer.Option("--tie-margin", min=0, help="Rewards that differ by this or less tie.", show_default="0")
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps",
            metavar="P,P,P",
            help="With rewards: chance of winning from which an answer is slightly better, better, much better.",
            show_default="0.6,0.8,0.95",
        ),
    ] = None,
    recipe: options.Like = None,
    samples: options.Samples = 1,
    temperature: options.Temperature = None,
    max_new_tokens: options.NewTokens = None,
    stop: options.Stop = None,
    chat: options.AsChats = False,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 64,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Prompts to show with all answers.")] = 0,
    completions: Annotated[
        Path | None, typer.Option("--completions", help="JSON lines to write: every prompt, answer and verdict.")
    ] = None,
    plot: Plot = None,
    output: DocumentPath = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files at OUT and COMPLETIONS.")] = False,
    **endpoint: Any,
) -> None:
    """Let policies answer the same prompts, and a judge say whose answers are better: win rates, and a scale of seven steps.

    The judge is a reward (with several, their weighted sum), or a language model behind an endpoint, which sees every two
    answers in both orders; an answer wins if it is preferred in both. Ties are half a win; win rates are shares from 0 to 1.
    The score is the mean of 1.5, 1 and 0.5 for much better, better and slightly better, negative where the other answer is.
    Policies may differ in architecture and tokenizer. An endpoint's answers are kept, so a second run asks only for what is
    missing.

    Examples:

    - `warmkit sxs warp/model sft/model --prompts held-out.jsonl --reward RM --examples 3`
    - `warmkit sxs A B C --prompts p.jsonl --reward gold=RM --samples 4 --plot sxs.png -o sxs.json`
    - `warmkit sxs A B --prompts p.jsonl --endpoint http://localhost:8000/v1 --model judge --cache judge.sqlite`
    """
    need_transformers()
    from warmkit.evaluation.side_by_side import short_names
    from warmkit.evaluation.win_rates import THRESHOLDS, check_thresholds
    from warmkit.report.runs.documents import sxs_chart

    if len(policies) < 2:
        raise UsageError("expected two policies or more, to compare them")
    names, asked = short_names(policies), _is_asked(endpoint, reward, tie_margin, steps, output)
    check_thresholds(thresholds := numbers(steps, "--steps") or list(THRESHOLDS))
    how = options.evaluation_settings(
        recipe,
        prompts=prompts or _own_prompts(policies),
        rewards=reward,
        controls=None,
        sft=None,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        samples=samples,
        seed=seed,
        batch_size=batch_size,
        stop=stop,
        chat=chat,
        needed=("prompts",) if asked else ("prompts", "rewards"),
    )
    check_picture(plot)
    refuse_existing([output, completions], force)
    with contextlib.ExitStack() as stack:  # judges open before the sampling, which takes longer
        if asked:
            play = _by_endpoint(console, stack, _cache(endpoint, output), endpoint)
        else:
            play = _by_rewards(console, how, tie_margin or 0.0, thresholds)
        result, failed, judge = play(_pools(console, dict(zip(names, policies)), how))
    if completions is not None:
        result.write(completions)
    document = _document(result, dict(zip(names, policies)), how, judge, failed)
    draw_picture(console, lambda: [sxs_chart(document)], plot)
    write_document(output, document)
    console.result(document, *_tables(result, document), *_examples(result, examples))
    _fail(console, failed)


def _is_asked(
    endpoint: dict[str, Any], reward: Sequence[str] | None, tie_margin: float | None, steps: str | None, output: Path | None
) -> bool:
    """Say whether an endpoint judges; refuse options that contradict each other."""
    if (endpoint["endpoint"] is None) != (endpoint["model"] is None):
        raise UsageError("--endpoint and --model go together: where the judge answers, and its name there")
    if endpoint["endpoint"] is None:
        if endpoint["criteria"] is not None or endpoint["cache"] is not None:
            raise UsageError("--criteria and --cache are for an endpoint; expected --endpoint URL with --model NAME")
        return False
    if reward:
        raise UsageError("--reward and --endpoint both judge; give one")
    if tie_margin is not None or steps is not None:
        raise UsageError("--tie-margin and --steps are for rewards; an endpoint says itself how much better an answer is")
    _cache(endpoint, output)
    return True


def _cache(endpoint: dict[str, Any], output: Path | None) -> Path:
    """Return where the answers of an endpoint are kept, as `warmkit label` does."""
    if endpoint["cache"] is not None:
        return endpoint["cache"]
    if output is None:
        raise UsageError("expected --cache FILE, or -o OUT beside which it lies: what an endpoint answers is kept there")
    return output.with_name(f"{output.stem}.answers.sqlite")


def _own_prompts(policies: Sequence[str]) -> str | None:
    """Return the first file of answers, which holds prompts too."""
    from warmkit.evaluation.pool import is_pool

    return next((each for each in policies if is_pool(each)), None)


def _pools(console: Console, policies: dict[str, str], how: EvaluationSettings) -> dict[str, Pool]:
    """Sample or read the answers of every policy."""
    from warmkit.evaluation.policies import PolicyTrial
    from warmkit.evaluation.pool import check_comparable, is_pool, read_pool, sample_pool

    trial = PolicyTrial(dataclasses.replace(how, rewards=[], controls=[], sft=None))
    pools: dict[str, Pool] = {}
    for name, path in policies.items():
        with console.progress(f"answers of {name}", unit="prompts") as advance:
            if is_pool(path):
                pools[name] = read_pool(path, chat=bool(how.chat))
            else:  # no name for the policy, so that one is in memory at a time
                pools[name] = sample_pool(options.open_candidate(console, trial, path), advance)
        check_comparable(pools)
    return pools


def _by_rewards(console: Console, how: EvaluationSettings, tie_margin: float, thresholds: Sequence[float]) -> Play:
    """Load the rewards; return what lets them judge."""
    from warmkit.evaluation.rewards import open_terms
    from warmkit.evaluation.tournament import play_by_rewards

    terms = open_terms(how.rewards)
    described = [dataclasses.asdict(each) for each in how.rewards]

    def play(pools: dict[str, Pool]) -> Played:
        options.tell_texts(console, next(iter(pools.values())).prompts, [], terms, how.chat)
        with console.progress("judging", unit="policies") as advance:
            result = play_by_rewards(pools, terms, tie_margin, thresholds, advance)
        return result, [], {"rewards": described, "tie_margin": tie_margin, "steps": list(thresholds)}

    return play


def _by_endpoint(console: Console, stack: contextlib.ExitStack, path: Path, how: dict[str, Any]) -> Play:
    """Open the endpoint and the cache for as long as the stack; return what lets them judge."""
    from warmkit.common.whole_files import writing
    from warmkit.evaluation.tournament import Tournament
    from warmkit.labeling.cache import Cache
    from warmkit.labeling.endpoint import Endpoint
    from warmkit.labeling.judge import CRITERIA, EndpointJudge
    from warmkit.labeling.seven_steps import match_by_judge

    client = {name: how[name] for name in ("key_variable", "retries", "timeout", "backoff")}
    endpoint = stack.enter_context(Endpoint(how["endpoint"], **client))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    judge = EndpointJudge(endpoint, how["model"], stack.enter_context(Cache(path)), how["criteria"] or CRITERIA)

    def play(pools: dict[str, Pool]) -> Played:
        result = Tournament(pools, {})
        failed: list[Failure] = []
        for a, b in combinations(pools, 2):
            with console.progress(f"{a} against {b}", unit="questions") as advance:
                result.matches[a, b], problems = match_by_judge(pools[a], pools[b], judge, how["concurrency"], advance)
            if len(problems) == result.matches[a, b].outcomes.size:
                raise EndpointError(f"{a} against {b}: no verdict at all:\n{listed([str(each) for each in problems])}")
            failed += problems
        return result, failed, {"model": how["model"], "cached": judge.cached, "requests": endpoint.requests}

    return play


def _document(
    result: Tournament, policies: dict[str, str], how: EvaluationSettings, judge: dict[str, Any], failed: Sequence[Failure]
) -> dict[str, Any]:
    from warmkit.evaluation.tournament import summary

    first = next(iter(result.pools.values()))
    return {
        "policies": policies,
        "prompts": {"source": how.prompts, "number": len(first.prompts)},
        "samples": first.samples,
        **{key: getattr(how, key) for key in ("temperature", "max_new_tokens", "seed")},
        "judge": judge,
        "mean_rewards": {name: float(each.mean()) for name, each in result.rewards.items()},
        "matches": [{"a": a, "b": b, **summary(match)} for (a, b), match in result.matches.items()],
        "win_rates": result.win_rates(),
        "failures": [vars(each) for each in failed],
    }


def _tables(result: Tournament, document: dict[str, Any]) -> list[Any]:
    """Lay out a row for every two policies; of more than two also the matrix of win rates."""
    ordered = any(each["consistency"] is not None for each in document["matches"])
    columns = ["A", "B", "A wins (95%)", "score (95%)", "wins", "ties", "losses", *(["orders agree"] if ordered else [])]
    rows = [
        [
            each["a"],
            each["b"],
            "{} ({}-{})".format(*(share(each["win_rate"][key]) for key in ("value", "low", "high"))),
            "{:+.2f} ({:+.2f} to {:+.2f})".format(*(each["score"][key] for key in ("value", "low", "high"))),
            *(str(each[key]) for key in ("wins", "ties", "losses")),
            *([] if not ordered else ["" if each["consistency"] is None else share(each["consistency"])]),
        ]
        for each in document["matches"]
    ]
    title = f"{document['prompts']['number']} prompts, {document['samples']} answers each; ties are half a win"
    if len(result.pools) == 2:
        return [table(title, columns, rows)]
    names = list(result.pools)
    rates = document["win_rates"]
    matrix = [[a, *("" if a == b else share(rates[a][b]) for b in names)] for a in names]
    return [table(title, columns, rows), table("Win rate of the row against the column", ["", *names], matrix)]


def _examples(result: Tournament, count: int) -> list[Any]:
    """Show the first prompts with the first answer of every policy."""
    samples = next(iter(result.pools.values())).samples
    tables: list[Any] = []
    for row in [each for number, each in enumerate(result.rows()) if number % samples == 0][:count]:
        prompt = row["prompt"] if isinstance(row["prompt"], str) else "\n".join(each["content"] or "" for each in row["prompt"])
        rewards = row.get("rewards", {})
        cells = [[name, f"{rewards[name]:.4g}" if rewards else "", _short(text)] for name, text in row["answers"].items()]
        verdicts = [f"{each['a']} / {each['b']} {each['score']:+.2g}" for each in row["verdicts"] if each["score"] is not None]
        kept = cells if rewards else [[name, text] for name, _, text in cells]
        title = f"{_short(prompt)}\n({', '.join(verdicts)})"
        tables.append(table(title, ["policy", *(["reward"] if rewards else []), "answer"], kept))
    return tables


def _short(text: str) -> str:
    from rich.markup import escape

    return escape(text if len(text) <= LONGEST else f"{text[:LONGEST]} ...")


def _fail(console: Console, failed: Sequence[Failure]) -> None:
    """Fail, after the result is shown, if a comparison did."""
    if not failed:
        return
    said = (
        f"{len(failed)} comparisons have no verdict and do not count; the same command asks for them again:\n"
        f"{listed([str(each) for each in failed], MOST_SHOWN)}"
    )
    if not console.json:
        raise EndpointError(said)
    say_error(said)  # stdout has its one document
    raise typer.Exit(EndpointError.exit_code)
