"""Functions that users name as `module:function`."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from warmkit.errors import UsageError

NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def import_function(name: str, what: str) -> Callable[..., Any]:
    """Import a function, from the working directory too.

    Args:
        name: `module:function`.
        what: What it is for, in messages.

    Raises:
        UsageError: If it cannot be imported, or is none.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{what} {name}: cannot be imported: {error}") from None
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise UsageError(f"{what} {name}: expected a function, found {type(function).__name__}")
    return function
