"""Rewards of completions: a weighted sum of reward models, Python functions, commands and servers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from warmkit.common.functions import import_function
from warmkit.common.shell import run_shell
from warmkit.data.chats import columns_of
from warmkit.data.prompts import Prompt
from warmkit.errors import ScoreError
from warmkit.evaluation.http_scorer import open_endpoint
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.modeling.reward_model import RewardModel, load_scorer

Scorer = Callable[[Sequence[Prompt], Sequence[str]], Sequence[float]]


@dataclass(frozen=True)
class Term:
    """One term of the sum.

    Attributes:
        label: In the metrics.
        weight: In the sum.
        scorer: From prompts and completions to a number each.
        templated: Whether it is of a reward model that has a chat template.
    """

    label: str
    weight: float
    scorer: Scorer
    templated: bool = False

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> torch.Tensor:
        """Return the scores [N] of completions, each beside its prompt, float32.

        Raises:
            ScoreError: If they are not as many as the completions, or one is not finite.
        """
        scores = self.scorer(prompts, completions)
        if len(scores) != len(completions):
            raise ScoreError(f"reward {self.label}: expected {len(completions)} numbers, one a completion, found {len(scores)}")
        for place, score in enumerate(scores):
            if not math.isfinite(score):
                where, found = prompts[place].where, completions[place][:80]
                raise ScoreError(
                    f"reward {self.label}: {score} for the completion {found!r} of {where}; expected a finite number"
                )
        return torch.tensor(scores, dtype=torch.float32)


def open_terms(terms: Iterable[RewardTerm]) -> list[Term]:
    """Load what a recipe's `rewards:` or `controls:` name.

    Raises:
        UnsupportedError: If a checkpoint is no reward model.
        UsageError: If a function cannot be imported.
    """
    return [_opened(term) for term in terms]


def _opened(term: RewardTerm) -> Term:
    if term.model is None:
        return Term(term.label, term.weight, _scorer(term))
    models = [load_scorer(path) for path in ([term.model] if isinstance(term.model, str) else term.model)]
    return Term(term.label, term.weight, _ensemble(models), any(model.encoder.templated for model in models))


def weighted_sum(terms: Sequence[Term], scores: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return sum_i w_i r_i, [N]; scores are [N] each, in the order of the terms."""
    return torch.stack([term.weight * each for term, each in zip(terms, scores)]).sum(0)


def _scorer(term: RewardTerm) -> Scorer:
    if term.function is not None:
        return _function(term.function)
    if term.command is not None:
        return _command(term.command)
    assert term.endpoint is not None
    return open_endpoint(term.endpoint)


def _ensemble(models: Sequence[RewardModel]) -> Scorer:
    def score(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        texts = [(prompt.content, completion) for prompt, completion in zip(prompts, completions)]
        scores = [model.score_tokens(model.encoder.encode(texts)) for model in models]
        return torch.stack(scores).mean(0).tolist()

    return score


def _function(name: str) -> Scorer:
    function = import_function(name, "reward")

    def score(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        try:
            return [float(each) for each in function([prompt.text for prompt in prompts], list(completions))]
        except Exception as error:  # a user's own code may raise anything
            raise ScoreError(f"reward {name}: {type(error).__name__}: {error}") from error

    return score


def _command(line: str) -> Scorer:
    def score(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        rows = [
            {"prompt": prompt.content, **columns_of(prompt.content), "completion": each}
            for prompt, each in zip(prompts, completions)
        ]
        given = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        done = run_shell(line, given.encode())
        printed = done.stdout.decode("utf-8", "replace").splitlines()
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or printed or ["nothing"]
            raise ScoreError(f"reward {line!r}: exited with {done.returncode}, said: {said[-1][:300]}")
        return [_number(each, line) for each in printed if each.strip()]

    return score


def _number(printed: str, line: str) -> float:
    try:
        return float(printed)
    except ValueError:
        raise ScoreError(f"reward {line!r}: expected a number a line, found {printed[:120]!r}") from None
