"""`warmkit verify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from warmkit.cli.command import argument, command, option
from warmkit.cli.console import Console, table
from warmkit.cli.mix_options import Mix
from warmkit.cli.shared_options import MethodParameters, Reading, given
from warmkit.common.units import size
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.engine.residuals import Answer
    from warmkit.verbs.claim_report import ClaimReport, TensorReport

EXIT_CODES: dict[Answer, int] = {"contains": 0, "cannot tell": 3, "does not contain": 4}
MOST_ROWS = 20  # of a table without -v


@dataclass(eq=False, repr=False)
class Claim:
    """What a model is said to be; the option --init says of what base."""

    models: list[str] | None = option(
        None, "What OUT is said to be merged from, instead of looking for a manifest.", metavar="MODEL..."
    )
    adapter: str | None = option(None, "An adapter that is said to be merged into --init.")
    recipe: str | None = option(None, "Recipe of warmkit merge, or of mergekit, that OUT is said to come from.")


@command()
def verify(
    console: Console,
    *,
    output: str = argument("OUT", "Directory that warmkit wrote, a sweep's included; with a claim, any model."),
    claim: Claim,
    mix: Mix,
    own: MethodParameters,
    reading: Reading,
) -> None:
    """Check a result of warmkit against its manifest; or any merged model against what it is said to be.

    Without a claim, every tensor and file is read again. With one, the merge is computed and compared, and nothing is written:
    exit code 0 where the model contains it, 4 where it does not, 3 where that cannot be told.

    Examples:

    - `warmkit verify OUT`
    - `warmkit verify OUT --models A B --method lerp --lambda 0.3 --init BASE`
    - `warmkit verify OUT --init BASE --adapter ADAPTER`
    - `warmkit verify OUT --recipe recipe.yaml`
    """
    parameters = {**mix.keywords(), **own.given()}
    if claim.models or claim.adapter or claim.recipe:
        _verify_claim(console, output, claim, parameters, given(vars(reading)))
        return
    odd = [*parameters, *(name for name, value in vars(reading).items() if value and name != "threads")]
    if odd:
        name = f"--{odd[0].strip('_').replace('_', '-')}"
        raise UsageError(f"{name} is part of a claim; give --models, --adapter or --recipe beside it")
    _verify_manifest(console, Path(output), reading.threads)


def _verify_manifest(console: Console, output: Path, threads: int | None) -> None:
    from warmkit.verbs.verify import verify as verify_output

    with console.progress("verifying") as advance:
        report = verify_output(output, threads=threads, advance=advance)
    console.result(
        {"path": str(output), "tensors": report.tensors, "files": report.files, "bytes": report.nbytes, "ok": True},
        f"{output}: {report.tensors} tensors and {report.files} files as written, {size(report.nbytes)}",
    )


def _verify_claim(console: Console, output: str, claim: Claim, parameters: dict[str, Any], reading: dict[str, Any]) -> None:
    from warmkit.verbs.verify_claim import verify_claim

    stated = [name for name, value in vars(claim).items() if value]
    if len(stated) > 1:
        raise UsageError(f"expected one claim, found --{' and --'.join(stated)}; give one of them")
    what = {**given(vars(claim)), **parameters, **reading}
    if claim.recipe is not None:
        what = _of_recipe(console, claim.recipe, output, parameters, reading)
    with console.progress("comparing") as advance:
        report = verify_claim(output, **what, advance=advance)
    console.note(*report.notes)
    console.result(report.as_document(), _sentence(report), *_table(report, console.verbose))
    if report.answer != "contains":
        raise typer.Exit(EXIT_CODES[report.answer])


def _of_recipe(console: Console, path: str, output: str, parameters: dict[str, Any], reading: dict[str, Any]) -> dict[str, Any]:
    """Return the claim that a recipe makes of its last result; what is given on the command line is laid over it."""
    from warmkit.cli.merge_recipe import overridden, read, read_slices
    from warmkit.verbs.verify_claim import READING, RUNNING

    recipes = read(console, [path], Path(output))
    if not recipes:
        raise UsageError(f"--recipe {path}: expected a .yaml file")
    models, _, merge, options = overridden(recipes[-1].content, None, parameters, reading)
    slices = merge.pop("slices", None)
    merge = {name: value for name, value in merge.items() if name not in ("executor", "angles")}
    kept = {name: value for name, value in options.items() if name in (*READING, *RUNNING)}
    return {
        **merge,
        **kept,
        **({"slices": read_slices(slices)} if slices else {"models": models}),
    }


def _sentence(report: ClaimReport) -> str:
    counts = [f"{count} {answer}" for answer, count in report.counts().items() if count]
    scale = "" if report.scale is None else f"; scale {report.scale:.4g}"
    return f"{report.merged}: {report.answer}: {report.claim}\n{len(report.tensors)} tensors: {', '.join(counts)}{scale}"


def _table(report: ClaimReport, whole: bool) -> list[Any]:
    """Return the tensors as a table; those that contain the claim only where all are asked for."""
    chosen = [each for each in report.tensors if whole or each.answer != "contains"]
    shown = chosen if whole else chosen[:MOST_ROWS]
    if not shown:
        return []
    columns = ["tensor", "answer", "scale", "residual", "off", "what is there"]
    more = [f"... and {len(chosen) - len(shown)} more, which -v shows"] if len(chosen) > len(shown) else []
    return [table(None, columns, list(map(_row, shown))), *more]


def _row(each: TensorReport) -> list[str]:
    numbers = ["" if value is None else f"{value:.3g}" for value in (each.scale, each.residual)]
    return [each.name, each.answer, *numbers, "" if each.off is None else f"{each.off:.1%}", each.what]
