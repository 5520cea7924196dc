"""`warmkit inspect`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from warmkit.cli.command import command
from warmkit.cli.console import Console, number, size, table
from warmkit.cli.options import AllowPickle, Stream


@command()
def inspect(
    console: Console,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Directory, .safetensors file or Hub repository.")],
    granularity: Annotated[str, typer.Option("--granularity", help="One row per layer, tensor or model.")] = "layer",
    allow_pickle: AllowPickle = False,
    stream: Stream = False,
) -> None:
    """Show what a checkpoint holds, from its headers.

    Example:

    - `warmkit inspect runs/sft --granularity tensor`
    """
    from warmkit.checkpoints.checkpoint import open_checkpoint
    from warmkit.checkpoints.groups import group

    checkpoint = open_checkpoint(path, allow_pickle=allow_pickle, stream=stream)
    rows: list[list[str]] = []
    for name, names in group(checkpoint, granularity).items():
        entries = [checkpoint.entries[each] for each in names]
        shape = " x ".join(map(str, entries[0].shape)) if len(entries) == 1 else f"{len(entries)} tensors"
        types = ", ".join(sorted({entry.dtype.name for entry in entries}))
        count = sum(entry.elements for entry in entries)
        rows.append([name, shape, types, number(count), size(sum(entry.nbytes for entry in entries))])
    for note in checkpoint.notes:
        console.note(note)
    config = checkpoint.config
    architecture = ", ".join(config.get("architectures") or []) or "no config.json"
    files = [file.name for file in checkpoint.files]
    document: dict[str, Any] = {
        "path": checkpoint.source if checkpoint.streamed else str(checkpoint.path),
        "architectures": config.get("architectures"),
        "parameters": checkpoint.parameters,
        "bytes": checkpoint.nbytes,
        "files": files,
        "tensors": {
            name: {"dtype": entry.dtype.name, "shape": entry.shape, "file": entry.file.name}
            for name, entry in checkpoint.entries.items()
        },
    }
    line = (
        f"{architecture}: {len(checkpoint)} tensors, {number(checkpoint.parameters)} parameters, {size(checkpoint.nbytes)} "
        f"in {len(files)} file{'s' if len(files) > 1 else ''}"
    )
    console.result(document, line, table(None, [granularity, "shape", "type", "parameters", "size"], rows))
