"""The table of places that models are streamed from: a kind of address, and what opens it.

A place is one file of this folder and one row here, with its test and its row on the page of inputs. Models on a disk, and
repositories of the Hub that are fetched first, are paths: `hub.resolve` finds them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from warmkit.sources.remote import Remote
from warmkit.sources.remote_hub import open_hub
from warmkit.sources.remote_store import open_store
from warmkit.sources.remote_web import open_web


@dataclass(frozen=True)
class Place:
    """Where models may be streamed from.

    Attributes:
        name: In a few words.
        schemes: What its addresses begin with, before `://`; "" is `owner/name`. None: all that no other row has.
        open: Opens an address.
    """

    name: str
    schemes: tuple[str, ...] | None
    open: Callable[[str], Remote]


PLACES = (
    Place("web server", ("http", "https"), open_web),
    Place("Hugging Face Hub", ("", "hf"), open_hub),
    Place("object store", None, open_store),
)


def is_streamed(source: str, stream: bool) -> bool:
    """Say whether a source is read over a network while it is merged: what has an address always is, the Hub on request."""
    scheme, separator, _ = source.partition("://")
    if separator and scheme == "package":
        return False  # a folder of an installed package, which is here
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        return stream and not Path(source).expanduser().exists()
    return scheme != "hf" or stream


def open_remote(source: str) -> Remote:
    """Open a checkpoint for streaming: its small files, and the beginning of every weight file.

    Args:
        source: `http://` or `https://` and a model directory or one `.safetensors` file; `hf://owner/name[@revision]`, or
            `owner/name`; any other address is fsspec's.

    Raises:
        CheckpointError: If it is not there, cannot be read by ranges, or is of a kind that is refused.
    """
    scheme = source.partition("://")[0] if "://" in source else ""
    return next(place for place in PLACES if place.schemes is None or scheme in place.schemes).open(source)
