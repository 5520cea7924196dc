"""`warmkit docstrings`."""

from __future__ import annotations

from warmkit.cli.command import command, need_transformers, option
from warmkit.cli.console import Console, table
from warmkit.cli.shared_options import OutputPath


@command()
def docstrings(
    console: Console,
    output: OutputPath,
    train: int = option(2000, "Pairs to train on.", min=0),
    validation: int = option(500, "Pairs of the same packages, other files.", min=0),
    ood: int = option(500, "Pairs of a package of their own.", min=0),
    model: bool = option(False, "Also train a tiny language model on docstrings, OUT/model: a start for policies."),
    seed: int = option(0, "Seed of splits, partners and order, and of the model."),
    force: bool = option(False, "Replace an earlier data set in OUT."),
) -> None:
    """Build a preference data set on real text, without network: which summary belongs to this docstring?

    The docstrings are those of the installed packages; a wrong summary exchanges words, verb or ending with another one.

    Examples:

    - `warmkit docstrings -o data/docstrings`
    - `warmkit docstrings -o data/docstrings --model`
    """
    if model:
        need_transformers()
    from warmkit.data.docstring_preferences import RULES, Sizes, write_docstring_preferences

    sizes = Sizes(train, validation, ood)
    with console.progress("reading", unit="files") as advance:
        about = write_docstring_preferences(output, sizes, seed, advance=advance, force=force)
    if model:
        from warmkit.evidence.testbed.docstring_model import write_docstring_model

        with console.progress("training", unit="steps") as advance:
            write_docstring_model(output / "model", seed, advance, force)
    rows = [
        [split, *(str(count.get(rule, 0)) for rule in RULES), str(sum(count.values()))]
        for split, count in about["counts"].items()
    ]
    console.result(about, table(f"Pairs in {output}", ["split", *RULES, "all"], rows))
