"""The command line: one function per verb, each in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import Annotated, Any

import typer

from warmkit._version import __version__
from warmkit.cli import (
    average,
    bon,
    compare,
    corrupt,
    demo,
    docstrings,
    ema,
    evaluate,
    extract_lora,
    front,
    inspect,
    label,
    liti,
    lmc,
    merge,
    methods,
    push,
    recipes,
    report,
    reproduce,
    score,
    search,
    soup,
    sxs,
    train,
    verify,
    warm,
    warp,
)
from warmkit.cli.command import Command
from warmkit.cli.usage import Commands

app = typer.Typer(
    name="warmkit",
    cls=Commands,
    help="Weight averaging for aligning language models: merge checkpoints of one architecture into a better one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Documentation: the folder docs/ of the repository. docs/quickstart.md to begin, docs/mergekit.md for recipes of "
    "mergekit, docs/troubleshooting.md for errors.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"warmkit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Weight averaging for aligning language models: merge checkpoints of one architecture into a better one."""


def _alias(name: str, of: str, text: str | None) -> str:
    own = cleandoc(text or "").replace(f"warmkit {of} ", f"warmkit {name} ")
    return f"The same as `warmkit {of}`.\n\n{own}"


_PANELS: dict[str, list[Callable[..., Any]]] = {
    "Merge": [
        merge.merge,
        liti.liti,
        soup.soup,
        average.average,
        ema.ema,
        search.search,
        extract_lora.extract_lora,
        methods.methods,
    ],
    "Look, check and share": [inspect.inspect, compare.compare, verify.verify, push.push, report.report],
    "Train": [warm.warm, warp.warp, recipes.recipes],
    "Evaluate": [front.front, bon.bon, sxs.sxs, lmc.lmc, score.score],
    "Preference data": [label.label, corrupt.corrupt, docstrings.docstrings],
    "Evidence": [demo.demo, reproduce.reproduce],
}

for panel, verbs in _PANELS.items():
    for verb in verbs:
        app.command(cls=Command, rich_help_panel=panel)(verb)
for name, of, verb in (("train-rm", "train rm", train.rm), ("train-policy", "train policy", train.policy)):
    app.command(name, cls=Command, help=_alias(name, of, verb.__doc__), rich_help_panel="Train")(verb)
app.add_typer(train.app, name="train", rich_help_panel="Train")
app.add_typer(evaluate.app, name="eval", rich_help_panel="Evaluate")


def main() -> None:
    """Run the command line."""
    app()
