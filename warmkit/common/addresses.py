"""Addresses and names as they may be written down: without signatures and passwords, without what a terminal would obey."""

from __future__ import annotations

import os
import re
import unicodedata

from warmkit.errors import UsageError

_SCHEME = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)"
_ADDRESS = re.compile(_SCHEME + r"(?:[^\s/?#'\"@]*:[^\s/?#'\"]*@)?(?P<place>[^\s?#'\"<>]*)(?:[?#][^\s'\"<>]*)?")
_NETLOC = re.compile(_SCHEME + r"(?P<netloc>[^/?#\s]*)(?P<rest>[^?#\s]*)")
_ASSIGNED = re.compile(r"(?i)\b(\w*(?:key|token|secret|passwo?r?d|credential)\w*)=(\"[^\"]*\"|'[^']*'|[^\s;&|]+)")
# Their user part is a container: abfss://container@account.dfs.core.windows.net/path
_CONTAINERS = ("abfs://", "abfss://", "az://", "adl://", "wasb://", "wasbs://")
STRUCK_OUT = "[secret]"
_DIRECTIONS = frozenset(map(chr, (0x200E, 0x200F, 0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))


def without_secrets(text: str) -> str:
    """Return a text with every address in it cut at its query, and without user and password.

    Examples:
        >>> without_secrets("cannot read https://host/model?X-Signature=abc (HTTP 403)")
        'cannot read https://host/model (HTTP 403)'
    """
    return _ADDRESS.sub(r"\g<scheme>\g<place>", text)


def without_assigned_secrets(text: str) -> str:
    """Return a shell command without what it assigns to names like API_KEY, and without the secrets of its addresses.

    Examples:
        >>> without_assigned_secrets("API_KEY=abc python score.py {}")
        'API_KEY=[secret] python score.py {}'
    """
    return without_secrets(_ASSIGNED.sub(rf"\1={STRUCK_OUT}", text))


def refuse_password(source: str) -> None:
    """Refuse an address that holds a user or a password: what is read is written into cards and manifests.

    Raises:
        UsageError: If it does; the message does not repeat it.
    """
    for match in _NETLOC.finditer(source):
        netloc, scheme = match["netloc"], match["scheme"].lower()
        user = "@" in netloc and not (scheme in _CONTAINERS and ":" not in netloc)
        port = netloc.rpartition("]")[2].partition(":")[2]
        slashed = bool(port) and not port.isdigit() and "@" in match["rest"]  # a password with a slash in it
        if user or slashed:
            raise UsageError(
                f"{scheme}...: expected an address without user and password: they would be written into the manifest; "
                "credentials come from where the store's package looks for them"
            )


def shown(source: str | os.PathLike[str]) -> str:
    """Return a path, repository or address as it may be written down: without secrets, and printable.

    Examples:
        >>> shown("https://host/model?sig=abc"), shown("runs/a")
        ('https://host/model', 'runs/a')
    """
    text = os.fspath(source)
    return printable(without_secrets(text) if "://" in text else text)


def markdown_code(text: str) -> str:
    r"""Return a name as code in markdown, also in a cell of a table, whatever stands in it.

    Examples:
        >>> markdown_code("runs/a"), markdown_code("a`b|c")
        ('`runs/a`', '``a`b\\|c``')
    """
    text = printable(text).replace("|", "\\|")
    runs = re.findall(r"`+", text)
    fence = "`" * (1 + max(map(len, runs), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def printable(text: str, keep: str = "") -> str:
    r"""Return a text whose control characters, and bytes that are no UTF-8, are written as escapes.

    Args:
        text: Any text.
        keep: Control characters that stay.

    Examples:
        >>> printable("a\x1b[31mb"), printable("caf\udce9")
        ('a\\x1b[31mb', 'caf\\xe9')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if each in keep or not _obeyed(each) else _escaped(each) for each in text)


def json_escaped(character: str) -> str:
    """Return a character as it can stand in printed JSON."""
    return f"\\u{ord(character):04x}" if _obeyed(character) else character


def _obeyed(character: str) -> bool:
    """Say whether a terminal would do something else than show a character: controls, surrogates, directions of writing."""
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or character in _DIRECTIONS


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as Python keeps it in paths
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
