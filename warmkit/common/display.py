"""Display of results: one line at Python's prompt, a small table in a notebook."""

from __future__ import annotations

import dataclasses
import html
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from warmkit.common.addresses import shown

MOST_NAMES = 4  # of a list, in a line
MOST_ROWS = 10
LONGEST_TEXT = 60  # characters of a prompt or an answer


class Displayed:
    """Base of what calls return: its `_facts` are a line or a table, its `_rows` a second table.

    Addresses are shown without signatures, control characters as escapes, and what looks like markup as text.
    """

    def _facts(self) -> Mapping[str, object]:
        """Return what is worth showing, by name, without what is None; by default the fields of a dataclass."""
        return {each.name.replace("_", " "): getattr(self, each.name) for each in dataclasses.fields(cast("Any", self))}

    def _rows(self) -> Sequence[Displayed | Mapping[str, object]]:
        """Return rows of the same columns."""
        return ()

    def __repr__(self) -> str:
        facts = [f"{shown(name)}: {_text(value)}" for name, value in self._facts().items() if value is not None]
        return f"<{type(self).__name__} {', '.join(facts)}>"

    def _repr_html_(self) -> str:
        facts = [(name, value) for name, value in self._facts().items() if value is not None]
        everything = self._rows()
        rows = [each._facts() if isinstance(each, Displayed) else each for each in everything[:MOST_ROWS]]
        columns = [name for name in (rows[0] if rows else ()) if any(row[name] is not None for row in rows)]
        more = len(everything) - len(rows)
        return (
            _table([type(self).__name__, ""], facts)
            + (_table(columns, [[row[name] for name in columns] for row in rows]) if rows else "")
            + (f"<p>and {more:,} more</p>" if more else "")
        )


def shortened(text: str) -> str:
    """Return the beginning of a long text.

    Examples:
        >>> shortened("a b c"), len(shortened("word " * 1000))
        ('a b c', 60)
    """
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 4]} ..."


def _text(value: Any) -> str:
    if isinstance(value, str | os.PathLike):
        return shown(cast("str", value))
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if hasattr(value, "shape"):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return _several(value) if isinstance(value, Mapping | Sequence) else shown(str(value))


def _several(values: Mapping[str, Any] | Sequence[Any]) -> str:
    if isinstance(values, Mapping):
        texts = [f"{name} {_text(each)}" if isinstance(each, str | int | float) else name for name, each in values.items()]
    else:
        texts = [_text(each) for each in values[: MOST_NAMES + 1]]
    if len(values) > MOST_NAMES:
        texts[MOST_NAMES:] = [f"and {len(values) - MOST_NAMES:,} more"]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [_line("th", columns), *(_line("td", row) for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def _line(tag: str, cells: Iterable[object]) -> str:
    return "<tr>" + "".join(f'<{tag} style="text-align: left">{html.escape(_text(each))}</{tag}>' for each in cells) + "</tr>"
