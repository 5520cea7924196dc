"""`warmkit compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmkit.cli import completions
from warmkit.cli.command import command, option
from warmkit.cli.console import Console, table
from warmkit.cli.output import check_picture, draw_picture
from warmkit.cli.shared_options import MODELS, AllowPickle, StateDict, Stream, Threads
from warmkit.common.units import number
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.verbs.compare import Comparison


@command()
def compare(
    console: Console,
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL", help=MODELS, show_default=False)] = None,
    init: str | None = option(None, "What the models were fine-tuned from.", show_default="of a run, its first checkpoint"),
    run: str | None = option(None, "Training directory whose checkpoints are compared, in place of models."),
    granularity: str = option("layer", "layer, tensor or model.", autocompletion=completions.granularity),
    plot: Path | None = option(None, "Draw angles, cosines and norms (WARP, figure 11) into a picture."),
    threads: Threads = None,
    allow_pickle: AllowPickle = False,
    state_dict: StateDict = None,
    stream: Stream = False,
) -> None:
    """Measure norms and angles of task vectors and of full weights, group by group; or how a run moved, step by step.

    Examples:

    - `warmkit compare --init SFT A B C --plot angles.png`
    - `warmkit compare --run RUN --init SFT --plot run.png`
    """
    from warmkit.report.runs.documents import compare_charts
    from warmkit.verbs.compare import compare as compare_checkpoints

    check_picture(plot)
    how: dict[str, Any] = {"threads": threads, "stream": stream, "granularity": granularity}
    how |= {"allow_pickle": allow_pickle, "state_dict": state_dict}
    if run is not None:
        _compare_run(console, run, init, models, plot, how)
        return
    if not models or init is None:
        lacking = "--init (what the models were fine-tuned from)" if models else "MODEL (directories, files or repositories)"
        example = "warmkit compare --init SFT A B C --plot angles.png"
        raise UsageError(f"warmkit compare: expected {lacking}; for example: {example}")
    if plot is not None and len(models) < 2:
        raise UsageError("--plot compares pairs: give at least two models")
    with console.progress("comparing") as advance:
        comparison = compare_checkpoints(models, init=init, **how, advance=advance)
    draw_picture(console, lambda: compare_charts(comparison.as_document()), plot)
    console.note(*comparison.notes)

    columns = ["group", "parameters", "pair", "angle of task vectors", "of weights", "norm ratio", "norms"]
    console.result(comparison.as_document(), table(None, columns, _rows(comparison)), comparison.summary())


def _compare_run(
    console: Console, run: str, init: str | None, models: list[str] | None, plot: Path | None, how: dict[str, Any]
) -> None:
    from warmkit.report.runs.documents import run_charts
    from warmkit.verbs.run_shape import run_shape

    if models:
        raise UsageError(f"--run names the checkpoints; leave out {models[0]!r}")
    with console.progress("comparing") as advance:
        shape = run_shape(run, init=init, **how, advance=advance)
    document = shape.as_document()
    draw_picture(console, lambda: run_charts(document), plot)
    console.note(*shape.comparison.notes)
    rows = [
        [f"{step:g}", checkpoint, f"{far:.4g}", f"{moved:.4g}", "" if turn is None else f"{turn:.1f}"]
        for step, checkpoint, far, moved, turn in zip(shape.steps, shape.checkpoints, shape.distances, shape.moves, shape.turns)
    ]
    columns = ["step", "checkpoint", "distance from the init", "moved since the last", "turned, degrees"]
    console.result(document, table(None, columns, rows), shape.summary())


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
