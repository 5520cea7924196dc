"""`warmkit compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli import completions
from warmkit.cli.command import command, option, required
from warmkit.cli.console import Console, table
from warmkit.cli.output import check_picture, draw_picture
from warmkit.cli.shared_options import AllowPickle, Models, Stream, Threads
from warmkit.common.units import number
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.verbs.compare import Comparison


@command()
def compare(
    console: Console,
    models: Models,
    init: str = required("What the models were fine-tuned from.", show_default=False),
    granularity: str = option("layer", "layer, tensor or model.", autocompletion=completions.granularity),
    plot: Path | None = option(None, "Draw angles, cosines and norms (WARP, figure 11) into a picture."),
    threads: Threads = None,
    allow_pickle: AllowPickle = False,
    stream: Stream = False,
) -> None:
    """Measure norms and angles of task vectors and of full weights, group by group.

    Example:

    - `warmkit compare --init SFT A B C --plot angles.png`
    """
    from warmkit.report.runs.documents import compare_charts
    from warmkit.verbs.compare import compare as compare_checkpoints

    check_picture(plot)
    if plot is not None and len(models) < 2:
        raise UsageError("--plot compares pairs: give at least two models")
    with console.progress("comparing") as advance:
        how: dict[str, Any] = {"threads": threads, "allow_pickle": allow_pickle, "stream": stream}
        comparison = compare_checkpoints(models, init=init, granularity=granularity, **how, advance=advance)
    draw_picture(console, lambda: compare_charts(comparison.as_document()), plot)
    console.note(*comparison.notes)

    columns = ["group", "parameters", "pair", "angle of task vectors", "of weights", "norm ratio", "norms"]
    console.result(comparison.as_document(), table(None, columns, _rows(comparison)), comparison.summary())


def _rows(comparison: Comparison) -> list[list[str]]:
    """Return a row for every two models of a group; of one model a row a group."""
    return [
        [
            group.name if pair == 0 else "",
            number(group.parameters) if pair == 0 else "",
            f"{each.first} / {each.second}",
            *map(_number, (each.task_vector_angle, each.weight_angle, each.task_vector_norm_ratio)),
            f"{group.task_vector_norms[each.first_index]:.3g} / {group.task_vector_norms[each.second_index]:.3g}",
        ]
        for group in comparison.groups
        for pair, each in enumerate(group.pairs)
    ] or [
        [group.name, number(group.parameters), comparison.models[0], "", "", "", f"{group.task_vector_norms[0]:.3g}"]
        for group in comparison.groups
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
