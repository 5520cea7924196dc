"""Models whose vocabularies differ: which tokens the result has, and which row of each model belongs to which token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import MismatchError, UsageError, nearest
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.tensors import Tensor
from warmkit.layouts.compatibility import EMBEDDINGS, HEAD, embedding_of
from warmkit.layouts.token_rows import Mean, PaddedTensor, picked
from warmkit.layouts.token_sources import RowSource, TokenChanges, row_sources
from warmkit.layouts.tokenizer import Vocabulary, read_vocabulary_file
from warmkit.layouts.tokenizer_files import named_tokens, write_tokenizer

MODES = ("strict", "union", "init", "common")
TOKENIZER = "tokenizer.json"
# Tensors with one row a token: input embeddings, heads, and the biases of heads.
INPUTS = (*EMBEDDINGS, ".embeddings.weight")
VOCABULAR = (
    *INPUTS,
    "embed_out.weight",
    HEAD,
    "lm_head.bias",
    "predictions.bias",
    "predictions.decoder.weight",
    "predictions.decoder.bias",
)
Ids: TypeAlias = "dict[str, int]"


def read_vocabulary(checkpoint: Checkpoint) -> Vocabulary | None:
    """Read the tokens of a checkpoint from its `tokenizer.json`; None where it has none.

    Raises:
        FormatError: If it is of another form.
    """
    path = checkpoint.tokenizer_home / TOKENIZER if checkpoint.tokenizer_home else None
    if path is None or not path.is_file():
        return None
    return read_vocabulary_file(path)


@dataclass(frozen=True)
class Matched:
    """Checkpoints with one row a token of the result.

    Attributes:
        checkpoints: The same, in their order, with rows picked.
        notes: What differed, and what became of it.
        identity: What decides the rows, for the fingerprint of a run.
        finish: Makes tokenizer and config in the result's directory say the same.
    """

    checkpoints: list[Checkpoint]
    notes: list[str]
    identity: Any
    finish: Callable[[Path], None]


def _nothing(target: Path) -> None: ...


@dataclass(frozen=True)
class RowWeights:
    """What a merge says of its models' weights, for rows that some of them lack.

    Attributes:
        shares: [M], what the user mixes.
        scales: Whether they scale task vectors, and are not shares of a mean.
        uses_init: Whether the init takes part.
    """

    shares: NDArray[np.float64]
    scales: bool
    uses_init: bool


def match_vocabularies(
    checkpoints: Sequence[Checkpoint],
    companions: Checkpoint,
    weights: RowWeights,
    mode: str,
    has_init: bool,
    changes: TokenChanges,
) -> Matched:
    """Bring checkpoints to one vocabulary.

    A row that a model lacks takes no part. Precisely, of a token's row: if the init takes part and lacks the token, every
    model has the mean over those that have it, by their shares, so that task vectors are zero. Else a model that lacks it has
    that mean; of a method that adds scaled task vectors it has the init's row, and so it has where no model knows the token.

    Args:
        checkpoints: The init where there is one, then the models.
        companions: Whose tokenizer and config the result gets: the vocabulary that `init` means, and whose ids are kept.
        weights: How the merge weighs the models.
        mode: `strict` (one vocabulary, rows of padding aside), `init`, `union` or `common`.
        has_init: Whether the first checkpoint is an initialisation.
        changes: What is said of single tokens, which comes before these rules.

    Raises:
        UsageError: If the mode is unknown, or what is said of a token cannot be.
        MismatchError: If a tokenizer is missing, or base vocabularies differ where tokens must be added or taken away.
    """
    if mode not in MODES:
        raise UsageError(f"unknown vocabulary {mode!r}{nearest(mode, MODES)}")
    counts = [_rows(each) for each in checkpoints]
    untouched = Matched(list(checkpoints), [], None, _nothing)
    if mode == "strict" and not changes and (None in counts or len(set(counts)) == 1):
        return untouched  # tokenizers are read where they are needed: it takes a while
    reference = read_vocabulary(companions)
    own = [read_vocabulary(each) for each in checkpoints]
    if mode == "strict" and not changes and not _padding_alone(reference, own, counts):
        return untouched  # for the comparison to refuse
    if reference is None:
        raise MismatchError(f"--vocabulary {mode} needs {TOKENIZER}, and {companions.source} has none")
    vocabularies = [each or reference for each in own]
    ids = [each.ids for each in vocabularies]
    if mode == "strict" and any(each != reference.ids for each in ids):
        raise MismatchError(
            "the vocabularies differ, so tokens or padding cannot be set: give --vocabulary union, init or common"
        )
    kept = _kept_added(mode, companions, reference, vocabularies, [each.source for each in checkpoints])
    kept += changes.new({**reference.base, **{token["content"]: token["id"] for token in kept}}, vocabularies)
    tokens = {**reference.base, **{token["content"]: token["id"] for token in kept}}
    sources = {tokens[token]: each for token, each in row_sources(changes, checkpoints, ids, counts).items()}
    notes = [*_notes(mode, checkpoints, ids, tokens, counts), *changes.notes()]
    same = changes.multiple is None and all(tokens.get(token) == place for token, place in reference.ids.items())
    places = max([place + 1 for place in tokens.values()] + [counts[0] or 0] * same)
    rows = changes.padded(places)
    plan = _Plan(checkpoints, ids, tokens, places, rows, weights, has_init, sources)
    matched = [replace(each, entries=plan.entries(place)) for place, each in enumerate(checkpoints)]
    changed = tokens != reference.ids or rows != _rows(companions)
    finish = write_tokenizer(kept, reference.ids, tokens, _rows(companions), rows) if changed else _nothing
    said = [{**changes.tokens}] if changes.tokens else []
    return Matched(matched, notes, [mode, ids, tokens, rows, *said], finish)


def _padding_alone(reference: Vocabulary | None, own: Sequence[Vocabulary | None], counts: Sequence[int | None]) -> bool:
    """Say whether all have one vocabulary, and a row for each of its tokens."""
    if reference is None or any(each is None or each.ids != reference.ids for each in own):
        return False
    return min(count or 0 for count in counts) > max(reference.ids.values(), default=-1)


def _rows(checkpoint: Checkpoint) -> int | None:
    """Return how many rows the input embedding has; None where no name says which it is."""
    return next((each.shape[0] for name, each in checkpoint.entries.items() if name.endswith(INPUTS) and each.shape), None)


def _kept_added(
    mode: str, companions: Checkpoint, reference: Vocabulary, others: Sequence[Vocabulary], sources: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the added tokens of the result, with their ids in it."""
    if mode in ("strict", "init"):
        return [dict(token) for token in reference.added]
    for vocabulary, source in zip(others, sources):
        if vocabulary.base != reference.base:
            raise MismatchError(
                f"{source}: its base vocabulary differs from that of {companions.source}; --vocabulary {mode} "
                "changes added tokens only, since merges and scores of a base vocabulary belong together; --vocabulary init "
                "takes one of them and matches rows by token"
            )
    if mode == "union":
        return _union(reference, others)
    return _common(reference, others, named_tokens(companions))


def _union(reference: Vocabulary, others: Sequence[Vocabulary]) -> list[dict[str, Any]]:
    kept = [dict(token) for token in reference.added]
    known = dict(reference.ids)
    for vocabulary in others:
        for token in sorted(vocabulary.added, key=lambda each: each["id"]):
            if token["content"] not in known:
                known[token["content"]] = max(known.values()) + 1
                kept.append({**token, "id": known[token["content"]]})
    return kept


def _common(reference: Vocabulary, others: Sequence[Vocabulary], named: frozenset[str]) -> list[dict[str, Any]]:
    everywhere = frozenset.intersection(*(frozenset(each.ids) for each in others)) | named
    kept: list[dict[str, Any]] = []
    following = min((token["id"] for token in reference.added if token["content"] not in reference.base), default=0)
    for token in sorted(reference.added, key=lambda each: each["id"]):
        if token["content"] in reference.base:
            kept.append(dict(token))
        elif token["content"] in everywhere:
            kept.append({**token, "id": following})
            following += 1
    return kept


def _notes(
    mode: str, checkpoints: Sequence[Checkpoint], ids: Sequence[Ids], tokens: Ids, counts: Sequence[int | None]
) -> list[str]:
    notes: list[str] = []
    for checkpoint, known, count in zip(checkpoints, ids, counts):
        padding = (count or 0) - max(known.values(), default=-1) - 1
        lacks, more = [token for token in tokens if token not in known], [token for token in known if token not in tokens]
        moved = sum(1 for token, place in tokens.items() if known.get(token, place) != place)
        parts = [
            f"{len(lacks):,} tokens have no row ({_few(lacks)})" if lacks else "",
            f"{len(more):,} of its tokens are left out ({_few(more)})" if more else "",
            f"{moved:,} tokens have another id" if moved else "",
            f"{padding:,} of {count:,} rows are padding" if padding > 0 and count is not None else "",
        ]
        if any(parts):
            notes.append(f"{checkpoint.source}: vocabulary {mode}: {', '.join(filter(None, parts))}")
    return notes


def _few(tokens: Sequence[str]) -> str:
    return ", ".join(map(repr, tokens[:3])) + (", ..." if len(tokens) > 3 else "")


@dataclass(frozen=True)
class _Plan:
    """Which row of which model stands for which row of the result."""

    checkpoints: Sequence[Checkpoint]
    ids: Sequence[Ids]
    tokens: Ids
    rows: int
    padded: int
    weights: RowWeights
    has_init: bool
    sources: Mapping[int, RowSource]

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """[checkpoints, rows], the row of each model for each row of the result, -1 where it has none."""
        places = np.full((len(self.ids), self.rows), -1, np.int64)
        padding = np.ones(self.rows, bool)
        padding[list(self.tokens.values())] = False
        for place, known in enumerate(self.ids):
            both = [(row, known[token]) for token, row in self.tokens.items() if token in known]
            if both:
                places[place, [row for row, _ in both]] = [found for _, found in both]
            if place == 0:  # padding is what the first has there
                places[place, padding] = np.flatnonzero(padding)
            places[place, places[place] >= (_rows(self.checkpoints[place]) or 0)] = -1
        return places

    @cached_property
    def _orphans(self) -> NDArray[np.bool_]:
        """[rows], where the init takes part and has no row."""
        return (self._places[0] < 0) & self.has_init & self.weights.uses_init

    def entries(self, place: int) -> dict[str, Tensor]:
        entries, rows = self.checkpoints[place].entries, _rows(self.checkpoints[place])
        vocabular = {name for name, each in entries.items() if name.endswith(VOCABULAR) and each.shape[:1] == (rows,)}
        return {name: self._picked(name, each, place) if name in vocabular else each for name, each in entries.items()}

    def _picked(self, name: str, own: Tensor, place: int) -> Tensor:
        made = (self._places[place] < 0) | self._orphans
        for row, source in self.sources.items():
            made[row] = source.force or self._places[place, row] < 0
        means = {int(row): self._mean(name, int(row)) for row in np.flatnonzero(made)}
        tensor = picked(own, np.where(made, -1, self._places[place]), means)
        return PaddedTensor(tensor, self.padded) if self.padded > self.rows else tensor

    def _mean(self, name: str, row: int) -> Mean:
        """Return what a row is made of for the models that lack it."""
        if source := self.sources.get(row):
            return [] if source.place is None else [(1.0, self._tensor(name, source.place), source.row)]
        first, places = int(self.has_init), self._places[:, row]
        having = [place for place in range(first, len(places)) if places[place] >= 0]
        scales = self.weights.scales
        if places[0] >= 0 and (not having or (scales and self.has_init)):
            return [(1.0, self._tensor(name, 0), int(places[0]))]
        shares = [float(self.weights.shares[place - first]) for place in having]
        if scales or min(shares, default=0) < 0 or not sum(shares):
            shares = [1.0] * len(having)
        whole = sum(shares)
        return [(share / whole, self._tensor(name, place), int(places[place])) for share, place in zip(shares, having)]

    def _tensor(self, name: str, place: int) -> Tensor:
        entries = self.checkpoints[place].entries
        tensor = entries.get(name) or (embedding_of(entries) if name == HEAD else None)
        if tensor is None:
            raise MismatchError(f"{self.checkpoints[place].source}: missing tensor {name!r}")
        return tensor
