"""Notes on the data of a training, before it begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from warmkit.data.prompts import read_prompts
from warmkit.modeling.quiet import loading
from warmkit.modeling.tokens import Encoder, Text, tokenizer_of
from warmkit.modeling.untemplated import note_on_texts

Tell: TypeAlias = Callable[[str], None]
"""Called with a line for the user."""

ANY = 8  # tokens: nothing is encoded
ADVICE = "data.chat: true makes chats of them, false leaves them as they are"


def tell_texts(tell: Tell | None, rows: Sequence[Sequence[Text]], encoder: Encoder, model: str, chat: bool | None) -> None:
    """Say how many rows of `data.train` are texts to a model of chats, where the recipe does not say that they should be."""
    note = note_on_texts(rows, "rows of data.train", [model] if encoder.templated else [], chat, ADVICE)
    if tell is not None and note is not None:
        tell(note)


def tell_prompts(tell: Tell | None, source: str, model: str, chat: bool | None) -> None:
    """Say the same of a file of prompts, where their model is loaded by others."""
    if tell is not None and chat is None:
        with loading(model):
            encoder = Encoder(tokenizer_of(model), ANY)
        prompts = read_prompts(source)
        tell_texts(tell, [(each.content,) for each in prompts], encoder, model, chat)
