"""`warmkit inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warmkit.cli import completions
from warmkit.cli.command import argument, command, option
from warmkit.cli.console import Console, table
from warmkit.cli.shared_options import AllowPickle, StateDict, Stream
from warmkit.common.units import number, size

if TYPE_CHECKING:
    from warmkit.formats.checkpoint import Checkpoint


@command()
def inspect(
    console: Console,
    path: str = argument("PATH", "Directory, .safetensors file or Hub repository."),
    granularity: str = option("layer", "One row per layer, tensor or model.", autocompletion=completions.granularity),
    allow_pickle: AllowPickle = False,
    state_dict: StateDict = None,
    stream: Stream = False,
) -> None:
    """Show what a checkpoint holds, from its headers; of a merged model also what it was made of.

    Example:

    - `warmkit inspect runs/sft --granularity tensor`
    """
    from warmkit.layouts.groups import group
    from warmkit.layouts.opening import open_checkpoint

    checkpoint = open_checkpoint(path, allow_pickle=allow_pickle, stream=stream, state_dict=state_dict)
    merged = _merged(checkpoint, console)
    rows: list[list[str]] = []
    for name, names in group(checkpoint, granularity).items():
        entries = [checkpoint.entries[each] for each in names]
        shape = " x ".join(map(str, entries[0].shape)) if len(entries) == 1 else f"{len(entries)} tensors"
        types = ", ".join(sorted({entry.dtype.name for entry in entries}))
        count = sum(entry.elements for entry in entries)
        rows.append([name, shape, types, number(count), size(sum(entry.nbytes for entry in entries))])
    console.note(*checkpoint.notes)
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
        "merged": merged,
    }
    line = (
        f"{architecture}: {len(checkpoint)} tensors, {number(checkpoint.parameters)} parameters, {size(checkpoint.nbytes)} "
        f"in {len(files)} file{'s' if len(files) > 1 else ''}"
    )
    made = [] if merged is None else [_made(merged)]
    console.result(document, line, *made, table(None, [granularity, "shape", "type", "parameters", "size"], rows))


def _merged(checkpoint: Checkpoint, console: Console) -> dict[str, Any] | None:
    """Return what the manifest beside the weights says of a merge; None where there is none that can be read."""
    from warmkit.engine.manifest import MANIFEST, GroupReport, mean_angle, read_manifest
    from warmkit.errors import FormatError

    if checkpoint.streamed or not (checkpoint.path / MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(checkpoint.path)
    except FormatError as error:
        console.note(str(error))
        return None
    return {
        "method": manifest["method"],
        "models": [model["source"] for model in manifest["models"]],
        "init": manifest["init"] and manifest["init"]["source"],
        "eta": manifest["parameters"].get("eta"),
        "mean_angle": mean_angle([GroupReport(**group) for group in manifest["groups"]]),
    }


def _made(merged: dict[str, Any]) -> str:
    parts = [f"merged by {merged['method']} from {', '.join(merged['models'])}"]
    parts += [f"init {merged['init']}"] if merged["init"] else []
    parts += [f"eta {merged['eta']:g}"] if merged["eta"] is not None else []
    parts += [f"mean angle {merged['mean_angle']:.1f} degrees"] if merged["mean_angle"] is not None else []
    return "; ".join(parts)
