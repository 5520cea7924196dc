"""What a merge says of single tokens: the row that one gets, and how many rows there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from warmkit.common.addresses import shown
from warmkit.errors import UsageError, nearest
from warmkit.formats.checkpoint import Checkpoint
from warmkit.layouts.tokenizer import Vocabulary

ZEROS = "zero"
KEYS = ("model", "token", "id", "force")
PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}


@dataclass(frozen=True)
class TokenChanges:
    """What is said of single tokens, and of their number.

    Attributes:
        tokens: For a token, new ones too, where its row comes from: `model`, one of the inputs, there the same token, `token`
            or `id`; or the model `zero`. A model that has the token keeps its own row unless `force` is true.
        multiple: The number of rows is a multiple of it; the rows beyond the tokens are the mean of the others.
    """

    tokens: Mapping[str, Any] = field(default_factory=lambda: {})
    multiple: int | None = None

    def __post_init__(self) -> None:
        multiple: Any = self.multiple
        if multiple is not None and (isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1):
            raise UsageError(f"pad_to_multiple_of must be a whole number at least 1, found {multiple!r}")

    def __bool__(self) -> bool:
        return bool(self.tokens) or self.multiple is not None

    def padded(self, rows: int) -> int:
        """Return how many rows there are for that many tokens."""
        return -(-rows // self.multiple) * self.multiple if self.multiple else rows

    def new(self, known: Mapping[str, int], vocabularies: Sequence[Vocabulary]) -> list[dict[str, Any]]:
        """Return the tokens that are not known, with the ids that follow, as a model has added them."""
        following, added = max(known.values(), default=-1) + 1, [each for one in vocabularies for each in one.added]
        texts = [text for text in self.tokens if text not in known]
        said = [next((each for each in added if each["content"] == text), PLAIN) for text in texts]
        return [{**each, "id": following + n, "content": text} for n, (text, each) in enumerate(zip(texts, said))]

    def notes(self) -> list[str]:
        """Return what it says, in a line."""
        said = [f"{token!r}: {_told(where)}" for token, where in self.tokens.items()]
        more = f", and {len(said) - 3} more" if len(said) > 3 else ""
        return [f"rows of tokens: {', '.join(said[:3])}{more}"] if said else []


def _told(where: Mapping[str, Any]) -> str:
    row = where.get("token", where.get("id"))
    which = "" if row is None else f", there {row!r}"
    return f"{shown(str(where['model']))}{which}{', in all models' if where.get('force') else ''}"


@dataclass(frozen=True)
class RowSource:
    """Where the row of a token comes from.

    Attributes:
        place: Of the checkpoint; None for zeros.
        row: There.
        force: Whether models that have the token get it too.
    """

    place: int | None
    row: int
    force: bool


def row_sources(
    changes: TokenChanges, checkpoints: Sequence[Checkpoint], ids: Sequence[Mapping[str, int]], counts: Sequence[int | None]
) -> dict[str, RowSource]:
    """Return where the rows of tokens come from.

    Args:
        changes: What is said.
        checkpoints: All inputs.
        ids: The tokens of each, with their ids.
        counts: How many rows each has.

    Raises:
        UsageError: If a key, a model, a token or an id is none.
    """
    return {token: _source(token, where, checkpoints, ids, counts) for token, where in changes.tokens.items()}


def _source(
    token: str, where: Any, checkpoints: Sequence[Checkpoint], ids: Sequence[Mapping[str, int]], counts: Sequence[int | None]
) -> RowSource:
    said = _checked(token, where)
    force = said.get("force", False)
    if said["model"] == ZEROS:
        return RowSource(None, 0, force)
    name = shown(said["model"])
    place = next((place for place, each in enumerate(checkpoints) if name in (each.source, str(each.path))), None)
    if place is None:
        known = ", ".join(dict.fromkeys(each.source for each in checkpoints))
        raise UsageError(f"token_rows: {token!r}: expected {ZEROS} or one of the models of the merge ({known}), found {name!r}")
    wanted = said.get("token", token)
    row = said["id"] if "id" in said else ids[place].get(wanted)
    if row is None:
        raise UsageError(f"token_rows: {token!r}: {name} has no token {wanted!r}")
    if not 0 <= row < (counts[place] or 0):
        raise UsageError(f"token_rows: {token!r}: {name} has {counts[place]} rows, found row {row}")
    return RowSource(place, row, force)


def _checked(token: str, where: Any) -> dict[str, Any]:
    """Return what is said of a token if its keys are the right ones, of the right kinds."""
    place = f"token_rows: {token!r}"
    if not isinstance(token, str) or not isinstance(where, Mapping):
        raise UsageError(f"{place}: expected a token with model: and perhaps token or id, and force, found {where!r}")
    said = dict(cast("Mapping[str, Any]", where))
    if unknown := next((key for key in said if key not in KEYS), None):
        raise UsageError(f"{place}: unknown key {unknown!r}{nearest(str(unknown), KEYS)}")
    if not isinstance(said.get("model"), str):
        raise UsageError(f"{place}: expected model, one of the merge or {ZEROS}, found {said.get('model')!r}")
    if "token" in said and "id" in said:
        raise UsageError(f"{place}: token and id both say which row; give one of them")
    right = (
        isinstance(said.get("token", ""), str) and type(said.get("id", 0)) is int and isinstance(said.get("force", False), bool)
    )
    if not right:
        raise UsageError(f"{place}: token is a text, id a whole number and force true or false, found {said!r}")
    return said
