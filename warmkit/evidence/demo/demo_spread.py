"""Several seeds of the demo: every number seed by seed, its mean and interval, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from warmkit.evaluation.few_values import student_interval
from warmkit.evidence.demo.demo_conclusions import merge_gain
from warmkit.report.html_page import Cell, Page, Section, Table

Document = Mapping[str, Any]
Number = Callable[[Document], float]


def page_of_seeds(documents: Sequence[Document]) -> Page:
    """Return all seeds side by side, with links to the page of each, which lies in its folder."""
    links = ", ".join(f"[seed {each['seed']}](seed-{each['seed']}/report.html)" for each in documents)
    section = Section("All seeds", [f"{conclusion(documents)} Each seed on a page: {links}.", *spread_tables(documents)])
    notes = [f"Seed {each['seed']}: {note}" for each in documents for note in each["notes"]]
    return Page("WARM and WARP in miniature", f"{len(documents)} seeds", [section], notes=notes)


def spread_tables(documents: Sequence[Document]) -> list[Table]:
    """Return a row a seed, and below the mean over seeds with its 95% interval."""
    return [_table(caption, numbers, documents) for caption, numbers in TABLES.items()]


def _table(caption: str, numbers: Mapping[str, tuple[Number, int]], documents: Sequence[Document]) -> Table:
    rows: list[list[Cell]] = [
        [str(each["seed"]), *(_text(number(each), digits) for number, digits in numbers.values())] for each in documents
    ]
    found = [(student_interval([number(each) for each in documents]), digits) for number, digits in numbers.values()]
    rows.append(["mean", *(_text(each.value, digits) for each, digits in found)])
    if len(documents) > 1:
        rows.append(["95%", *(f"{_text(each.low, digits)} to {_text(each.high, digits)}" for each, digits in found)])
    return Table(("seed", *numbers), rows, caption=caption)


def conclusion(documents: Sequence[Document]) -> str:
    """Say in how many seeds WARM, its memory, the merge and the free policy came out as the papers claim."""
    gains, behind = [members_gain(each) for each in documents], [ensemble_gain(each) for each in documents]
    kept = [100 * (_memorised(each, "ensemble") - _memorised(each, "WARM")) for each in documents]
    merged = [merge_gain(each).difference.value for each in documents]
    hacked = [_gold(each, "SFT") - _gold(each, "no anchor") for each in documents]
    near = _times([3 - abs(each) for each in behind])
    sentences = (
        f"WARM is above the mean of its members in {_times(gains)}, by {_spread(gains, 1, ' points')}",
        f"it is within 3 points of its ensemble in {near}, which is above it by {_spread(behind, 1, ' points')}",
        f"of labels learned by heart it keeps less than the ensemble in {_times(kept)}, by {_spread(kept, 1, ' points')}",
        f"at the KL of its policies their merge has the higher gold reward in {_times(merged)}, by {_spread(merged, 2)}",
        f"without its anchor a policy ends below the SFT model in {_times(hacked)}",
    )
    return " ".join(f"{each[0].upper()}{each[1:]}." for each in sentences)


def members_gain(document: Document) -> float:
    """Return how many points WARM is above the mean of its members, on validation."""
    return 100 * (_accuracy(document, "WARM") - _accuracy(document, "mean of the members"))


def ensemble_gain(document: Document) -> float:
    """Return how many points the ensemble is above WARM of the same members, on validation."""
    return 100 * (_accuracy(document, "ensemble") - _accuracy(document, "WARM"))


def _accuracy(document: Document, model: str) -> float:
    return next(row["validation"] for row in document["reward_models"] if row["model"] == model)


def _memorised(document: Document, model: str, data: str = "train corrupt") -> float:
    return next(row[data] for row in document["memorised"] if row["model"] == model)


def _gold(document: Document, policy: str) -> float:
    return next(row["gold"] for row in document["policies"] if row["policy"] == policy)


def _times(values: Sequence[float]) -> str:
    return f"{sum(value > 0 for value in values)} of {len(values)} seeds"


def _spread(values: Sequence[float], digits: int, unit: str = "") -> str:
    found = student_interval(values)
    ends = f" in the mean (95%: {_text(found.low, digits)} to {_text(found.high, digits)})" if len(values) > 1 else ""
    return f"{_text(found.value, digits)}{unit}{ends}"


def _text(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # -0.0 + 0.0 has no sign


def _column(read: Callable[..., float], *names: str, digits: int = 3) -> tuple[Number, int]:
    return lambda document: read(document, *names), digits


TABLES: dict[str, dict[str, tuple[Number, int]]] = {
    "Reward models: accuracy on validation": {
        "WARM": _column(_accuracy, "WARM"),
        "mean of its members": _column(_accuracy, "mean of the members"),
        "best single": _column(_accuracy, "best single"),
        "ensemble of the same": _column(_accuracy, "ensemble"),
        "ensemble of all six": _column(_accuracy, "ensemble of all"),
        "probe only": _column(_accuracy, "probe only"),
        "WARM less its members, points": _column(members_gain, digits=1),
        "ensemble less WARM, points": _column(ensemble_gain, digits=1),
    },
    "Learned by heart: swapped labels repeated, and accuracy on validation": {
        "each model, swapped": _column(_memorised, "mean of the members"),
        "WARM, swapped": _column(_memorised, "WARM"),
        "ensemble, swapped": _column(_memorised, "ensemble"),
        "WARM, validation": _column(_memorised, "WARM", "validation"),
        "ensemble, validation": _column(_memorised, "ensemble", "validation"),
    },
    "Policies: gold reward": {
        "SFT": _column(_gold, "SFT", digits=2),
        "policy 1": _column(_gold, "policy 1", digits=2),
        "policy 2": _column(_gold, "policy 2", digits=2),
        "SLERP": _column(_gold, "SLERP", digits=2),
        "policy 1, no anchor": _column(_gold, "no anchor", digits=2),
        "front less policies at their KL": (lambda document: merge_gain(document).difference.value, 2),
    },
}
