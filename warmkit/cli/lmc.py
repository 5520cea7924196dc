"""`warmkit lmc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warmkit.cli.command import argument, command, option
from warmkit.cli.console import Console, interval, table
from warmkit.cli.evaluate import DataSets, Reading, data_sets, share
from warmkit.cli.output import PlottedDocument
from warmkit.cli.shared_options import numbers
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.evaluation.connectivity import ConnectivityPoint


@command(needs_transformers=True)
def lmc(
    console: Console,
    *,
    a: str = argument("A", "Reward model at lambda 0.", show_default=False),
    b: str = argument("B", "Reward model at lambda 1.", show_default=False),
    data: DataSets,
    files: PlottedDocument,
    reading: Reading,
    points: int | None = option(None, "Number of points on the line, evenly spaced.", min=2, show_default="11"),
    lambdas: str | None = option(None, "The points on the line: 0,0.5,1.", "--lambda"),
) -> None:
    """Slide from one reward model to another and measure accuracy on the line: linear mode connectivity.

    WA has the weights (1 - lambda) A + lambda B, ENS the mixed scores; the diagonal mixes the two accuracies. WA above the
    diagonal is connectivity. Two models of different criteria, with a data set of each, show what one average keeps of both.
    Accuracies are shares from 0 to 1.

    Examples:

    - `warmkit lmc runs/a/model runs/b/model --data val=val.jsonl --plot lmc.png`
    - `warmkit lmc harmless helpful --data harmless=h1.jsonl --data helpful=h2.jsonl --lambda 0,0.25,0.5,0.75,1`
    """
    from warmkit.evaluation.connectivity import connectivity
    from warmkit.report.runs.documents import lmc_charts

    places, sources = _places(points, lambdas), data_sets(data)
    files.check()
    contest = reading.open(console, [a, b], sources)
    first, second = contest.members
    with console.progress("scoring", unit="places") as advance:
        found = connectivity(contest, first, second, places, advance)
    described = {name: {"pairs": len(each), "truncated": each.truncated} for name, each in contest.data.items()}
    document = {"a": a, "b": b, "data": described, "points": [_document(point) for point in found]}
    files.save(console, document, lambda: lmc_charts(document))
    rows = [_cells(point) for name in sources for point in found if point.data == name]
    columns = ["data", "lambda", "WA", "ENS", "diagonal", "WA less diagonal (95%)"]
    console.result(document, table(f"From {first} (0) to {second} (1)", columns, rows))


def _places(points: int | None, lambdas: str | None) -> list[float]:
    """Return where on the line to measure."""
    if points is not None and lambdas is not None:
        raise UsageError("--points and --lambda both say where to measure; give one")
    places = numbers(lambdas, "--lambda")
    if places is None:
        last = (points or 11) - 1
        return [place / last for place in range(last + 1)]
    if outside := [each for each in places if not 0 <= each <= 1]:
        raise UsageError(f"--lambda: expected numbers from 0 to 1, found {outside[0]:g}")
    return places


def _document(point: ConnectivityPoint) -> dict[str, Any]:
    return {
        "data": point.data,
        "lambda": point.lambda_,
        "wa": point.wa,
        "ens": point.ens,
        "diagonal": point.diag,
        "wa_less_diagonal": vars(point.gain),
    }


def _cells(point: ConnectivityPoint) -> list[str]:
    gain = interval(vars(point.gain), "+.3f")
    return [point.data, f"{point.lambda_:.3g}", share(point.wa), share(point.ens), share(point.diag), gain]
