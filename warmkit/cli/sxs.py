"""`warmkit sxs`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli.command import argument, command, option
from warmkit.cli.console import Console, interval, table
from warmkit.cli.endpoint_options import EndpointOptions
from warmkit.cli.evaluate import share
from warmkit.cli.output import PlottedDocument
from warmkit.cli.policy_options import Judges, Rewards, Samples, Sampling, open_candidate, sampling_only, tell_texts
from warmkit.cli.shared_options import numbers
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


@dataclass(eq=False, repr=False)
class RewardScale:
    """How rewards say who wins."""

    tie_margin: float | None = option(None, "Rewards that differ by this or less tie.", min=0, show_default="0")
    steps: str | None = option(
        None,
        "With rewards: chance of winning from which an answer is slightly better, better, much better.",
        metavar="P,P,P",
        show_default="0.6,0.8,0.95",
    )

    def thresholds(self) -> list[float]:
        """Return the three chances of winning."""
        from warmkit.evaluation.win_rates import THRESHOLDS, check_thresholds

        found = numbers(self.steps, "--steps") or list(THRESHOLDS)
        check_thresholds(found)
        return found


@dataclass(eq=False, repr=False)
class SxsFiles(PlottedDocument):
    """What is written beside what is printed."""

    force: bool = option(False, "Replace files at OUT and COMPLETIONS.")
    completions: Path | None = option(None, "JSON lines to write: every prompt, answer and verdict.")


@command(needs_transformers=True)
def sxs(
    console: Console,
    *,
    policies: list[str] = argument(
        "POLICY",
        "Two or more: directories, Hub repositories, or JSON lines of prompt and completions.",
        show_default=False,
    ),
    scale: RewardScale,
    sampling: Sampling,
    endpoint: EndpointOptions,
    files: SxsFiles,
    rewards: Rewards = None,
    samples: Samples = 1,
    examples: int = option(0, "Prompts to show with all answers.", min=0),
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
    from warmkit.evaluation.side_by_side import short_names
    from warmkit.report.runs.documents import sxs_chart

    if len(policies) < 2:
        raise UsageError("expected two policies or more, to compare them")
    named, asked = dict(zip(short_names(policies), policies)), _is_asked(endpoint, rewards, scale, files.output)
    thresholds = scale.thresholds()
    how = replace(sampling, prompts=sampling.prompts or _own_prompts(policies)).settings(
        samples, Judges(rewards), needed=("prompts",) if asked else ("prompts", "rewards")
    )
    files.check(files.completions)
    with contextlib.ExitStack() as stack:  # judges open before the sampling, which takes longer
        if asked:
            play = _by_endpoint(console, stack, _cache(endpoint, files.output), endpoint)
        else:
            play = _by_rewards(console, how, scale.tie_margin or 0.0, thresholds)
        result, failed, judge = play(_pools(console, named, how))
    if files.completions is not None:
        result.write(files.completions)
    document = _document(result, named, how, judge, failed)
    files.save(console, document, lambda: [sxs_chart(document)])
    console.result(document, *_tables(result, document), *_examples(result, examples))
    if failed:
        raise EndpointError(
            f"{len(failed)} comparisons have no verdict and do not count; the same command asks for them again:\n"
            f"{listed([str(each) for each in failed], MOST_SHOWN)}"
        )


def _is_asked(endpoint: EndpointOptions, rewards: Sequence[str] | None, scale: RewardScale, output: Path | None) -> bool:
    """Say whether an endpoint judges; refuse options that contradict each other."""
    endpoint.check()
    if endpoint.endpoint is None:
        if endpoint.criteria is not None or endpoint.cache is not None:
            raise UsageError("--criteria and --cache are for an endpoint; expected --endpoint URL with --model NAME")
        return False
    if rewards:
        raise UsageError("--reward and --endpoint both judge; give one")
    if vars(scale) != vars(RewardScale()):
        raise UsageError("--tie-margin and --steps are for rewards; an endpoint says itself how much better an answer is")
    _cache(endpoint, output)
    return True


def _cache(endpoint: EndpointOptions, output: Path | None) -> Path:
    """Return where the answers of an endpoint are kept, as `warmkit label` does."""
    if endpoint.cache is None and output is None:
        raise UsageError("expected --cache FILE, or -o OUT beside which it lies: what an endpoint answers is kept there")
    return endpoint.cache or endpoint.kept(output or Path())


def _own_prompts(policies: Sequence[str]) -> str | None:
    """Return the first file of answers, which holds prompts too."""
    from warmkit.evaluation.pool import is_pool

    return next((each for each in policies if is_pool(each)), None)


def _pools(console: Console, policies: dict[str, str], how: EvaluationSettings) -> dict[str, Pool]:
    """Sample or read the answers of every policy."""
    from warmkit.evaluation.pool import check_comparable, is_pool, read_pool, sample_pool

    trial = sampling_only(how)
    pools: dict[str, Pool] = {}
    for name, path in policies.items():
        with console.progress(f"answers of {name}", unit="prompts") as advance:
            if is_pool(path):
                pools[name] = read_pool(path, chat=bool(how.chat))
            else:  # no name for the policy, so that one is in memory at a time
                pools[name] = sample_pool(open_candidate(console, trial, path), advance)
        check_comparable(pools)
    return pools


def _by_rewards(console: Console, how: EvaluationSettings, tie_margin: float, thresholds: Sequence[float]) -> Play:
    """Load the rewards; return what lets them judge."""
    from warmkit.evaluation.rewards import open_terms
    from warmkit.evaluation.tournament import play_by_rewards

    terms = open_terms(how.rewards)
    described = [asdict(each) for each in how.rewards]

    def play(pools: dict[str, Pool]) -> Played:
        tell_texts(console, next(iter(pools.values())).prompts, [], terms, how.chat)
        with console.progress("judging", unit="policies") as advance:
            result = play_by_rewards(pools, terms, tie_margin, thresholds, advance)
        return result, [], {"rewards": described, "tie_margin": tie_margin, "steps": list(thresholds)}

    return play


def _by_endpoint(console: Console, stack: contextlib.ExitStack, path: Path, options: EndpointOptions) -> Play:
    """Open the endpoint and the cache for as long as the stack; return what lets them judge."""
    from warmkit.common.whole_files import writing
    from warmkit.evaluation.tournament import Tournament
    from warmkit.labeling.seven_steps import match_by_judge

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    judge = stack.enter_context(options.judge(path))

    def play(pools: dict[str, Pool]) -> Played:
        result = Tournament(pools, {})
        failed: list[Failure] = []
        for a, b in combinations(pools, 2):
            with console.progress(f"{a} against {b}", unit="questions") as advance:
                result.matches[a, b], problems = match_by_judge(pools[a], pools[b], judge, options.concurrency, advance)
            if len(problems) == result.matches[a, b].outcomes.size:
                raise EndpointError(f"{a} against {b}: no verdict at all:\n{listed([str(each) for each in problems])}")
            failed += problems
        return result, failed, {"model": options.model, "cached": judge.cached, "requests": judge.requests}

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
            interval(each["score"], "+.2f"),
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
