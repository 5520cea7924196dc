"""`warmkit recipes`."""

from __future__ import annotations

from pathlib import Path

from warmkit.cli import completions
from warmkit.cli.command import argument, command, option
from warmkit.cli.console import Console, table
from warmkit.cli.output import refuse_existing, write_file
from warmkit.errors import UsageError, nearest


@command()
def recipes(
    console: Console,
    name: str | None = argument(
        "[NAME]",
        "Recipe to print or to copy; without a name all are listed.",
        show_default=False,
        autocompletion=completions.shipped_recipe,
        default=None,
    ),
    output: Path | None = option(None, "Copy the recipe to this file or folder.", "--output", "-o"),
    force: bool = option(False, "Replace a file at OUT."),
) -> None:
    """List the recipes that come with warmkit, print one, or copy one to change it.

    Examples:

    - `warmkit recipes`
    - `warmkit recipes warm-docstrings`
    - `warmkit recipes warm-docstrings -o my.yaml && warmkit warm my.yaml`
    """
    from warmkit.recipes.kinds import shipped_recipes

    known = shipped_recipes()
    if name is None:
        if output is not None:
            raise UsageError("-o copies one recipe: give its name too, warmkit recipes NAME -o FILE")
        found = [_described(each) for each in known.values()]
        rows = [[each["name"], f"warmkit {each['command']}", each["what"]] for each in found]
        console.result(found, table(None, ["recipe", "command", "what it does"], rows))
        return
    stem = Path(name).name.removesuffix(".yaml")
    if stem not in known:
        raise UsageError(f"no recipe is called {name!r}{nearest(stem, known)}")
    text = known[stem].read_text("utf-8")
    document = {**_described(known[stem]), "text": text}
    if output is None:
        console.result(document, text.rstrip())
        return
    target = output / f"{stem}.yaml" if output.is_dir() else output
    refuse_existing([target], force)
    write_file(target, text.encode())
    console.result({**document, "path": str(target)}, f"{target}: run it with warmkit {document['command']} {target}")


def _described(file: Path) -> dict[str, str]:
    """Return the name, the command and the first sentence of a recipe."""
    import yaml

    from warmkit.recipes.kinds import command_of

    text = file.read_text("utf-8")
    comment = [line.removeprefix("#").strip() for line in text.split("\n") if line.startswith("#")]
    kind = command_of(yaml.safe_load(text))
    assert kind is not None
    return {"name": file.stem, "command": kind[1], "what": " ".join(comment).partition(". ")[0].rstrip(".")}
