"""Note on plain texts that models of chats read: they know chats as their templates write them."""

from __future__ import annotations

from collections.abc import Sequence

from warmkit.modeling.tokens import Text


def note_on_texts(
    rows: Sequence[Sequence[Text]], what: str, models: Sequence[str], chat: bool | None, advice: str
) -> str | None:
    """Return a note where rows are texts, models have chat templates, and nobody said which of the two is wanted.

    Args:
        rows: The texts or chats of every row.
        what: They are.
        models: That have a chat template.
        chat: Whether texts should become chats, as a recipe or an option says; None where neither says so or otherwise.
        advice: How to say it.

    Examples:
        >>> note_on_texts([("2 + 2?", "4"), ("", "hi")], "pairs", ["rm"], None, "--chat")
        '2 of 2 pairs are texts, read without the chat template of rm (--chat)'
    """
    bare = sum(all(isinstance(each, str) for each in row) for row in rows)
    if not bare or not models or chat is not None:
        return None
    return f"{bare} of {len(rows)} {what} are texts, read without the chat template of {' and '.join(models)} ({advice})"
