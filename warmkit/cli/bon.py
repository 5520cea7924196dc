"""`warmkit bon`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmkit.cli import policy_options as options
from warmkit.cli.command import command
from warmkit.cli.console import Console, table
from warmkit.cli.evaluate import Plot
from warmkit.cli.output import DocumentPath, check_picture, draw_picture, refuse_existing, write_document
from warmkit.cli.shared_options import numbers
from warmkit.cli.train import need_transformers
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.evaluation.accuracy import Estimate
    from warmkit.evaluation.best_of_n import BestOf
    from warmkit.evaluation.policies import EvaluationSettings
    from warmkit.evaluation.pool import Pool

SAMPLES = 64

Choosers = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        metavar="[NAME=]WHAT",
        help="Who chooses: a reward model (several with commas: ENS), module:function, 'command: LINE', or http://host/score. "
        "Repeatable.",
    ),
]


@command()
def bon(
    console: Console,
    policy: Annotated[
        str | None, typer.Argument(metavar="POLICY", help="Directory or Hub repository; none reads --pool.", show_default=False)
    ] = None,
    prompts: options.PromptFile = None,
    reward: Choosers = None,
    control: Annotated[
        list[str] | None,
        typer.Option("--control", metavar="[NAME=]WHAT", help="Another reward, which judges what was chosen. Repeatable."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Completions of every prompt, K.", show_default=str(SAMPLES))
    ] = None,
    sizes: Annotated[
        str | None, typer.Option("--n", metavar="N,N", help="How many to choose from, up to K.", show_default="1,2,4,...,K")
    ] = None,
    pool: Annotated[
        Path | None, typer.Option("--pool", help="JSON lines of the samples: written with a POLICY, read without one.")
    ] = None,
    recipe: options.Like = None,
    temperature: options.Temperature = None,
    max_new_tokens: options.NewTokens = None,
    stop: options.Stop = None,
    chat: options.AsChats = False,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 64,
    plot: Plot = None,
    output: DocumentPath = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files at OUT and POOL.")] = False,
) -> None:
    """Sample K completions of every prompt, let rewards choose the best of N, and show what controls say of the choices.

    Every N comes from the same K samples, exactly: the mean over all subsets of size N. Every --reward chooses for itself, so
    individual reward models, their weight average and their ensemble stand side by side. The x-axis is the KL of best-of-N to
    the policy, log N - (N-1)/N. A pool is sampled once and scored again with other rewards; rows of `prompt` and
    `completions` from any other sampler are one too.

    Examples:

    - `warmkit bon SFT --prompts p.jsonl --reward wa=warm/model --reward ens=A,B,C --reward A --control gold=RM --plot bon.png`
    - `warmkit bon SFT --prompts p.jsonl --reward A --control gold=RM --samples 256 --pool pool.jsonl`
    - `warmkit bon --pool pool.jsonl --reward B --control gold=RM --n 1,16,256`
    """
    need_transformers()
    sampling = {"--samples": samples, "--temperature": temperature, "--max-new-tokens": max_new_tokens, "--stop": stop}
    from warmkit.evaluation.best_of_n import best_of_curves, default_sizes
    from warmkit.evaluation.pool import score_pool
    from warmkit.evaluation.rewards import open_terms
    from warmkit.report.runs.documents import bon_charts

    how = options.evaluation_settings(
        recipe,
        prompts=_prompts(policy, prompts, sampling, pool),
        rewards=reward,
        controls=control,
        sft=None,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        samples=samples or SAMPLES,
        seed=seed,
        batch_size=batch_size,
        stop=stop,
        chat=chat,
        needed=("prompts", "rewards", "controls"),
    )
    check_picture(plot)
    refuse_existing([output, pool if policy is not None else None], force)
    choosing, judging = open_terms(how.rewards), open_terms(how.controls)
    answers = _answers(console, policy, how, pool)
    options.tell_texts(console, answers.prompts, [], [*choosing, *judging], how.chat)
    chosen = _sizes(sizes) or default_sizes(answers.samples)
    if max(chosen) > answers.samples:
        raise UsageError(f"--n: expected 1 to {answers.samples}, the samples of every prompt, found {max(chosen)}")
    with console.progress("scoring", unit="rewards") as advance:
        scores = score_pool(answers, [*choosing, *judging], advance)
    proxies = {term.label: term.weight * each for term, each in zip(choosing, scores)}
    controls = {term.label: each for term, each in zip(judging, scores[len(choosing) :])}
    points = best_of_curves(proxies, controls, chosen)
    document = {
        "policy": policy,
        "prompts": {"source": how.prompts, "number": len(answers.prompts)},
        "samples": answers.samples,
        **({} if policy is None else {key: getattr(how, key) for key in ("temperature", "max_new_tokens", "seed")}),
        "choosers": {term.label: dataclasses.asdict(term) for term in how.rewards},
        "controls": {term.label: dataclasses.asdict(term) for term in how.controls},
        "points": [dataclasses.asdict(each) for each in points],
    }
    draw_picture(console, lambda: bon_charts(document), plot)
    write_document(output, document)
    title = f"Best of N from {answers.samples} samples of {len(answers.prompts)} prompts"
    console.result(document, *(_table(title, control, list(proxies), points) for control in controls))


def _prompts(policy: str | None, prompts: str | None, sampling: dict[str, Any], pool: Path | None) -> str | None:
    """Return where the prompts are; without a policy, in the pool."""
    if policy is not None:
        return prompts
    if pool is None:
        raise UsageError("expected a POLICY to sample from, or --pool FILE with its samples")
    if given := [name for name, value in {"--prompts": prompts, **sampling}.items() if value is not None]:
        raise UsageError(f"{' and '.join(given)}: for a POLICY; a pool has been sampled already")
    return str(pool)


def _sizes(text: str | None) -> list[int] | None:
    found = numbers(text, "--n")
    if wrong := [each for each in found or [] if not (each >= 1 and each.is_integer())]:
        raise UsageError(f"--n: expected whole numbers from 1, found {wrong[0]:g}")
    return None if found is None else sorted({int(each) for each in found})


def _answers(console: Console, policy: str | None, how: EvaluationSettings, path: Path | None) -> Pool:
    from warmkit.evaluation.policies import PolicyTrial
    from warmkit.evaluation.pool import read_pool, sample_pool

    if policy is None:
        return read_pool(how.prompts, chat=bool(how.chat))
    trial = PolicyTrial(dataclasses.replace(how, rewards=[], controls=[], sft=None))
    with console.progress("sampling", unit="prompts") as advance:
        answers = sample_pool(options.open_candidate(console, trial, policy), advance)
    if path is not None:
        answers.write(path)
        console.note(f"wrote the samples to {path}")
    return answers


def _table(title: str, control: str, choosers: Sequence[str], points: Sequence[BestOf]) -> Any:
    """Lay out one control; how far a chooser is ahead of the first where there are several."""
    columns = ["chosen by", "N", "KL", "own score", f"{control} (95%)", "over N = 1 (95%)", f"over {choosers[0]} (95%)"]
    kept = [each for each in points if each.control == control]
    digits = _digits(max(abs(each.gain.value) for each in kept) or max(abs(each.score.value) for each in kept))
    rows = [
        [
            each.chooser if place == 0 or kept[place - 1].chooser != each.chooser else "",
            str(each.n),
            f"{each.kl:.3f}",
            f"{each.proxy:.4g}",
            _span(each.score, f".{digits}f"),
            "" if each.n == 1 else _span(each.gain, f"+.{digits}f"),
            "" if each.n == 1 or each.chooser == choosers[0] else _span(each.lead, f"+.{digits}f"),
        ]
        for place, each in enumerate(kept)
    ]
    return table(title, columns, rows) if len(choosers) > 1 else table(title, columns[:-1], [row[:-1] for row in rows])


def _digits(largest: float) -> int:
    """Return the decimals that leave the largest gain three digits."""
    return max(0, 2 - math.floor(math.log10(largest))) if largest else 2


def _span(estimate: Estimate, form: str) -> str:
    """Write a score or a difference of scores with its interval."""
    return "{} ({} to {})".format(*(f"{each:{form}}" for each in (estimate.value, estimate.low, estimate.high)))
