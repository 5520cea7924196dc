"""`warmkit reproduce`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from warmkit.cli import completions
from warmkit.cli.command import argument, command, option
from warmkit.cli.console import Console, table
from warmkit.cli.output import write_page
from warmkit.errors import ScoreError

if TYPE_CHECKING:
    from warmkit.evidence.reproduction.claim_units import Unit
    from warmkit.evidence.reproduction.results import Result


@dataclass(eq=False, repr=False)
class Extent:
    """What is measured, and where its results and recipes lie."""

    size: Literal["nano", "small", "large"] = option("small", "`nano` for CI, `small` for two cores, `large` for a GPU.")
    seeds: int = option(1, "How many seeds; 3 and more decide something.", min=1)
    first_seed: int = option(0, "First seed.", min=0)
    output: Path | None = option(None, "Folder for all results.", "--output", "-o", show_default="reproduction-SIZE")
    recipes: Path | None = option(None, "Folder of recipes, changed ones for instance.", show_default="warmkit's own")

    def keywords(self) -> dict[str, Any]:
        """Return them for the library, what was not given filled in."""
        from warmkit.evidence.reproduction.claim_recipe import FOLDER

        seeds, folder = range(self.first_seed, self.first_seed + self.seeds), self.output or Path(f"reproduction-{self.size}")
        return {"folder": folder, "size": self.size, "seeds": seeds, "recipes": self.recipes or FOLDER}


@command(resumes=True, needs_transformers=True)
def reproduce(
    console: Console,
    *,
    claims: list[str] = argument(
        "CLAIM...", "Names of claims, or `all`.", show_default=False, autocompletion=completions.claim
    ),
    extent: Extent,
    jobs: int | None = option(None, "Processes at a time.", min=1, show_default="one a core"),
    fresh: bool = option(False, "Measure again what was measured with other recipes."),
    gate: bool = option(False, "Exit 1 where a robust claim is on the wrong side of its rule."),
    page: Path | None = option(None, "Write the table and figures as Markdown, for documentation."),
    dry_run: bool = option(False, "Say what would be measured and what is there already."),
) -> None:
    """Reproduce claims of WARM and WARP on a testbed that is made from a seed: nothing is downloaded.

    Every claim has a recipe with its settings and the rule that decides it. What is measured stays: a killed reproduction goes
    on, and seeds and claims can be added. `report.html` in the folder shows everything.

    Examples:

    - `warmkit reproduce all --size nano`
    - `warmkit reproduce warp-slerp warp-liti --seeds 10`
    - `warmkit reproduce all --seeds 10 --jobs 2 -o reproduction`
    """
    from warmkit.evidence.reproduction.claim_table import find_claims

    names, what = find_claims(claims), extent.keywords()
    if page is not None:
        from warmkit.report.specification import require_charts

        require_charts()
    from warmkit.evidence.reproduction.reproduce import reproduce, units_of
    from warmkit.evidence.reproduction.results import results

    if dry_run:
        rows = [[unit.claim, str(unit.seed), _state(unit)] for unit in units_of(names, **what)]
        console.result([dict(zip(("claim", "seed", "state"), row)) for row in rows], table(None, ["claim", "seed", ""], rows))
        return
    with console.progress("reproducing", unit="claims") as advance:
        documents = reproduce(names, **what, jobs=jobs, fresh=fresh, advance=advance)
    found = results(documents, what["recipes"])
    report = _write(console, what["folder"], what["recipes"], page)
    wrong = [v.statement.name for each in found for v in each.verdicts if v.statement.gate and not v.passes]
    document = {"path": str(what["folder"]), "report": report, "wrong": wrong, "claims": [_document(each) for each in found]}
    console.result(document, *_tables(found), report or str(what["folder"]))
    if gate and wrong:
        raise ScoreError(f"{len(wrong)} robust statements are on the wrong side of their rules: {', '.join(wrong)}")


def _state(unit: Unit) -> str:
    return "to measure" if unit.known() is None else "other recipe" if unit.changed() else "measured"


def _write(console: Console, folder: Path, recipes: Path, page: Path | None) -> str | None:
    """Write the report, and the page of the documentation where one is wanted; return the report's path."""
    from warmkit.evidence.reproduction.reproduction_page import page_of, write_markdown
    from warmkit.evidence.reproduction.results import read_documents, results

    everything = results(read_documents(folder), recipes)
    if page is not None:
        write_markdown(everything, page)
    return write_page(console, lambda: page_of(everything), folder / "report.html")


def _document(result: Result) -> dict[str, Any]:
    statements = [
        {
            "name": each.statement.name,
            "says": each.statement.says,
            "rule": each.statement.rule,
            "values": each.values,
            "mean": None if each.mean is None else _finite(vars(each.mean)),
            "verdict": each.ruling,
            "why": each.why,
        }
        for each in result.verdicts
    ]
    recipe = result.recipe
    return {
        "claim": recipe.claim,
        "title": recipe.title,
        "seeds": result.seeds,
        "minutes": result.minutes,
        "statements": statements,
    }


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    """Write what one seed leaves open, the ends of an interval, as null."""
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def _tables(found: list[Result]) -> list[Any]:
    from warmkit.evidence.reproduction.reproduction_page import every_seed, interval, ruling, tally

    columns = ["statement", "rule", "here", "every seed", "verdict"]
    return [
        *(
            table(
                f"{result.recipe.claim}: {result.recipe.title}",
                columns,
                [
                    [each.statement.says, each.statement.rule, interval(each), every_seed(each), ruling(each)]
                    for each in result.verdicts
                ],
            )
            for result in found
        ),
        tally(found),
    ]
