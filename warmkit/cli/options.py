"""The options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from warmkit.errors import UsageError

Models = Annotated[
    list[str], typer.Argument(metavar="MODEL", help="Directories, .safetensors files, Hub repositories or addresses.")
]
Init = Annotated[str | None, typer.Option("--init", help="What the models were fine-tuned from.")]
OutputPath = Annotated[Path, typer.Option("--output", "-o", help="Directory to create.", show_default=False)]
Stream = Annotated[
    bool, typer.Option("--stream", help="Read Hub repositories by byte ranges; their weights never touch the disk.")
]
Eta = Annotated[
    str | None,
    typer.Option("--eta", help="LITI's update rate; several (0,0.3,1) write OUT/eta-0, OUT/eta-0.3, ... at once."),
]


def output_options(
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="float32, bfloat16, float16 or float64.", show_default="each tensor's own"),
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option("--max-shard-size", help="Largest weight file.", show_default="5GB")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="Worker threads.", show_default="one a core")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda.", show_default="cpu")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint at OUT, in one step at the end.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where an interrupted run of the same command stopped.")
    ] = True,
    allow_nonfinite: Annotated[bool, typer.Option("--allow-nonfinite", help="Let NaN and infinity pass.")] = False,
    stream: Stream = False,
    sha256: Annotated[bool, typer.Option("--sha256", help="Record SHA-256 of every file; slower than the merge.")] = False,
) -> None:
    """How results are written."""


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Drop what was not given on the command line, so that defaults live in one place, the library."""
    return {name: value for name, value in options.items() if value is not None}


def numbers(text: str | None, option: str) -> list[float] | None:
    """Parse `0.5,0.3,0.2`.

    Raises:
        UsageError: If a part is no number.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option}: expected numbers with commas between them, found {text!r}") from None


def etas(text: str | None) -> float | list[float] | None:
    """Parse one eta, or several."""
    parsed = numbers(text, "--eta")
    return parsed[0] if parsed is not None and len(parsed) == 1 else parsed
