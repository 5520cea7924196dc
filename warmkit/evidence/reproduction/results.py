"""Results of a reproduction: verdicts and charts of every claim, from the documents of its seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.errors import DataError, RecipeError, nearest
from warmkit.evaluation.few_values import student_interval
from warmkit.evidence.reproduction.claim_recipe import FOLDER, ClaimRecipe, Figure, read_claim
from warmkit.evidence.reproduction.claim_table import CLAIMS
from warmkit.evidence.reproduction.seed_file import Document, read_seed
from warmkit.evidence.reproduction.verdicts import Verdict, judge
from warmkit.report.chart import Chart


@dataclass(frozen=True)
class Result:
    """One claim over its seeds.

    Attributes:
        recipe: What was asked.
        documents: One a seed.
        verdicts: One a statement.
    """

    recipe: ClaimRecipe[Any]
    documents: list[Document]
    verdicts: list[Verdict]

    @property
    def seeds(self) -> list[int]:
        return [each["seed"] for each in self.documents]

    @property
    def minutes(self) -> float:
        """What a seed costs on one core, everything that it needs included, the mean over seeds."""
        return sum(each["seconds"] for each in self.documents) / len(self.documents) / 60

    @property
    def about(self) -> dict[str, Any]:
        return self.documents[-1]["about"]


def results(documents: Sequence[Document], recipes: Path = FOLDER) -> list[Result]:
    """Judge every claim that was measured, in the order of the table."""
    found: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        found[document["claim"]].append(document)
    return [_result(read_claim(claim, recipes), found[claim]) for claim in CLAIMS if claim in found]


def read_documents(folder: Path) -> list[Document]:
    """Read everything that a folder has measured, in the order of the seeds; of seeds that are not done, what there is.

    Raises:
        DataError: If there is nothing.
    """
    known: dict[tuple[int, str], Document] = {}
    for file in (*folder.glob("seed-*.jsonl"), *folder.glob("seed-*/claims/*.jsonl")):
        known |= {(each["seed"], each["claim"]): each for each in read_seed(file)}
    if not known:
        raise DataError(f"{folder}: no claim has been measured here yet")
    return [known[key] for key in sorted(known)]


def charts(result: Result) -> list[Chart]:
    """Return the figures of a claim; every line is the mean over seeds, with the seeds behind it."""
    return [chart(figure, result) for figure in result.recipe.figures]


def chart(figure: Figure, result: Result) -> Chart:
    """Draw one figure from the points of all seeds."""
    rows: list[dict[str, Any]] = []
    for line, places in _places(figure, result.documents).items():
        for at, points in places.items():
            mean = student_interval([point[figure.y] for point in points])
            x = points[0]["at"] if figure.x == "at" else sum(point[figure.x] for point in points) / len(points)
            rows.append({"line": line, "at": at, "x": x, "y": mean.value, "low": mean.low, "high": mean.high})
    band = len(result.documents) > 1
    caption = f"{_seeds(result)}{' **Beside the paper:** ' + figure.paper if figure.paper else ''}"
    return Chart(
        name=figure.name,
        title=figure.title,
        rows=rows,
        x="x",
        y="y",
        x_title=figure.x_title or figure.x,
        y_title=figure.y_title or figure.y,
        order="at" if figure.x != "at" else None,
        low="low" if band else None,
        high="high" if band else None,
        kind=figure.kind,
        caption=caption,
        log_x=figure.log_x,
    )


def _places(figure: Figure, documents: Sequence[Document]) -> dict[str, dict[Any, list[Mapping[str, Any]]]]:
    """Return line -> place -> the points of all seeds, in the order that the figure or the measuring gives."""
    found: dict[str, dict[Any, list[Mapping[str, Any]]]] = {line: {} for line in figure.lines or []}
    for document in documents:
        for point in document["points"]:
            if point["part"] == figure.part and (figure.lines is None or point["line"] in found):
                found.setdefault(point["line"], {}).setdefault(point["at"], []).append(point)
    return {line: places for line, places in found.items() if places}


def _result(recipe: ClaimRecipe[Any], documents: list[Document]) -> Result:
    for each in recipe.statements:
        if any(each.number not in document["numbers"] for document in documents):
            known = documents[0]["numbers"]
            raise RecipeError(
                f"{recipe.claim}: statement {each.name} is about {each.number!r}, which was not measured"
                f"{nearest(each.number, known)}; there are {', '.join(known)}"
            )
    verdicts = [judge(each, [document["numbers"][each.number] for document in documents]) for each in recipe.statements]
    return Result(recipe, documents, verdicts)


def _seeds(result: Result) -> str:
    count = len(result.seeds)
    return "One seed." if count == 1 else f"Mean of {count} seeds, bands are 95% intervals over them (Student's t)."
