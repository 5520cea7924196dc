"""Regular expressions from files of others, matched in a time that the lengths bound.

Python's `re` goes back and tries again, for hours where an expression asks for it; RE2 follows all that may hold after a
character at once. What only one of the two knows, or reads otherwise than the other, is refused by name.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import re2

from warmkit.errors import UnsupportedError

_PLAIN = re.compile(r"\^?(?:[\w.\-]|\\\.)*\$?")
_ESCAPE = r"\\(?:[dDwWsS]|\W)"
_BRACKET = rf"\[\^?\]?(?:{_ESCAPE}|\[(?!:)|[^\]\[\\])*\]"
_SHARED = re.compile(rf"(?:{_BRACKET}|{_ESCAPE}|\(\?:|\((?!\?)|[^\[\\(])*")
_UP_TO = re.compile(rf"({_BRACKET}|{_ESCAPE})|\{{,(?=\d*\}})")  # `{,2}`, which RE2 reads as four characters


def ends_with(expression: str, name: str) -> bool:
    r"""Say whether an expression matches a dotted name, or its end after a dot: `re.match(r"(.*\.)?(EXPRESSION)$", name)`.

    Raises:
        re.error: If it is no expression.
        UnsupportedError: If it asks for more than RE2 follows, or RE2 could read it otherwise than `re`.

    Examples:
        >>> ends_with(r"layers\.[0-3]\.(q|k)_proj", "model.layers.2.k_proj"), ends_with("q", "model.xq")
        (True, False)
    """
    if _PLAIN.fullmatch(expression):
        return _plain(expression).match(name) is not None
    if not name.isascii() and "\\" in expression:
        raise _unsupported(expression, name)  # letters and digits are those of ASCII to RE2
    return _compiled(expression).fullmatch(name) is not None


@lru_cache(4096)
def _plain(expression: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({expression})$")


@lru_cache(256)
def _compiled(expression: str) -> Any:
    re.compile(expression)
    known = _SHARED.match(expression)
    if known is None or known.end() < len(expression):
        raise _unsupported(expression, expression[known.end() if known else 0 :][:8])
    how = re2.Options()
    how.log_errors = False
    try:
        return re2.compile(rf"(?:.*\.)?(?:{_UP_TO.sub(lambda found: found[1] or '{0,', expression)})", how)
    except re2.error as error:
        raise _unsupported(expression, error.args[0].decode()) from None


def _unsupported(expression: str, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"the expression {expression[:80]!r} has {what!r}, which is not followed here; write names, dots, brackets, groups and "
        "repetitions"
    )
