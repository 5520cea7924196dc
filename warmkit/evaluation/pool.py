"""Completions of prompts on their own: sampled once, scored as often as there are reward models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from warmkit.common.display import Displayed
from warmkit.common.progress import Advance
from warmkit.common.random_streams import generator
from warmkit.common.whole_files import write_rows
from warmkit.data.chats import as_chat, columns_of
from warmkit.data.fields import content, has
from warmkit.data.prompts import Prompt
from warmkit.data.rows import Row, is_json, kind_at, read_rows
from warmkit.errors import DataError, MismatchError
from warmkit.evaluation.policies import Candidate
from warmkit.evaluation.rewards import Term

Array = NDArray[np.float64]

AT_A_TIME = 512  # completions between two reports of progress; how many are in memory is the settings' `batch_size`


@dataclass(frozen=True, repr=False)
class Pool(Displayed):
    """K completions of each of N prompts.

    Attributes:
        prompts: What was asked, [N].
        texts: What was answered, [N][K].
    """

    prompts: list[Prompt]
    texts: list[list[str]]

    @property
    def samples(self) -> int:
        """Completions of every prompt, K."""
        return len(self.texts[0])

    def score(self, term: Term) -> Array:
        """Return what a reward says of every completion, without its weight, [N, K].

        Raises:
            ScoreError: If the reward fails, or gives numbers that cannot be used.
        """
        prompts = [prompt for prompt in self.prompts for _ in range(self.samples)]
        scores = term(prompts, [text for texts in self.texts for text in texts])
        return cast("Array", scores.double().numpy()).reshape(-1, self.samples)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for every prompt: `prompt` and `completions`."""
        return [
            {"prompt": prompt.content, **columns_of(prompt.content), "completions": texts}
            for prompt, texts in zip(self.prompts, self.texts)
        ]

    def write(self, path: Path) -> None:
        """Write the rows as JSON lines, which `read_pool` reads."""
        write_rows(path, self.rows())


def score_pool(pool: Pool, terms: Sequence[Term], advance: Advance | None = None) -> list[Array]:
    """Return what each reward says of every completion, without its weight, [N, K] each; `advance` counts rewards."""
    scores: list[Array] = []
    for term in terms:
        scores.append(pool.score(term))
        if advance is not None:
            advance(1, len(terms))
    return scores


def sample_pool(candidate: Candidate, advance: Advance | None = None) -> Pool:
    """Let a policy answer all prompts: what `Candidate.answers` samples, without a reward.

    The same seed draws the same random numbers for every policy, so that differences between policies are paired.

    Args:
        candidate: The policy with its prompts.
        advance: Called as the answers come.
    """
    how, data = candidate.settings, candidate.data
    draw, size, texts = generator("evaluation samples", how.seed), max(1, AT_A_TIME // how.samples), list[list[str]]()
    for start in range(0, len(data), size):
        ids = data.ids[start : start + size]
        _, found = candidate.evaluator.complete(ids, how.samples, draw, data.prompts[start : start + size])
        texts += [found[place : place + how.samples] for place in range(0, len(found), how.samples)]
        if advance is not None:
            advance(len(ids), len(data))
    return Pool(data.prompts, texts)


def read_pool(source: str | Path, *, chat: bool = False) -> Pool:
    """Read rows of `prompt` and `completions`, a list of texts; every prompt has as many.

    Args:
        source: JSON lines, from `Pool.write` or any other sampler.
        chat: Make chats of prompts that are texts.

    Raises:
        DataError: If a row is bad, or has more or fewer completions than the first.
    """
    rows = read_rows(source, lambda row, where: _parse(row, where, chat))
    prompts, texts = [prompt for prompt, _ in rows], [each for _, each in rows]
    wrong = next((place for place, each in enumerate(texts) if len(each) != len(texts[0])), None)
    if wrong is not None:
        raise DataError(
            f"{prompts[wrong].where}: expected {len(texts[0])} completions, as many as the first prompt has, "
            f"found {len(texts[wrong])}"
        )
    return Pool(prompts, texts)


def check_comparable(pools: Mapping[str, Pool]) -> None:
    """Refuse pools whose answers cannot be compared one by one.

    Raises:
        MismatchError: If two have other prompts, another order of them, or another number of answers.
    """
    (first, expected), *others = pools.items()
    for name, found in others:
        if [each.content for each in found.prompts] != [each.content for each in expected.prompts]:
            raise MismatchError(f"{name}: expected the prompts that {first} answered, in the same order, found others")
        if found.samples != expected.samples:
            numbers = f"{expected.samples} answers to every prompt, as {first} has"
            raise MismatchError(f"{name}: expected {numbers}, found {found.samples}")


def is_pool(source: str) -> bool:
    """Say whether `source` is a file of JSON lines, not a policy."""
    return is_json(Path(source)) and kind_at(Path(source)) not in (None, "a directory")


def _parse(row: Row, where: str, chat: bool) -> tuple[Prompt, list[str]]:
    prompt = content(row, "prompt")
    if chat and isinstance(prompt, str):
        prompt = as_chat(prompt)
    found: Any = row["completions"] if has(row, "completions") else None
    if not isinstance(found, list) or not found or not all(isinstance(each, str) for each in cast("list[Any]", found)):
        raise DataError(f"expected completions to be a list of texts, found {found!r:.120}")
    return Prompt(prompt, where), cast("list[str]", found)
