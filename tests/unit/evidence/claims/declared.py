"""What a recipe asks of a claim's measurements."""

from __future__ import annotations

from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.reproduction.claim_recipe import read_claim


def missing(found: Measurements, claim: str) -> list[str]:
    """Return the numbers of statements and the columns of figures that a recipe names and nobody measured."""
    recipe = read_claim(claim)
    numbers = [each.number for each in recipe.statements if each.number not in found.numbers]
    parts = {figure.name: [point for point in found.points if point["part"] == figure.part] for figure in recipe.figures}
    columns = [
        f"{figure.name}: {column}"
        for figure in recipe.figures
        for column in (figure.x, figure.y)
        if not parts[figure.name] or any(column not in point for point in parts[figure.name])
    ]
    return numbers + columns
