"""Tokenizer, tokens and chat template of a recipe of mergekit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from warmkit.errors import nearest
from warmkit.mergekit.scopes import Scopes
from warmkit.mergekit.sections import reference

TEMPLATES = ("alpaca", "chatml", "exaone", "llama3", "mistral")
"""Chat templates that come with mergekit."""


@dataclass(frozen=True)
class Words:
    """What a recipe says of its tokenizer.

    Attributes:
        tokenizer: The model whose tokenizer is copied, None for that of the first or of the init.
        vocabulary: How vocabularies meet.
        tokens: Rows of single tokens.
        multiple: What the number of rows is a multiple of.
    """

    tokenizer: str | None = None
    vocabulary: str | None = None
    tokens: Mapping[str, Any] = field(default_factory=lambda: {})
    multiple: int | None = None

    def keys(self) -> dict[str, Any]:
        """Return what `merge:` of a recipe says."""
        return {"vocabulary": self.vocabulary, "token_rows": self.tokens or None, "pad_to_multiple_of": self.multiple}


def read_words(scopes: Scopes, donor: str) -> Words:
    """Read `tokenizer_source` or `tokenizer`.

    Args:
        scopes: The recipe.
        donor: The model whose tokenizer the result has if nothing is said.

    Raises:
        RecipeError: If warmkit lacks it.
    """
    recipe = scopes.recipe.content
    if recipe.tokenizer is None:
        return _source(scopes, "tokenizer_source", recipe.tokenizer_source, donor)
    if recipe.tokenizer_source is not None:
        raise scopes.error("tokenizer", "expected tokenizer or tokenizer_source, not both")
    known = ("source", "tokens", "pad_to_multiple_of")
    if unknown := next((each for each in recipe.tokenizer if each not in known), None):
        raise scopes.error(f"tokenizer.{unknown}", f"tokenizer: unknown key {unknown!r}{nearest(str(unknown), known)}")
    words = _source(scopes, "tokenizer.source", recipe.tokenizer.get("source", "union"), donor)
    tokens, multiple = recipe.tokenizer.get("tokens") or {}, recipe.tokenizer.get("pad_to_multiple_of")
    for name, said in (("tokens", tokens), ("pad_to_multiple_of", multiple)):
        if said and recipe.slices is not None:
            raise scopes.error(f"tokenizer.{name}", f"tokenizer.{name} of slices is not in warmkit; give models")
    if tokens and words.tokenizer is not None:
        raise scopes.error("tokenizer.tokens", "tokenizer.tokens beside another model's tokenizer; make that the base_model")
    if multiple is not None and (type(multiple) is not int or multiple < 1):
        raise scopes.error("tokenizer.pad_to_multiple_of", f"expected a whole number at least 1, found {multiple!r}")
    rows = {str(token): _row(scopes, f"tokenizer.tokens.{token}", said) for token, said in tokens.items()}
    return Words(words.tokenizer, words.vocabulary, rows, multiple)


def _source(scopes: Scopes, key: str, source: Any, donor: str) -> Words:
    recipe = scopes.recipe.content
    if source is None:
        return Words()
    if source == "union" and recipe.slices is None:
        return Words(vocabulary="union")
    if source == "union":
        scopes.note(
            f"{key}: union: warmkit makes slices of equal vocabularies, whose union is the same; it refuses different ones"
        )
        return Words()
    if source == "base":
        if recipe.base_model is None:
            raise scopes.error(key, f"{key}: base needs a base_model")
        source = recipe.base_model
    model = reference(scopes, key, source).removeprefix("model:")
    return Words(vocabulary="init" if recipe.slices is None else None) if model == donor else Words(tokenizer=model)


def _row(scopes: Scopes, key: str, said: Any) -> dict[str, Any]:
    """Return where the row of a token comes from, as a recipe of warmkit says it."""
    parts = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    source = parts.get("source")
    if not parts or source is None or not parts.keys() <= {"source", "force"}:
        raise scopes.error("tokenizer.tokens", f"{key}: expected source and perhaps force, found {said!r}")
    force = {"force": True} if parts.get("force") else {}
    kind = cast("dict[str, Any]", source).get("kind") if isinstance(source, dict) else None
    if kind == "zero":
        return {"model": "zero", **force}
    if kind is None:
        return {"model": reference(scopes, "tokenizer.tokens", source), **force}
    names = {"token": "token", "token_id": "id"}
    row = {names[name]: value for name, value in source.items() if name in names and value is not None}
    if kind != "model_token" or not source.keys() <= {"kind", "model", *names} or len(row) != 1:
        raise scopes.error("tokenizer.tokens", f"{key}: expected kind zero, or model_token with model and token or token_id")
    return {"model": reference(scopes, "tokenizer.tokens", source.get("model")), **row, **force}


def chat_template(scopes: Scopes) -> str | None:
    """Return the chat template of a recipe.

    Raises:
        RecipeError: If it is one that comes with mergekit.
    """
    text = scopes.recipe.content.chat_template
    if text in TEMPLATES and not Path(text).is_file():
        raise scopes.error("chat_template", f"the template {text!r} comes with mergekit; give its text, or a path to it")
    return text or None
