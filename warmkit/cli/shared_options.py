"""The options that several commands share, each declared once."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from warmkit.cli import completions
from warmkit.errors import UsageError

METHOD_PANEL = "Parameters of methods"
INPUT_PANEL = "What is read"
TENSOR_PANEL = "Which tensors"
RESULT_PANEL = "What is written"
PLACE_PANEL = "Where it runs"

Models = Annotated[
    list[str], typer.Argument(metavar="MODEL", help="Directories, .safetensors files, Hub repositories or addresses.")
]
Init = Annotated[str | None, typer.Option("--init", help="What the models were fine-tuned from.")]
OutputPath = Annotated[Path, typer.Option("--output", "-o", help="Directory to create.", show_default=False)]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        rich_help_panel=INPUT_PANEL,
        help="Read Hub repositories by byte ranges; their weights never touch the disk.",
    ),
]
Eta = Annotated[
    str | None,
    typer.Option("--eta", help="LITI's update rate; several (0,0.3,1) write OUT/eta-0, OUT/eta-0.3, ... at once."),
]

AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        rich_help_panel=INPUT_PANEL,
        help="Also read what torch saved: .bin, .pt, .ckpt and distributed checkpoints.",
    ),
]


def output_options(
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            rich_help_panel=RESULT_PANEL,
            autocompletion=completions.dtype,
            help="float32, bfloat16, float16 or float64.",
            show_default="each tensor's own",
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option("--max-shard-size", rich_help_panel=RESULT_PANEL, help="Largest weight file.", show_default="5GB"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", rich_help_panel=PLACE_PANEL, help="Worker threads.", show_default="one a core")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", rich_help_panel=PLACE_PANEL, autocompletion=completions.device, help="cpu or cuda.", show_default="cpu"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint at OUT, in one step at the end.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            rich_help_panel=RESULT_PANEL,
            help="Go on where an interrupted run of the same command stopped.",
        ),
    ] = True,
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", rich_help_panel=INPUT_PANEL, help="Accept NaN and infinity in the weights.")
    ] = False,
    stream: Stream = False,
    sha256: Annotated[
        bool,
        typer.Option("--sha256", rich_help_panel=RESULT_PANEL, help="Record SHA-256 of every file; slower than the merge."),
    ] = False,
    allow_pickle: AllowPickle = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            rich_help_panel=INPUT_PANEL,
            help="Take doubts for errors: a model given twice, or equal to its init; a lambda of 30.",
        ),
    ] = False,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            "--vocabulary",
            rich_help_panel=TENSOR_PANEL,
            autocompletion=completions.vocabulary,
            help="Tokens of the result, where vocabularies differ: strict (refuse), union, init or common.",
            show_default="strict",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            rich_help_panel=TENSOR_PANEL,
            help="Merge only tensors with such names ('model.layers.*'); copy the others from the init, or from the first "
            "model. Repeatable.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            rich_help_panel=TENSOR_PANEL,
            help="Do not merge tensors with such names ('lm_head.*'); copy them from the init, or from the first model. "
            "Repeatable.",
        ),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads",
            rich_help_panel=TENSOR_PANEL,
            autocompletion=completions.heads,
            help="Heads of the result: init, or models (their mean, for reward models on an SFT init).",
            show_default="init",
        ),
    ] = None,
) -> None:
    """How results are written."""


def method_options(
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale", rich_help_panel=METHOD_PANEL, help="Factor of the merged task vector (lambda).", show_default="1"
        ),
    ] = None,
    density: Annotated[
        str | None,
        typer.Option(
            "--density",
            rich_help_panel=METHOD_PANEL,
            help="Share of each task vector that is kept: 0.5, or one per model.",
            show_default="the method's",
        ),
    ] = None,
    gamma: Annotated[
        str | None,
        typer.Option(
            "--gamma",
            rich_help_panel=METHOD_PANEL,
            help="Share of the largest elements that is left out; or one per model.",
            show_default="0.01",
        ),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(
            "--epsilon",
            rich_help_panel=METHOD_PANEL,
            help="DELLA: chances go this far from the density. RAM: the smallest change that counts. Or one per model.",
            show_default="the method's",
        ),
    ] = None,
    select_topk: Annotated[
        float | None,
        typer.Option(
            "--select-topk",
            rich_help_panel=METHOD_PANEL,
            help="Share of the elements to merge: those that vary most.",
            show_default="1",
        ),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize/--no-normalize",
            rich_help_panel=METHOD_PANEL,
            help="Divide by the sum of the coefficients.",
            show_default="the method's",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", rich_help_panel=METHOD_PANEL, help="Seed of the random masks.", show_default="0")
    ] = None,
    r: Annotated[
        float | None,
        typer.Option(
            "--r",
            rich_help_panel=METHOD_PANEL,
            help="RAM+: how much the changes of a single model are enlarged.",
            show_default="0.1",
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha", rich_help_panel=METHOD_PANEL, help="RAM+: largest ratio of shared to own changes.", show_default="0.2"
        ),
    ] = None,
) -> None:
    """Parameters of methods that edit task vectors; `warmkit methods` says which have them."""


def parameters_of(options: dict[str, Any]) -> dict[str, Any]:
    """Take the parameters of methods out of the options, lists parsed."""
    names = inspect.signature(method_options).parameters
    taken = {name: options.pop(name) for name in names}
    for name in ("density", "gamma", "epsilon"):
        values = numbers(taken[name], f"--{name}")
        taken[name] = values[0] if values is not None and len(values) == 1 else values
    return taken


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Drop what was not given on the command line, so that defaults live in one place, the library."""
    return {name: value for name, value in options.items() if value is not None}


def writing(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of `output_options` for the library: a dry run tells how long the run would take."""
    return {**given(options), "estimate": bool(options.get("dry_run"))}


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
