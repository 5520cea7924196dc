"""Charts over the layers of a model, in the order that a forward pass meets them, with names that fit below an axis."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from warmkit.report.chart import Chart

NAMED, LONGEST = 40, 16  # groups, and letters of a name, that an axis has room for
LAYER = re.compile(r"(.*?)\.?(\d+)")


def layered(
    name: str, title: str, rows: Sequence[Mapping[str, Any]], y: str, y_title: str, kind: str = "layer", **more: Any
) -> Chart:
    """Draw values of every group; rows name theirs in `group`.

    Args:
        name: Of the chart.
        title: Of the chart.
        rows: In any order.
        y: Column.
        y_title: Of the axis.
        kind: What groups are: layers, tensors.
        **more: Fields of `Chart`.
    """
    groups = sorted(dict.fromkeys(row["group"] for row in rows), key=_order)
    names = layer_names(groups)
    few = len(groups) <= NAMED and max(map(len, names), default=0) <= LONGEST
    places = {group: names[place] if few else place for place, group in enumerate(groups)}
    placed = sorted(({**row, kind: places[row["group"]]} for row in rows), key=lambda row: groups.index(row["group"]))
    x_title = kind if few else f"{kind}s, numbered in the order of the model"
    return Chart(name, title, placed, kind, y, x_title, y_title, tips=() if few else ("group",), **more)


def layer_names(groups: Sequence[str]) -> list[str]:
    """Return short names: the number of a layer, the last telling part of anything else.

    Examples:
        >>> layer_names(["model.embed_tokens.weight", "model.layers.0", "model.layers.1", "lm_head.weight"])
        ['embed_tokens', '0', '1', 'lm_head']
        >>> layer_names(["encoder.block.0", "decoder.block.0"])
        ['encoder.block 0', 'decoder.block 0']
    """
    found = [LAYER.fullmatch(group) for group in groups]
    stems = {each[1] for each in found if each}
    short = [
        (each[2] if len(stems) == 1 else f"{each[1]} {each[2]}") if each else group.removesuffix(".weight").rpartition(".")[2]
        for group, each in zip(groups, found)
    ]
    return (
        short if len(set(short)) == len(short) else [group.removeprefix("model.").removesuffix(".weight") for group in groups]
    )


def _order(group: str) -> tuple[int, list[tuple[int, str]]]:
    """Sort embeddings before the layers, and the last norm and the head after them; numbers by their size."""
    numbered = re.search(r"\.\d+(\.|$)", group) is not None
    kind = 1 if numbered else 0 if re.search("emb|wte|wpe", group) else 2 if re.search("norm|ln", group) else 3
    return kind, [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", group)]
