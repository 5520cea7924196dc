"""`warmkit bon`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli.command import argument, command, option
from warmkit.cli.console import Console, interval, table
from warmkit.cli.output import PlottedDocument
from warmkit.cli.policy_options import Judges, Sampling, open_candidate, sampling_only, tell_texts
from warmkit.cli.shared_options import numbers
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.evaluation.best_of_n import BestOf
    from warmkit.evaluation.policies import EvaluationSettings
    from warmkit.evaluation.pool import Pool
    from warmkit.evaluation.rewards import Term

SAMPLES = 64


@dataclass(eq=False, repr=False)
class Choosers(Judges):
    """Who chooses answers, and who judges what was chosen."""

    rewards: list[str] | None = option(
        None,
        "Who chooses: a reward model (several with commas: ENS), module:function, 'command: LINE', or http://host/score. "
        "Repeatable.",
        "--reward",
        metavar="[NAME=]WHAT",
    )
    controls: list[str] | None = option(
        None, "Another reward, which judges what was chosen. Repeatable.", "--control", metavar="[NAME=]WHAT"
    )


@dataclass(eq=False, repr=False)
class BonFiles(PlottedDocument):
    """What is written beside what is printed, and the pool of samples."""

    pool: Path | None = option(None, "JSON lines of the samples: written with a POLICY, read without one.")
    force: bool = option(False, "Replace files at OUT and POOL.")


@command(needs_transformers=True)
def bon(
    console: Console,
    judges: Choosers,
    sampling: Sampling,
    files: BonFiles,
    policy: str | None = argument(
        "POLICY", "Directory or Hub repository; none reads --pool.", show_default=False, default=None
    ),
    samples: int | None = option(None, "Completions of every prompt, K.", min=1, show_default=str(SAMPLES)),
    sizes: str | None = option(None, "How many to choose from, up to K.", "--n", metavar="N,N", show_default="1,2,4,...,K"),
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
    from warmkit.evaluation.rewards import open_terms
    from warmkit.report.runs.documents import bon_charts

    if policy is None:
        sampling = _of_pool(files.pool, sampling, samples)
    how = sampling.settings(samples or SAMPLES, judges, needed=("prompts", "rewards", "controls"))
    files.check(files.pool if policy is not None else None)
    choosing, judging = open_terms(how.rewards), open_terms(how.controls)
    answers = _answers(console, policy, how, files.pool)
    tell_texts(console, answers.prompts, [], [*choosing, *judging], how.chat)
    points = _points(console, answers, choosing, judging, sizes)
    document = {
        "policy": policy,
        "prompts": {"source": how.prompts, "number": len(answers.prompts)},
        "samples": answers.samples,
        **({} if policy is None else {key: getattr(how, key) for key in ("temperature", "max_new_tokens", "seed")}),
        "choosers": {term.label: asdict(term) for term in how.rewards},
        "controls": {term.label: asdict(term) for term in how.controls},
        "points": [asdict(each) for each in points],
    }
    files.save(console, document, lambda: bon_charts(document))
    title = f"Best of N from {answers.samples} samples of {len(answers.prompts)} prompts"
    choosers = [term.label for term in choosing]
    console.result(document, *(_table(title, term.label, choosers, points) for term in judging))


def _of_pool(pool: Path | None, sampling: Sampling, samples: int | None) -> Sampling:
    """Take the prompts from the pool, which has been sampled."""
    if pool is None:
        raise UsageError("expected a POLICY to sample from, or --pool FILE with its samples")
    options = {"--prompts": sampling.prompts, "--samples": samples, "--temperature": sampling.temperature}
    options |= {"--max-new-tokens": sampling.max_new_tokens, "--stop": sampling.stop}
    if given := [name for name, value in options.items() if value is not None]:
        raise UsageError(f"{' and '.join(given)}: for a POLICY; a pool has been sampled already")
    return replace(sampling, prompts=str(pool))


def _answers(console: Console, policy: str | None, how: EvaluationSettings, path: Path | None) -> Pool:
    """Sample a policy, or read what was sampled."""
    from warmkit.evaluation.pool import read_pool, sample_pool

    if policy is None:
        return read_pool(how.prompts, chat=bool(how.chat))
    with console.progress("sampling", unit="prompts") as advance:
        answers = sample_pool(open_candidate(console, sampling_only(how), policy), advance)
    if path is not None:
        answers.write(path)
        console.note(f"wrote the samples to {path}")
    return answers


def _points(console: Console, answers: Pool, choosing: list[Term], judging: list[Term], sizes: str | None) -> list[BestOf]:
    """Measure the best of every N."""
    from warmkit.evaluation.best_of_n import best_of_curves, default_sizes
    from warmkit.evaluation.pool import score_pool

    chosen = _sizes(sizes) or default_sizes(answers.samples)
    if max(chosen) > answers.samples:
        raise UsageError(f"--n: expected 1 to {answers.samples}, the samples of every prompt, found {max(chosen)}")
    with console.progress("scoring", unit="rewards") as advance:
        scores = score_pool(answers, [*choosing, *judging], advance)
    proxies = {term.label: term.weight * each for term, each in zip(choosing, scores)}
    controls = {term.label: each for term, each in zip(judging, scores[len(choosing) :])}
    return best_of_curves(proxies, controls, chosen)


def _sizes(text: str | None) -> list[int] | None:
    found = numbers(text, "--n")
    if wrong := [each for each in found or [] if not (each >= 1 and each.is_integer())]:
        raise UsageError(f"--n: expected whole numbers from 1, found {wrong[0]:g}")
    return None if found is None else sorted({int(each) for each in found})


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
            interval(vars(each.score), f".{digits}f"),
            "" if each.n == 1 else interval(vars(each.gain), f"+.{digits}f"),
            "" if each.n == 1 or each.chooser == choosers[0] else interval(vars(each.lead), f"+.{digits}f"),
        ]
        for place, each in enumerate(kept)
    ]
    return table(title, columns, rows) if len(choosers) > 1 else table(title, columns[:-1], [row[:-1] for row in rows])


def _digits(largest: float) -> int:
    """Return the decimals that leave the largest gain three digits."""
    return max(0, 2 - math.floor(math.log10(largest))) if largest else 2
