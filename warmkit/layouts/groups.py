"""Groups: the sets of tensors that share one angle."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal, get_args

from warmkit.errors import UsageError, nearest

Granularity = Literal["layer", "tensor", "model"]
GRANULARITIES: tuple[str, ...] = get_args(Granularity)

_LAYER = re.compile(r"^(?:[^.]+\.)*?\d+(?=\.|$)")


def layer_of(name: str) -> str:
    """Return the layer of a tensor: its name up to and including the first integer component.

    A name without one is a layer of its own.

    Examples:
        >>> layer_of("model.layers.3.mlp.up_proj.weight")
        'model.layers.3'
        >>> layer_of("lm_head.weight")
        'lm_head.weight'

    Source: WARP (Ramé et al., 2024), section 3.2: "SLERP is applied layer by layer".
    """
    match = _LAYER.match(name)
    return match.group() if match else name


_KEYS: dict[str, Callable[[str], str]] = {"layer": layer_of, "tensor": str, "model": lambda _: "model"}


def group(names: Iterable[str], granularity: str) -> dict[str, list[str]]:
    """Split tensor names into groups, in order of first appearance.

    Raises:
        UsageError: If `granularity` is not `layer`, `tensor` or `model`.
    """
    if granularity not in _KEYS:
        raise UsageError(f"unknown granularity {granularity!r}{nearest(granularity, GRANULARITIES)}")
    key = _KEYS[granularity]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups
