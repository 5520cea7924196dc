"""The tokenizer and the chat template that a merge writes, where they are not those that lie beside the donor's weights."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from warmkit.common.addresses import shown
from warmkit.common.json_files import dump_json, read_object
from warmkit.errors import FormatError, UsageError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.layouts.companions import refuse_link_out
from warmkit.sources.model_index import stays_inside
from warmkit.sources.small_files import TEMPLATE, TOKENIZER_CONFIG, TOKENIZER_FILES

AUTO = "auto"


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one model.

    Attributes:
        base: The tokenizer's own tokens, with their ids.
        added: What was added to them: content, special or not, id; as `tokenizer.json` lists it.
    """

    base: dict[str, int]
    added: tuple[Mapping[str, Any], ...]

    @cached_property
    def ids(self) -> dict[str, int]:
        return {**self.base, **{token["content"]: token["id"] for token in self.added}}


def read_vocabulary_file(path: Path) -> Vocabulary:
    """Read the tokens of a `tokenizer.json`.

    Raises:
        FormatError: If it is of another form, or an id is larger than its bytes can justify: a table of ids takes memory.
    """
    content, size = read_object(path), path.stat().st_size
    model, added = content.get("model") or {}, content.get("added_tokens") or []
    tokens: Any = model.get("vocab") or {} if isinstance(model, dict) else None
    if isinstance(tokens, list):  # unigram models list [token, score] in the order of their ids
        rows = [row[0] if isinstance(row, list) and row else None for row in tokens]
        tokens = {row: place for place, row in enumerate(rows)} if all(isinstance(row, str) for row in rows) else None
    if not isinstance(tokens, dict) or not isinstance(added, list):
        raise FormatError(f"{path}: expected a tokenizer with model.vocab and added_tokens")
    if not all(isinstance(token, dict) and isinstance(token.get("content"), str) for token in added):
        raise FormatError(f"{path}: added_tokens: expected objects with content and id")
    named: list[tuple[str, Any]] = [*tokens.items(), *((token["content"], token.get("id")) for token in added)]
    for token, place in named:
        if type(place) is not int or not 0 <= place < size:
            raise FormatError(f"{path}: the id of token {token[:60]!r}: expected a number from 0 on, found {repr(place)[:60]}")
    return Vocabulary(tokens, tuple(added))


def find_tokenizer(name: str, checkpoints: Sequence[Checkpoint]) -> Path:
    """Return the directory of the input whose tokenizer is asked for; that its vocabulary fits was checked with the rest.

    Raises:
        UsageError: If it is none of the inputs, or has no tokenizer.
    """
    sources = [each for each in checkpoints if each.source == shown(name) or each.path == Path(name)]
    if not sources:
        known = ", ".join(each.source for each in checkpoints)
        raise UsageError(f"tokenizer: expected one of the models of the merge ({known}), found {shown(name)!r}")
    home = sources[0].tokenizer_home
    if home is None or not any((home / file).is_file() for file in TOKENIZER_FILES):
        raise UsageError(f"tokenizer: {shown(name)} has no tokenizer files")
    for file in TOKENIZER_FILES:
        refuse_link_out(home / file, home)
    return home


def find_template(text: str, checkpoints: Sequence[Checkpoint]) -> str | None:
    """Return a chat template: `auto` is the one that most inputs have; a path is read; any other text is the template itself.

    Returns:
        The template; None if `auto` finds none.

    Raises:
        UsageError: If the text is neither a template nor a file.
    """
    if text == AUTO:
        found = [template for each in checkpoints if (template := _template_of(each.tokenizer_home))]
        return Counter(found).most_common(1)[0][0] if found else None
    if "{" in text:
        return text
    if Path(text).is_file():
        return _text(Path(text))
    raise UsageError(f"chat_template: expected auto, a Jinja template or the path of one, found {text!r}")


def lost_template(donor: Checkpoint, checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return a note where models write chats by a template, and the tokenizer that the result gets has none."""
    if _known_template(donor):
        return []
    found = [each.source for each in checkpoints if _known_template(each)]
    lost = f"{donor.source}, whose tokenizer the result gets, has no chat template, and {found[0]} has" if found else ""
    return [f"{lost}; a recipe's output.chat_template: auto writes it"] if lost else []


def _known_template(checkpoint: Checkpoint) -> str | None:
    with contextlib.suppress(FormatError, UsageError):  # who needs it says what is wrong with it
        return _template_of(checkpoint.tokenizer_home)
    return None


def template_of_recipe(text: str | None, recipe: Path, models: Sequence[str]) -> Path | None:
    """Return the file that a recipe names as its chat template; None where it names none.

    A recipe may come from somebody else, and the file's content goes into the result: so it must lie beside the recipe, or in
    one of the models.

    Raises:
        UsageError: If it lies anywhere else.
    """
    if text is None or text == AUTO or "{" in text or not Path(text).is_file():
        return None
    homes = [recipe.parent, *(Path(model) for model in models if "://" not in model)]
    if any(stays_inside(Path(text), home) for home in homes if home.is_dir()):
        return Path(text)
    raise UsageError(f"chat_template: {text} lies neither beside the recipe nor in a model; copy it there")


def _template_of(home: Path | None) -> str | None:
    if home is None:
        return None
    for file in (TEMPLATE, TOKENIZER_CONFIG):
        refuse_link_out(home / file, home)
    if (home / TEMPLATE).is_file():
        return _text(home / TEMPLATE).strip() or None
    template: Any = _read(home / TOKENIZER_CONFIG).get("chat_template")
    if isinstance(template, list):  # several, by name
        named = [each for each in template if isinstance(each, dict)]
        template = next((each.get("template") for each in named if each.get("name") == "default"), None)
    return template.strip() if isinstance(template, str) else None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"chat_template: {path} cannot be read: {error}") from None


def write_template(template: str, target: Path) -> None:
    """Write a chat template where new readers look for it, and where old ones do."""
    (target / TEMPLATE).write_text(template, "utf-8")
    config = _read(target / TOKENIZER_CONFIG)
    if config:
        (target / TOKENIZER_CONFIG).write_bytes(dump_json({**config, "chat_template": template}))


def _read(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}
