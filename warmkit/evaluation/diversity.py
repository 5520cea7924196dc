"""Diversity of answers: a policy that lost it says the same to one prompt again and again."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import UsageError
from warmkit.modeling.quiet import loading, quiet
from warmkit.sources.hub import resolve

Array = NDArray[np.float64]
Embed = Callable[[Sequence[str]], Array]
"""From n texts to unit vectors, [n, d]."""

ADVICE = "it needs sacrebleu; install it: pip install 'warmkit[train]'"


def has_sacrebleu() -> bool:
    """Say whether `similarity` can be measured here."""
    return importlib.util.find_spec("sacrebleu") is not None


def similarity(texts: Sequence[Sequence[str]]) -> Array:
    """Return how alike the samples of each prompt are written, from 0 (nothing in common) to 100 (the same text).

    The mean of chrF1(y_k, y_k+1) over neighbouring samples of a prompt; chrF1 is the F1 of character n-grams, n from 1 to 6,
    without white space, so that the order of the two does not matter. Equal texts are 100, two empty ones too.

    Args:
        texts: Completions, [N][K], K of 2 or more, sampled independently.

    Returns:
        [N], in percent.

    Raises:
        UsageError: If there are fewer than two samples a prompt, or sacrebleu is not installed.

    Source: WARP (Ramé et al., 2024), appendix F, at temperature 0.9 and with BLEURT, a learned similarity of meanings, where
    this one is of spellings; chrF: Popović (2015), computed by sacrebleu (Post, 2018).

    Examples:
        >>> similarity([["the cat sleeps", "the cat sleeps"], ["sun", "moor"]]).tolist()
        [100.0, 0.0]
    """
    _require_two(texts)
    if not has_sacrebleu():
        raise UsageError(f"similarity: {ADVICE}")
    from sacrebleu.metrics.chrf import CHRF

    chrf = CHRF(beta=1)

    def alike(a: str, b: str) -> float:
        return 100.0 if a == b else chrf.sentence_score(a, [b]).score

    return np.array([np.mean([alike(a, b) for a, b in pairwise(row)]) for row in texts])


def semantic_similarity(texts: Sequence[Sequence[str]], embed: Embed) -> Array:
    """Return how alike the samples of each prompt are in meaning: 100 cos(e(y_k), e(y_k+1)), the mean over neighbours.

    Args:
        texts: Completions, [N][K], K of 2 or more, sampled independently.
        embed: See `open_encoder`.

    Returns:
        [N], in percent; texts of unrelated meanings are near 0.

    Raises:
        UsageError: If there are fewer than two samples a prompt.

    Source: WARP (Ramé et al., 2024), appendix F, with the cosine of a sentence encoder (Reimers and Gurevych, 2019) in the
    place of BLEURT.
    """
    _require_two(texts)
    vectors = embed([text for row in texts for text in row])
    ends = np.cumsum([len(row) for row in texts])[:-1]
    return np.array([100 * (each[:-1] * each[1:]).sum(1).mean() for each in np.split(vectors, ends)])


def open_encoder(source: str) -> Embed:
    """Load a sentence encoder.

    Args:
        source: Directory or Hub repository that sentence-transformers loads.

    Raises:
        CheckpointError: If it cannot.
        UsageError: If it is not installed.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise UsageError("a sentence encoder needs sentence-transformers; install it: pip install sentence-transformers")
    from sentence_transformers import SentenceTransformer

    with loading(source), quiet():
        model: Any = SentenceTransformer(str(resolve(source)))

    def embed(texts: Sequence[str]) -> Array:
        return np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False), dtype=np.float64)

    return embed


def _require_two(texts: Sequence[Sequence[str]]) -> None:
    if few := [row for row in texts if len(row) < 2]:
        raise UsageError(f"similarity: expected two samples a prompt or more, found {len(few[0])}")
