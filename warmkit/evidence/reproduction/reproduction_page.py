"""A reproduction as a page, in HTML and in Markdown: the table of verdicts, and every figure beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from warmkit.common.whole_files import write_whole, writing
from warmkit.evidence.reproduction.results import Result, charts
from warmkit.evidence.reproduction.verdicts import Verdict
from warmkit.report.html_page import Badge, Block, Cell, Grid, Page, Section, Table, Tone, slug
from warmkit.report.picture import svg
from warmkit.report.sentences import sentence

COLUMNS = ("the paper says", "rule", "here: mean (95% interval over seeds)", "every seed", "verdict")
RULE = (
    "A statement **holds** where the 95% interval of its number over seeds (Student's t) lies wholly on the side that its rule "
    "names, and **does not hold** where it lies wholly on the other side. Else, and with fewer than three seeds, it is "
    "**undecided**; so are fewer than six seeds that all have one value. A number that lies on the border of its rule is said "
    "to hold in 2.5 of 100 cases. The rules stand in the recipes and were written before the seeds were run. Numbers that "
    "compare are differences within a seed: seeds differ in their levels, so that a difference can be sure where bands of a "
    "figure overlap."
)
IN_WORDS = {"holds": ("holds", "hold"), "does not hold": ("does not hold", "do not hold"), "undecided": ("undecided",) * 2}
RULINGS: dict[str, Tone] = {"holds": "good", "does not hold": "bad", "undecided": "open"}
SHARE = "percent"
TITLE = "Reproduction of WARM and WARP"
PICTURES = "figures/reproduction"
INTRODUCTION = """# Reproduction

Every claim of WARM and WARP that a small testbed can say something about, measured on it. This page is written by

```
warmkit reproduce all --size small --seeds 10 -o docs/reproduction --page docs/reproduction.md
```

and nothing on it by hand. The command goes on where it was stopped; seeds are measured one after another, and
`docs/reproduction/seed-N.jsonl`, a line a claim, appears when seed N is done. Where all seeds are there, it writes the page and
measures nothing. `warmkit report docs/reproduction -o report.html` shows everything with values on hover. The testbed
(`warmkit/evidence/testbed`) is a synthetic language, made from a seed: a prompt names two topics, a response has 16 words, and
an oracle, the gold reward, knows what a response is worth. Preference data never show some of what the oracle punishes, so that
reward models cannot learn it and policies can exploit it. Models are decoders of about 110,000 parameters; they are trained,
merged and evaluated by warmkit's own commands. What holds here need not hold for large models, and the other way round."""
ANNOUNCED = 10
"""Seeds of `small` that the page is about."""
AGAIN = """## The seeds are being run again

The numbers that stood here are gone. One seed of the five was spoiled by two random streams that met: the order of the data
and the swapped labels were one permutation, so that all swapped pairs of one run came first. And the intervals, bootstraps
over five seeds, covered 84% where they said 95%. Every stream is its own now, verdicts follow Student's t, and ten seeds are
measured, each committed when it is done. The rules stand in the recipes, and were written before."""


def page_of(found: Sequence[Result]) -> Page:
    """Return the page: verdicts, what they cost, every claim with its figures."""
    summary = Section("Verdicts", [RULE, tally(found), _overview(found)])
    return Page(TITLE, tally(found), [summary, Section("Cost", _cost(found)), *(_claim(result) for result in found)])


def tally(found: Sequence[Result]) -> str:
    """Count the verdicts."""
    verdicts = [verdict for result in found for verdict in result.verdicts]
    return f"{len(verdicts)} statements about {len(found)} claims: {_counts(verdicts)}."


def interval(verdict: Verdict) -> str:
    """Write the mean of a statement's number and its interval; that of a share ends where shares do."""
    if verdict.mean is None:
        return "not reached"
    known = [value for value in verdict.values if value is not None]
    mean, few = _number(verdict, verdict.mean.value), f", {len(known)} of {len(verdict.values)} seeds"
    if len(known) == 1:
        return mean + (f" ({few[2:]})" if len(verdict.values) > 1 else "")
    low, high = verdict.mean.low, verdict.mean.high
    if verdict.statement.unit == SHARE and all(0 <= value <= 100 for value in known):
        low, high = max(0.0, low), min(100.0, high)
    ends = f"{_number(verdict, low)} to {_number(verdict, high)}"
    return f"{mean} ({ends}{few if len(known) < len(verdict.values) else ''})"


def every_seed(verdict: Verdict) -> str:
    """Write a statement's number on every seed, in their order."""
    return ", ".join("not reached" if value is None else _number(verdict, value) for value in verdict.values)


def _number(verdict: Verdict, value: float) -> str:
    signed = "+" if verdict.statement.above is not None or verdict.statement.within is not None else ""
    return f"{value:{signed}.3g}"


def ruling(verdict: Verdict) -> str:
    """Write a verdict and what keeps it open."""
    return f"{verdict.ruling}: {verdict.why}" if verdict.why else verdict.ruling


def _overview(found: Sequence[Result]) -> Table:
    """Return a row a claim: its first statement, and how all of them fared."""
    columns = ("claim", "its first statement", "verdict", "all statements")
    rows: list[list[Cell]] = [
        [
            f"[{each.recipe.claim}](#{slug(each.recipe.title)})",
            first.statement.says,
            _badge(first),
            _counts(each.verdicts),
        ]
        for each in found
        for first in each.verdicts[:1]
    ]
    return Table(columns, rows)


def _counts(verdicts: Sequence[Verdict]) -> str:
    rulings = [each.ruling for each in verdicts]
    counted = ((rulings.count(ruling), *words) for ruling, words in IN_WORDS.items())
    return ", ".join(f"{count} {one if count == 1 else several}" for count, one, several in counted if count)


def _claim(result: Result) -> Section:
    recipe = result.recipe
    blocks: list[Block] = [f"`warmkit reproduce {recipe.claim}`. {recipe.paper}.", _statements(result)]
    if recipe.tried:
        blocks.append(f"**What was tried:** {recipe.tried}")
    return Section(recipe.title, [*blocks, Grid(charts(result))], anchor=slug(recipe.title))


def _statements(result: Result) -> Table:
    rows: list[list[Cell]] = [
        [
            f"{each.statement.says} ({each.statement.source})",
            each.statement.rule,
            interval(each),
            every_seed(each),
            _badge(each),
        ]
        for each in result.verdicts
    ]
    return Table(COLUMNS, rows)


def _badge(verdict: Verdict) -> Badge:
    return Badge(ruling(verdict), RULINGS[verdict.ruling])


def _cost(found: Sequence[Result]) -> list[Block]:
    rows: list[list[Cell]] = [
        [each.recipe.claim, ", ".join(map(str, each.seeds)), f"{each.minutes:.1f}", _code(each), each.about["date"]]
        for each in found
    ]
    columns = ("claim", "seeds", "core-minutes a seed, alone", "commit", "date")
    words = "Claims share models and runs, so that all together cost less than the sum."
    return [words, Table(columns, rows), f"Measured on {'; '.join(dict.fromkeys(map(_machine, found)))}."]


def _code(result: Result) -> str:
    return str(result.about["commit"] or f"warmkit {result.about['warmkit']}")


def _machine(result: Result) -> str:
    about = result.about
    versions = f"Python {about['python']}, torch {about['torch']}, transformers {about['transformers']}"
    return f"{about['machine']}, {about['cores']} cores ({versions})"


# ---- Markdown -------------------------------------------------------------------------------------------------------


def write_markdown(found: Sequence[Result], page: Path) -> None:
    """Write the page for the documentation: PAGE, and pictures in `figures/reproduction` beside it.

    Args:
        found: Of the reproduction.
        page: A Markdown file.
    """
    pictures = page.parent / PICTURES
    with writing(page):
        pictures.mkdir(parents=True, exist_ok=True)
    for chart in (chart for result in found for chart in charts(result)):
        write_whole(pictures / f"{chart.name}.svg", svg(chart).encode())
    write_whole(page, markdown(found).encode())


def markdown(found: Sequence[Result]) -> str:
    """Return the page for the documentation."""
    seeds = {seed for result in found for seed in result.seeds}
    parts = [INTRODUCTION, *([_missing(len(seeds))] if found and len(seeds) < ANNOUNCED else [])]
    if not found:
        return "\n\n".join([*parts, AGAIN]) + "\n"
    for section in page_of(found).sections:
        parts.append(f"## {section.title}")
        for block in section.blocks:
            if isinstance(block, Grid):
                for chart in block.charts:
                    parts += [f"![{chart.title}]({PICTURES}/{chart.name}.svg)", f"{sentence(chart)} {chart.caption}"]
            elif isinstance(block, Table):
                parts += [*([block.caption] if block.caption else []), _markdown(block)]
            else:
                parts.append(str(block))
    return "\n\n".join(parts) + "\n"


def _missing(seeds: int) -> str:
    return f"**{seeds} of {ANNOUNCED} seeds are measured so far; verdicts may change until all are.**"


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(_in_markdown(cell) for cell in line) + " |" for line in lines)


def _in_markdown(cell: Cell) -> str:
    text = f"**{cell.text}**" if isinstance(cell, Badge) else str(cell)
    return text.replace("|", "\\|")
