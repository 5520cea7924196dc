"""Printed result of the verbs that write a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from warmkit.cli.console import Console, table
from warmkit.common.units import duration, number, size
from warmkit.errors import OutputError

if TYPE_CHECKING:
    from warmkit.engine.estimate import Estimate
    from warmkit.engine.result import MergeResult


def show_several(console: Console, results: Sequence[MergeResult]) -> None:
    """Print merges that followed each other."""
    console.note(*dict.fromkeys(note for each in results for note in each.notes))
    console.result([_document(each) for each in results], *(part for each in results for part in _parts(each)))
    for each in results:
        _check_room(each)


def show(console: Console, result: MergeResult, **extra: Any) -> None:
    """Print a merge, or the plan of one."""
    console.note(*result.notes)
    console.result({**_document(result), **extra}, *_parts(result))
    _check_room(result)
    if console.verbose and result.groups and not console.json:
        console.result(None, _groups(result))


def _document(result: MergeResult) -> dict[str, Any]:
    from warmkit.engine.spec import written_apart

    keys = list(result.outputs)
    names = keys if any(isinstance(each, str) for each in keys) else written_apart(keys)
    return {**dataclasses.asdict(result), "outputs": dict(zip(names, result.outputs.values()))}


def _parts(result: MergeResult) -> list[Any]:
    return _written(result) if result.written else _plan(result)


def _check_room(result: MergeResult) -> None:
    if result.lacking:
        raise OutputError(f"{result.path}: the disk lacks {size(result.lacking)}; free some space, or choose another -o")


def _written(result: MergeResult) -> list[Any]:
    angle = f", mean angle {result.mean_angle:.1f} degrees" if result.mean_angle is not None else ""
    again = f" ({result.resumed} tensors were there from an interrupted run)" if result.resumed else ""
    places = [str(path) for path in result.outputs.values()]
    what = f"{result.method}: {number(result.parameters)} parameters{angle}"
    return [f"{what}, {size(result.bytes_written)} written in {result.seconds:.2f} s{again}", *places]


def _plan(result: MergeResult) -> list[Any]:
    rows = [[str(path), name, size(count)] for path in result.outputs.values() for name, count in result.files.items()]
    what = f"{result.method}: {number(result.parameters)} parameters"
    network = f", {size(result.bytes_streamed)} of it over the network at most," if result.bytes_streamed else ""
    return [
        f"{what}; would read {size(result.bytes_read)}{network} and write {size(result.bytes_written)}",
        *([_duration(result.estimate)] if result.estimate else []),
        table(None, ["directory", "file", "size"], rows),
    ]


def _duration(found: Estimate) -> str:
    """Say how long a merge would take, and from what that is known."""
    speed, sample = f"{size(found.bytes_per_second)}/s", size(found.sampled)
    return f"about {duration(found.seconds)} at {speed}, read and written together (measured on {sample} of this merge)"


def _groups(result: MergeResult) -> Any:
    rows = [
        [
            group.name,
            number(group.parameters),
            " ".join(f"{coefficient:.4f}" for coefficient in group.coefficients),
            " ".join(f"{norm:.3g}" for norm in group.norms or []),
            " ".join(
                f"{angle:.1f}" for i, line in enumerate(group.angles or []) for angle in line[i + 1 :] if angle is not None
            ),
        ]
        for group in result.groups
    ]
    return table(None, ["group", "parameters", "coefficients", "norms", "angles"], rows)
