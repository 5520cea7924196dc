"""The options that several commands share, each declared once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmkit.cli import completions
from warmkit.cli.command import option
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.merging.parameters import Parameter

METHOD_PANEL = "Parameters of methods"
INPUT_PANEL = "What is read"
TENSOR_PANEL = "Which tensors"
RESULT_PANEL = "What is written"
PLACE_PANEL = "Where it runs"

MODELS = "Directories, .safetensors files, Hub repositories or addresses."

Models = Annotated[list[str], typer.Argument(metavar="MODEL", help=MODELS)]
OutputPath = Annotated[Path, typer.Option("--output", "-o", help="Directory to create.", show_default=False)]
Granularity = Annotated[
    str | None,
    typer.Option(
        "--granularity",
        help="What is merged as one vector, with one angle or ranking: each layer, each tensor, or the model.",
        show_default="the method's",
        autocompletion=completions.granularity,
        rich_help_panel=METHOD_PANEL,
    ),
]
Antiparallel = Annotated[
    str | None,
    typer.Option(
        "--antiparallel",
        help="Where task vectors are opposite: stop with an error, or use lerp.",
        show_default="error",
        autocompletion=completions.antiparallel,
        rich_help_panel=METHOD_PANEL,
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", help="Worker threads.", show_default="one a core")]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        rich_help_panel=INPUT_PANEL,
        help="Read Hub repositories by byte ranges; their weights never touch the disk.",
    ),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        rich_help_panel=INPUT_PANEL,
        help="Also read what torch saved: .bin, .pt, .ckpt, distributed checkpoints, ZeRO.",
    ),
]
StateDict = Annotated[
    str | None,
    typer.Option(
        "--state-dict",
        metavar="KEY",
        rich_help_panel=INPUT_PANEL,
        help="Which to read of several in a file: state_dict_ema, ema_model, keys with dots between them.",
        show_default="the model's",
    ),
]


@dataclass(eq=False, repr=False)
class Reading:
    """How the inputs of a merge are read, and which of their tensors."""

    threads: int | None = option(None, "Worker threads.", rich_help_panel=PLACE_PANEL, show_default="one a core")
    allow_nonfinite: bool = option(False, "Accept NaN and infinity in the weights.", rich_help_panel=INPUT_PANEL)
    stream: Stream = False
    allow_pickle: AllowPickle = False
    state_dict: StateDict = None
    strict: bool = option(
        False, "Take doubts for errors: a model given twice, or equal to its init; a lambda of 30.", rich_help_panel=INPUT_PANEL
    )
    vocabulary: str | None = option(
        None,
        "Tokens of the result, where vocabularies differ: strict (refuse), union, init or common.",
        rich_help_panel=TENSOR_PANEL,
        autocompletion=completions.vocabulary,
        show_default="strict",
    )
    pad_to_multiple_of: int | None = option(
        None,
        "Make the number of rows of embedding and head a multiple of N; those beyond the tokens are the mean of the others.",
        metavar="N",
        rich_help_panel=TENSOR_PANEL,
    )
    only: list[str] | None = option(
        None,
        "Merge only tensors with such names ('model.layers.*'); copy the others from the init, or from the first model. "
        "Repeatable.",
        rich_help_panel=TENSOR_PANEL,
    )
    exclude: list[str] | None = option(
        None,
        "Do not merge tensors with such names ('lm_head.*'); copy them from the init, or from the first model. Repeatable.",
        rich_help_panel=TENSOR_PANEL,
    )
    layout: str | None = option(
        None,
        "Names and shapes of the result: canonical (as transformers 5 writes them) or memory (as it holds them).",
        rich_help_panel=TENSOR_PANEL,
        autocompletion=completions.layout,
        show_default="those of the init or first model",
    )
    heads: str | None = option(
        None,
        "Heads of the result: init, or models (their mean, for reward models on an SFT init).",
        rich_help_panel=TENSOR_PANEL,
        autocompletion=completions.heads,
        show_default="init",
    )


@dataclass(eq=False, repr=False)
class Writing(Reading):
    """How a model is read, computed and written."""

    dtype: str | None = option(
        None,
        "float32, bfloat16, float16 or float64.",
        rich_help_panel=RESULT_PANEL,
        autocompletion=completions.dtype,
        show_default="each tensor's own",
    )
    container: str | None = option(
        None,
        "Form of the result: safetensors, or same: as the trainer wrote the inputs, or quantised again as they are.",
        "--as",
        rich_help_panel=RESULT_PANEL,
        autocompletion=completions.container,
        show_default="safetensors",
    )
    optimizer: str | None = option(
        None,
        "Of --as same: the optimizer's state: average (its moments), or keep (that of the first model, or newest checkpoint).",
        rich_help_panel=RESULT_PANEL,
        autocompletion=completions.optimizer,
        show_default="left out",
    )
    max_shard_size: str | None = option(None, "Largest weight file.", rich_help_panel=RESULT_PANEL, show_default="5GB")
    device: str | None = option(
        None, "cpu or cuda.", rich_help_panel=PLACE_PANEL, autocompletion=completions.device, show_default="cpu"
    )
    dry_run: bool = option(False, "Check everything, print the plan, write nothing.")
    force: bool = option(False, "Replace a checkpoint at OUT, in one step at the end.")
    resume: bool = option(
        True,
        "Go on where an interrupted run of the same command stopped.",
        "--resume/--no-resume",
        rich_help_panel=RESULT_PANEL,
    )
    sha256: bool = option(False, "Record SHA-256 of every file; slower than the merge.", rich_help_panel=RESULT_PANEL)

    def keywords(self) -> dict[str, Any]:
        """Return what was given, for the library; a dry run tells how long the run would take."""
        return {**given(vars(self)), "estimate": self.dry_run}


class MethodParameters:
    """Options for the parameters that merge methods have of their own, as the methods declare them."""

    def __init__(self, **given: Any) -> None:
        self._given = given

    @staticmethod
    def options() -> list[inspect.Parameter]:
        """Return an option for every parameter that some method has."""
        from warmkit.merging.methods import parameters_by_name

        return [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_own_option(name, methods))
            for name, methods in parameters_by_name().items()
        ]

    def given(self) -> dict[str, Any]:
        """Return the parameters that the command line gives, lists parsed."""
        from warmkit.merging.methods import parameters_by_name

        taken = given(self._given)
        for name, methods in parameters_by_name().items():
            if next(iter(methods.values())).per_model and (values := numbers(taken.get(name), f"--{name}")):
                taken[name] = values[0] if len(values) == 1 else values
        return taken


def _own_option(name: str, methods: Mapping[str, Parameter]) -> Any:
    """Return the option of a parameter, which several methods may have with defaults and words of their own."""
    first, defaults = next(iter(methods.values())), {each.default for each in methods.values()}
    option = f"--{name.replace('_', '-')}"
    shown = f"{next(iter(defaults)):g}" if len(defaults) == 1 else "the method's"
    told = typer.Option(
        f"{option}/--no-{option[2:]}" if first.kind is bool else option,
        help=_own_help(methods),
        show_default=shown,
        rich_help_panel=METHOD_PANEL,
    )
    return Annotated[(str if first.per_model else first.kind) | None, told]


def _own_help(methods: Mapping[str, Parameter]) -> str:
    """Return the words of all methods that have a parameter; one whose docstring refers to another has those before it."""
    by_words, words = dict[str, list[str]](), ""
    for method, each in methods.items():
        words = each.words.rstrip(".") or words
        by_words.setdefault(words, []).append(method)
    named = len(by_words) > 1 or len(methods) < 3
    said = [f"{', '.join(names)}: {words[0].lower()}{words[1:]}" if named else words for words, names in by_words.items()]
    return f"{'. '.join(said)}{'; or one per model' if next(iter(methods.values())).per_model else ''}."


def given(options: Mapping[str, Any]) -> dict[str, Any]:
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
