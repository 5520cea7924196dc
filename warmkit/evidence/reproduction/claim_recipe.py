"""Recipe of a claim, `recipes/reproduce/CLAIM.yaml`: what the paper says, how it is judged, what is drawn."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from warmkit.errors import UsageError
from warmkit.evidence.reproduction.claim_table import CLAIMS, Claim
from warmkit.evidence.testbed.sizes import Size, TestbedRecipe, TestbedSettings
from warmkit.recipes.recipe import read_recipe

FOLDER = Path(__file__).parent / "recipes"
S = TypeVar("S")


@dataclass(frozen=True)
class Statement:
    """One of `statements:`, with the rule that decides it.

    Attributes:
        name: Of the statement.
        says: What the paper claims, in our words.
        number: The number that it is about, one a seed.
        above: It holds where the number is above this.
        below: It holds where the number is below this.
        within: It holds where the number is between minus this and this.
        source: Where the paper says so.
        unit: Of the number.
        gate: Whether continuous integration fails where the mean over seeds is on the wrong side.
    """

    name: str
    says: str
    number: str
    above: float | None = None
    below: float | None = None
    within: float | None = None
    source: str = ""
    unit: str = ""
    gate: bool = False

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.above, self.below, self.within)) != 1:
            raise UsageError(f"{self.name}: expected one of above, below and within")

    @property
    def rule(self) -> str:
        """The rule in words, with the unit."""
        unit = f" {self.unit}" if self.unit else ""
        if self.within is not None:
            return f"within ±{self.within:g}{unit}"
        return f"above {self.above:g}{unit}" if self.above is not None else f"below {self.below:g}{unit}"


@dataclass(frozen=True)
class Figure:
    """One of `figures:`.

    Attributes:
        name: Of its file.
        title: Above it.
        part: Of the points.
        x: Column: `at`, `kl` or another.
        y: Column.
        x_title: Of the axis.
        y_title: Of the axis.
        lines: Those that are drawn, in this order; by default all.
        paper: The figure that it stands beside, and what that looks like.
        kind: How points are drawn.
        log_x: Whether x is logarithmic.
    """

    name: str
    title: str
    part: str
    x: str
    y: str
    x_title: str = ""
    y_title: str = ""
    lines: list[str] | None = None
    paper: str = ""
    kind: Literal["lines", "points", "bars", "histogram"] = "lines"
    log_x: bool = False


@dataclass(frozen=True)
class ClaimRecipe(Generic[S]):
    """A recipe of `warmkit reproduce`; `nano`, `small` and `large` hold the claim's own settings.

    Attributes:
        claim: Name in `reproduction.table.CLAIMS`.
        title: Of the claim.
        paper: Paper and sections.
        statements: What is judged.
        figures: What is drawn.
        tried: What was tried where a statement fails, for the table.
    """

    claim: str
    title: str
    paper: str
    statements: list[Statement]
    figures: list[Figure]
    nano: S
    small: S
    large: S
    tried: str = ""


def read_claim(name: str, folder: Path = FOLDER) -> ClaimRecipe[Any]:
    """Read the recipe of a claim.

    Raises:
        RecipeError: If it says what no recipe may say, or belongs to another claim.
    """
    file = folder / f"{name}.yaml"
    recipe = read_recipe(file, _schema(CLAIMS[name])).content
    if recipe.claim != name:
        raise UsageError(f"{file}: expected claim: {name}, found {recipe.claim}")
    return recipe


def read_testbed(size: Size, folder: Path = FOLDER) -> TestbedSettings:
    """Read the settings that all claims share."""
    return getattr(read_recipe(folder / "testbed.yaml", TestbedRecipe).content, size)


def _schema(claim: Claim) -> Any:
    """Return ClaimRecipe with the settings of one claim, which are optional for every size."""
    sizes = [(size, claim.settings, field(default_factory=claim.settings)) for size in ("nano", "small", "large")]
    return dataclasses.make_dataclass("Recipe", sizes, bases=(ClaimRecipe,), frozen=True, namespace={"__module__": __name__})
