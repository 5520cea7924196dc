"""The command line: one function per verb, each in a file of its own."""

from __future__ import annotations

from inspect import cleandoc
from typing import Annotated

import typer

from warmkit._version import __version__
from warmkit.cli import (
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
    merge_part,
    methods,
    push,
    recipes,
    report,
    reproduce,
    score,
    soup,
    sxs,
    train,
    verify,
    warm,
    warp,
)
from warmkit.cli.usage import Commands

app = typer.Typer(
    name="warmkit",
    cls=Commands,
    help="Weight averaging for aligning language models: merge checkpoints of one architecture into a better one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
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


for verb in (merge.merge, liti.liti, soup.soup, ema.ema, compare.compare, inspect.inspect, verify.verify, methods.methods):
    app.command(verb.__name__)(verb)
app.command("merge-part", hidden=True)(merge_part.merge_part)
app.command("push")(push.push)
app.command("recipes")(recipes.recipes)
app.command("extract-lora")(extract_lora.extract_lora)
app.add_typer(train.app, name="train")
app.command("train-rm", help=_alias("train-rm", "train rm", train.rm.__doc__))(train.rm)
app.command("train-policy", help=_alias("train-policy", "train policy", train.policy.__doc__))(train.policy)
app.command("warm")(warm.warm)
app.command("warp")(warp.warp)
app.add_typer(evaluate.app, name="eval")
app.command("front")(front.front)
app.command("reproduce")(reproduce.reproduce)
app.command("report")(report.report)
for verb in (bon.bon, sxs.sxs, lmc.lmc, score.score, label.label, corrupt.corrupt, docstrings.docstrings, demo.demo):
    app.command(verb.__name__)(verb)


def main() -> None:
    """Run the command line."""
    app()
