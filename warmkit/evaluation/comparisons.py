"""Preference data made ready for scoring: encoded once, scored by any number of models, split into subsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import xxhash

from warmkit.common.display import Displayed
from warmkit.data.preferences import Pair, Pairs
from warmkit.errors import DataError, listed
from warmkit.evaluation.accuracy import Array, Scores
from warmkit.modeling.reward_model import RewardModel
from warmkit.modeling.tokens import Encoder, Tokens

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Comparisons(Displayed):
    """Encoded pairs.

    Attributes:
        pairs: As they were read.
        chosen: Tokens of the preferred texts.
        rejected: Tokens of the others.
    """

    pairs: Sequence[Pair]
    chosen: Sequence[Tokens]
    rejected: Sequence[Tokens]

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def truncated(self) -> int:
        """How many pairs lost tokens."""
        return sum(bool(a.truncated or b.truncated) for a, b in zip(self.chosen, self.rejected))

    @property
    def skipped(self) -> int:
        """How many pairs of the file were left out because their answers are the same."""
        return self.pairs.skipped if isinstance(self.pairs, Pairs) else 0

    @property
    def answer_lengths(self) -> tuple[Array, Array]:
        """Tokens of the chosen and the rejected answers, [n] each."""
        return _answers(self.chosen), _answers(self.rejected)

    @cached_property
    def digest(self) -> str:
        """What tells these texts from others."""
        state = xxhash.xxh3_64()
        for each in (*self.chosen, *self.rejected):
            state.update(np.array([*each.ids, -1], dtype=np.int64).tobytes())
        return state.hexdigest()

    def only(self, places: Sequence[int]) -> Comparisons:
        """Return some of the pairs."""
        return Comparisons(_only(self.pairs, places), _only(self.chosen, places), _only(self.rejected, places))

    def subsets(self) -> dict[str, list[int]]:
        """Return the places of every subset that the rows name, and of `clean` and `corrupt` where labels were swapped."""
        groups: dict[str, list[int]] = {}
        swapped = any(pair.corrupt for pair in self.pairs)
        for place, pair in enumerate(self.pairs):
            if swapped:
                groups.setdefault("corrupt" if pair.corrupt else "clean", []).append(place)
            if pair.subset is not None:
                groups.setdefault(pair.subset, []).append(place)
        return groups


def encode_pairs(pairs: Sequence[Pair], encoder: Encoder, overlong: str = "truncate") -> Comparisons:
    """Encode every pair.

    Raises:
        DataError: With `overlong="refuse"`, naming every pair that is too long; or if truncation made the two answers one.
    """
    chosen = encoder.encode([(pair.prompt, pair.chosen) for pair in pairs])
    rejected = encoder.encode([(pair.prompt, pair.rejected) for pair in pairs])
    result = Comparisons(pairs, chosen, rejected)
    if overlong == "refuse" and result.truncated:
        long = [
            f"{pair.where}: {max(len(a) + a.truncated, len(b) + b.truncated)} tokens"
            for pair, a, b in zip(pairs, chosen, rejected)
            if a.truncated or b.truncated
        ]
        raise DataError(
            f"{len(long)} pairs are longer than the {encoder.max_length} tokens of model.max_length, and model.overlong is "
            f"'refuse':\n{listed(long)}"
        )
    return result


def same_after_encoding(comparisons: Comparisons) -> int:
    """Return how many pairs are one and the same text to the model, after truncation or by its tokenizer."""
    return sum(a.ids == b.ids for a, b in zip(comparisons.chosen, comparisons.rejected))


def score(model: RewardModel, comparisons: Comparisons) -> Scores:
    """Score both sides of every pair, long texts first."""
    values = model.score_tokens([*comparisons.chosen, *comparisons.rejected]).double().numpy()
    return Scores(values[: len(comparisons)], values[len(comparisons) :])


def _only(rows: Sequence[T], places: Sequence[int]) -> list[T]:
    return [rows[place] for place in places]


def _answers(tokens: Sequence[Tokens]) -> Array:
    return np.array([len(each) - max(0, each.answer) for each in tokens], dtype=np.float64)
