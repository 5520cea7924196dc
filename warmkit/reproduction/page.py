"""A reproduction as a page, in HTML and in Markdown: the table of verdicts, and every figure beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from warmkit.checkpoints.staging import writing
from warmkit.report.chart import png
from warmkit.report.page import Badge, Block, Cell, Section, Table, Tone
from warmkit.reproduction.recipe import Statement
from warmkit.reproduction.results import Result, charts, read_documents, results
from warmkit.reproduction.verdicts import Verdict
from warmkit.training.run import write_whole

COLUMNS = ("claim", "number", "rule", "mean (95% interval over seeds)", "verdict")
RULE = (
    "A statement **holds** where the 95% bootstrap interval of its number, over seeds, lies wholly on the side that its rule "
    "names, and **does not hold** where it lies wholly on the other side. Else, and with fewer than three seeds, it is "
    "**undecided**. The rules stand in the recipes and were written before the seeds were run. Numbers that compare are "
    "differences within a seed."
)
TITLE = "Reproduction of WARM and WARP"
INTRODUCTION = """# Reproduction

Every claim of WARM and WARP that a small testbed can say something about, measured on it. This page is written by

```
warmkit reproduce all --size small --seeds 5 --page docs/reproduction.md
```

and nothing on it by hand. The testbed (`warmkit/testbed`) is a synthetic language, made from a seed: a prompt names two
topics, a response has 16 words, and an oracle, the gold reward, knows what a response is worth. Preference data never show
some of what the oracle punishes, so that reward models cannot learn it and policies can exploit it. Models are decoders of
about 110,000 parameters; they are trained, merged and evaluated by warmkit's own commands. What holds here need not hold for
large models, and the other way round."""


def sections(folder: Path) -> list[Section]:
    """Return a reproduction's page, from everything that it has measured so far."""
    return sections_of(results(read_documents(folder)))


def sections_of(found: Sequence[Result]) -> list[Section]:
    """Return the sections of the page: verdicts, what they cost, every claim with its figures."""
    rows = [
        [f"**{result.recipe.claim}**: {verdict.statement.says}", *_cells(verdict)]
        for result in found
        for verdict in result.verdicts
    ]
    summary = Section("Verdicts", [RULE, tally(found), Table(COLUMNS, rows)])
    return [summary, Section("Cost", [_cost(found)]), *(_claim(result) for result in found)]


def tally(found: Sequence[Result]) -> str:
    """Count the verdicts."""
    rulings = [verdict.ruling for result in found for verdict in result.verdicts]
    counts = ", ".join(f"{rulings.count(each)} {each}" for each in ("holds", "does not hold", "undecided"))
    return f"{len(rulings)} statements: {counts}."


def interval(verdict: Verdict) -> str:
    """Write the mean of a statement's number and its interval."""
    if verdict.mean is None:
        return "not reached"
    signed = "+" if verdict.statement.above is not None or verdict.statement.within is not None else ""
    mean, unit = verdict.mean, f" {verdict.statement.unit}" if verdict.statement.unit else ""
    few = (
        f", {len([v for v in verdict.values if v is not None])} of {len(verdict.values)} seeds"
        if None in verdict.values
        else ""
    )
    if len(verdict.values) == 1:
        return f"{mean.value:{signed}.3g}{unit}"
    return f"{mean.value:{signed}.3g}{unit} ({mean.low:{signed}.3g} to {mean.high:{signed}.3g}{few})"


def ruling(verdict: Verdict) -> str:
    """Write a verdict and what keeps it open."""
    return f"{verdict.ruling}: {verdict.why}" if verdict.why else verdict.ruling


def _cells(verdict: Verdict) -> list[Cell]:
    tones: dict[str, Tone] = {"holds": "good", "does not hold": "bad", "undecided": "open"}
    statement = verdict.statement
    return [
        statement.number.replace("_", " "),
        statement.rule,
        interval(verdict),
        Badge(ruling(verdict), tones[verdict.ruling]),
    ]


def _claim(result: Result) -> Section:
    recipe = result.recipe
    rows: list[list[Cell]] = [[f"{each.statement.says} ({each.statement.source})", *_cells(each)] for each in result.verdicts]
    blocks: list[Block] = [f"`{recipe.claim}`. {recipe.paper}.", Table(COLUMNS, rows)]
    if recipe.tried:
        blocks.append(f"**What was tried:** {recipe.tried}")
    return Section(recipe.title, [*blocks, *charts(result)])


def _cost(found: Sequence[Result]) -> Table:
    rows: list[list[Cell]] = [
        [result.recipe.claim, ", ".join(map(str, result.seeds)), f"{result.minutes:.1f}", *_about(result)] for result in found
    ]
    columns = ("claim", "seeds", "core-minutes a seed, alone", "commit", "machine", "date")
    return Table(columns, rows, caption="Claims share models and runs, so that all together cost less than the sum.")


def _about(result: Result) -> list[str]:
    about = result.about
    return [about["commit"] or f"warmkit {about['warmkit']}", f"{about['machine']}, {about['cores']} cores", about["date"]]


# ---- Markdown -------------------------------------------------------------------------------------------------------


def write_markdown(found: Sequence[Result], page: Path) -> None:
    """Write the table and the figures for the documentation: PAGE, and pictures in `figures/reproduction` beside it.

    Args:
        found: Of the reproduction.
        page: A Markdown file.
    """
    pictures = page.parent / "figures" / "reproduction"
    with writing(page):
        pictures.mkdir(parents=True, exist_ok=True)
    parts = [
        INTRODUCTION,
        RULE,
        tally(found),
        _markdown(_overview(found)),
        "## Cost",
        _cost(found).caption,
        _markdown(_cost(found)),
    ]
    for result in found:
        parts += [f"## {result.recipe.title}", f"`warmkit reproduce {result.recipe.claim}`. {result.recipe.paper}."]
        parts += [_markdown(Table(COLUMNS, [[v.statement.says, *_plain(v)] for v in result.verdicts]))]
        parts += [f"**What was tried:** {result.recipe.tried}"] if result.recipe.tried else []
        for chart in charts(result):
            write_whole(pictures / f"{chart.name}.png", png(chart))
            parts += [f"![{chart.title}](figures/reproduction/{chart.name}.png)", chart.caption]
    write_whole(page, ("\n\n".join(parts) + "\n").encode())


def _overview(found: Sequence[Result]) -> Table:
    rows = [
        [f"[{r.recipe.claim}](#{_anchor(r.recipe.title)})", v.statement.says, *_plain(v)[2:]] for r in found for v in r.verdicts
    ]
    return Table(("claim", "the paper says", "here", "verdict"), rows)


def _plain(verdict: Verdict) -> list[Cell]:
    statement: Statement = verdict.statement
    return [
        statement.number.replace("_", " "),
        statement.rule,
        interval(verdict),
        f"**{verdict.ruling}**" + (f": {verdict.why}" if verdict.why else ""),
    ]


def _anchor(title: str) -> str:
    return "".join(each for each in title.lower().replace(" ", "-") if each.isalnum() or each in "-_")


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
