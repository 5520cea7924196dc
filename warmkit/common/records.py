"""Files that warmkit writes for itself (summaries, metrics, manifests of steps, journals), read against the form they have.

A form says whether a value is what was written: `natural(3)`, `dict_of(number)({"loss": 0.5})`. A file of another form, damaged
or of another program, is refused in a line that names it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from warmkit.errors import CheckpointError, FormatError

Form: TypeAlias = Callable[[Any], bool]
Record: TypeAlias = dict[str, Any]


def read_record(file: Path, keys: Mapping[str, Form], cure: str = "") -> Record:
    """Read a JSON object of warmkit's own.

    Args:
        file: Where it lies.
        keys: Forms of the keys that it must hold; it may hold more.
        cure: What to do where it is of another form.

    Raises:
        CheckpointError: If it cannot be read.
        FormatError: If it is of another form.
    """
    return checked(parsed(_bytes(file), file, cure), keys, file, cure)


def read_lines(file: Path, keys: Mapping[str, Form], cure: str = "") -> list[Record]:
    """Read JSON lines of warmkit's own, as `read_record` reads a whole file; errors name the line."""
    return [
        checked(parsed(line, f"{file}:{number}", cure), keys, f"{file}:{number}", cure)
        for number, line in enumerate(_bytes(file).splitlines(), 1)
    ]


def parsed(content: bytes, place: object, cure: str = "") -> Any:
    """Parse JSON as this package writes it: infinity and NaN may stand in it.

    Raises:
        FormatError: If it is none.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(_said(f"{place}: expected JSON, found something else ({str(error)[:80]})", cure)) from None


def checked(value: Any, keys: Mapping[str, Form], place: object, cure: str = "") -> Record:
    """Return a value that is an object with these keys.

    Raises:
        FormatError: If it is not.
    """
    if not isinstance(value, dict):
        raise FormatError(_said(f"{place}: expected a JSON object, found {_kind(value)}", cure))
    for key, holds in keys.items():
        if not holds(value.get(key)):
            raise FormatError(_said(f"{place}: {key} is missing, or not what warmkit writes there", cure))
    return value


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None


def _said(what: str, cure: str) -> str:
    return f"{what}; {cure}" if cure else what


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


# ---- forms ----------------------------------------------------------------------------------------------------------


def is_anything(value: Any) -> bool:
    """Take any value, and one that is missing."""
    return True


def is_text(value: Any) -> bool:
    """Take a text."""
    return isinstance(value, str)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Take a number, which may be infinite or NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_natural(value: Any) -> bool:
    """Take a whole number from 0 up."""
    return type(value) is int and value >= 0


def maybe(holds: Form) -> Form:
    """Take what `holds` takes, null, and a value that is missing."""
    return lambda value: value is None or holds(value)


def list_of(holds: Form) -> Form:
    """Take a list of what `holds` takes."""
    return lambda value: isinstance(value, list) and all(map(holds, value))


def dict_of(holds: Form) -> Form:
    """Take an object whose values are what `holds` takes."""
    return lambda value: isinstance(value, dict) and all(map(holds, value.values()))


def having(**keys: Form) -> Form:
    """Take an object with these keys, and maybe more."""
    return lambda value: isinstance(value, dict) and all(holds(value.get(key)) for key, holds in keys.items())


def either(*forms: Form) -> Form:
    """Take what one of the forms takes."""
    return lambda value: any(holds(value) for holds in forms)


def is_matrix(value: Any) -> bool:
    """Take a list of lists of numbers, all of one length."""
    return list_of(list_of(is_number))(value) and len(set(map(len, value))) == 1
