"""`warmkit eval rm`, and the group that `eval policy` belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from warmkit.cli.command import Command, command, option
from warmkit.cli.console import Console, interval, table
from warmkit.cli.eval_policy import policy
from warmkit.cli.gate import Gates
from warmkit.cli.output import Plot, check_picture, draw_picture
from warmkit.cli.policy_options import AsChats
from warmkit.cli.score import MaxLength, RewardModels
from warmkit.cli.train import tell_slow_precision
from warmkit.cli.usage import Commands
from warmkit.common.units import size
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.evaluation.averaging import Contest

DataSets = Annotated[
    list[str], typer.Option("--data", metavar="[NAME=]FILE", help="Preference pairs. Repeatable.", show_default=False)
]


@dataclass(eq=False, repr=False)
class Reading:
    """How reward models read preference pairs."""

    max_length: MaxLength = None
    chat: AsChats = False
    equal_pairs: Literal["refuse", "skip"] = option("refuse", "Pairs of equal answers: refuse, or leave out.")
    precision: Literal["float32", "bfloat16"] = option("float32", "bfloat16 is faster and a little less exact.")

    def open(self, console: Console, models: Sequence[str], sources: dict[str, str], probe: str | None = None) -> Contest:
        """Load reward models and data; say what is not seen whole, or not in the form that the model may know."""
        from warmkit.evaluation.side_by_side import open_contest

        tell_slow_precision(console, self.precision)
        contest = open_contest(models, sources, probe=probe, **vars(self))
        tell_reading(console, contest)
        return contest


app = typer.Typer(cls=Commands, help="Evaluate reward models and policies.", no_args_is_help=True)


@command(needs_transformers=True)
def rm(
    console: Console,
    models: RewardModels,
    data: DataSets,
    gates: Gates,
    reading: Reading,
    probe: str | None = option(None, "The model before fine-tuning, its head trained alone; shown beside."),
    rank: str | None = option(None, "Order the models by their accuracy on this data set.", metavar="NAME"),
    plot: Plot = None,
    two_by_two: bool = option(True, "Name models that do not average with the others.", "--two-by-two/--no-two-by-two"),
) -> None:
    """Measure reward models on preference pairs: one alone, or several beside WA and ENS of the first M, for every M.

    WA is one model with the mean of the weights, ENS the mean of M models' scores; both are computed in memory.
    Accuracies are shares from 0 to 1, in tables, `--json`, `--at-least` and `--print`. The last two are about the accuracy on a
    data set, by its NAME, of the model or of WA; there a tie counts half, so that a model that says the same of everything does
    not pass. What `--rank` orders by flatters the first: compare them on other data.

    Every two models are also averaged, on at most 1,000 pairs of the first data set (or that of `--rank`) if it has 50 or
    more; a model that most averages are worse with is named.

    Examples:

    - `warmkit eval rm runs/a/model --data held-out.jsonl`
    - `warmkit eval rm merged --data val.jsonl --at-least val=0.8 && echo good enough`
    - `warmkit eval rm merged --data val=val.jsonl --print val`, which prints 0.834, say
    - `warmkit eval rm A B C --data val=val.jsonl --data ood=ood.jsonl --rank val --probe probe/model --plot accuracy.png`
    """
    from warmkit.evaluation.side_by_side import side_by_side
    from warmkit.report.runs.averaged_models import accuracy_charts

    gates.check(console)
    sources = data_sets(data)
    gates.check_names(list(sources))
    gates.check_shares()
    check_picture(plot)
    if plot is not None and len(models) == 1:
        raise UsageError("--plot draws accuracy against the number of models: give at least two")
    contest = reading.open(console, models, sources, probe)
    with console.progress("scoring", unit="models") as advance:
        document = side_by_side(contest, rank, advance, two_by_two=two_by_two and gates.printed is None)
    draw_picture(console, lambda: accuracy_charts(document["averages"]), plot)
    console.note(*document.get("notes", ()))
    (whose, judged), *more = document["individuals"].items()
    if more:
        whose, judged = f"WA of {len(models)}", document["wa"]
    found = {name: each["won"] for name, each in judged.items()}
    gates.result(console, found, f"accuracy of {whose}, ties half,", document, *_tables(document, rank))


def data_sets(given: Sequence[str]) -> dict[str, str]:
    """Parse `NAME=FILE` or `FILE`; a file without a name is called as it is.

    Raises:
        UsageError: If two have the same name.
    """
    named: dict[str, str] = {}
    for each in given:
        name, equals, source = each.partition("=")
        if not equals or not name or Path(each).exists():
            name, source = Path(each).name, each
            for ending in (".gz", ".json", ".jsonl", ".parquet"):
                name = name.removesuffix(ending)
        if name in named:
            raise UsageError(f"--data {each}: there is another {name!r}; name it: --data NAME={source}")
        named[name] = source
    return named


def tell_reading(console: Console, contest: Contest) -> None:
    """Say which data sets are not seen whole, or not in the form that the model may know."""
    from warmkit.evaluation.comparisons import same_after_encoding

    length, templated = contest.model.encoder.max_length, contest.model.encoder.templated
    for name, each in contest.data.items():
        bare = sum(isinstance(pair.prompt, str) and isinstance(pair.chosen, str) for pair in each.pairs)
        if bare and templated:
            console.note(f"{name}: {bare} of {len(each)} pairs are texts, read without the model's chat template (--chat)")
        if each.skipped:
            console.note(f"{name}: {each.skipped} pairs of equal answers were left out")
        if each.truncated:
            console.note(f"{name}: {each.truncated} of {len(each)} pairs are longer than {length} tokens and were cut")
        if same := same_after_encoding(each):
            console.note(f"{name}: {same} pairs are the same text to the model; they tie, and ties count as right")


def share(value: float) -> str:
    return f"{value:.3f}"


COLUMNS = ["data", "subset", "pairs", "accuracy (95%)", "loss", "calibration error", "corr. with length", "ties"]


def _report_rows(reports: dict[str, Any]) -> list[list[str]]:
    return [
        [
            data if not subset else "",
            subset,
            str(each["pairs"]),
            f"{share(each['accuracy'])} ({share(each['low'])}-{share(each['high'])})",
            f"{each['loss']:.4f}",
            f"{each['calibration_error']:.3f}",
            f"{each['length_correlation']:+.2f}",
            str(each["tied"]),
        ]
        for data, whole in reports.items()
        for subset, each in {"": whole, **whole["subsets"]}.items()
    ]


def _subset_rows(contenders: dict[str, Any]) -> list[list[str]]:
    """Return a row a subset, with the accuracy of everyone."""
    first = next(iter(contenders.values()))
    return [
        [data, subset, str(each["pairs"])]
        + [share(reports[data]["subsets"][subset]["accuracy"]) for reports in contenders.values()]
        for data, whole in first.items()
        for subset, each in whole["subsets"].items()
    ]


def average_rows(
    averages: Sequence[dict[str, Any]], names: Sequence[str], more: Callable[[dict[str, Any]], list[str]]
) -> list[list[str]]:
    """Return a row for every number of models, by data set: the accuracy of WA, and what else is said of it."""
    return [
        [
            name if row["m"] == 1 else "",
            str(row["m"]),
            share(row["wa"]),
            f"{share(row['wa_low'])}-{share(row['wa_high'])}",
            *more(row),
        ]
        for name in names
        for row in averages
        if row["data"] == name
    ]


def _tables(document: dict[str, Any], rank: str | None) -> list[Any]:
    individuals: dict[str, Any] = document["individuals"]
    candidates = individuals | ({} if document["probe"] is None else {"probe only": document["probe"]})
    if "averages" not in document:
        return [table(name, COLUMNS, _report_rows(reports)) for name, reports in candidates.items()]
    count, sets = len(individuals), list(document["data"])
    order = "in the order given" if rank is None else f"best first on {rank}, where the choice flatters them"
    contenders = {**candidates, f"WA of {count}": document["wa"], f"ENS of {count}": document["ens"]}
    everything = [
        [name if data == sets[0] else "", data, *row]
        for name, reports in contenders.items()
        for data, _, *row in _report_rows(reports)
        if data  # a subset's row has none
    ]
    by_subset = _subset_rows(contenders)
    averages = average_rows(
        document["averages"],
        sets,
        lambda row: [
            share(row["ens"]),
            interval(row["wa_less_ens"], "+.3f"),
            share(row["individual"]),
            "" if row["probe"] is None else share(row["probe"]),
        ],
    )
    shown = rank or sets[0]
    agreements = [[a, *(share(value) for value in others.values())] for a, others in document["agreement"][shown].items()]
    return [
        table("Models", ["model", "data", *COLUMNS[2:]], everything),
        *([table("Accuracy by subset", ["data", "subset", "pairs", *contenders], by_subset)] if by_subset else []),
        table(
            f"Accuracy, models {order}",
            ["data", "M", "WA of first M", "95%", "ENS", "WA less ENS (95%)", "number M alone", "probe only"],
            averages,
        ),
        table(f"Agreement on {shown}", ["", *individuals], agreements),
        *_partners(document["partners"]),
        _cost(document["cost"]),
    ]


def _partners(partners: dict[str, Any]) -> list[Any]:
    if not partners["enough"]:
        return []
    title = f"Averaged two by two, {partners['pairs']} pairs of {partners['data']}"
    return [table(title, ["", "worse averaged with"], [[name, worse(partners, name)] for name in partners["gains"]])]


def worse(partners: dict[str, Any], name: str) -> str:
    """Return with how many others a model averages to something less accurate than the two alone."""
    if not partners["enough"]:
        return "too few pairs"
    others = partners["gains"][name].values()
    return f"{sum(each['high'] < 0 for each in others)} of {len(others)}" + (" (!)" if name in partners["bad"] else "")


def _cost(cost: dict[str, Any]) -> Any:
    rows = [
        [kind, str(each["passes"]), f"{each['seconds']:.3f}", size(each["weight_bytes"])]
        for kind, each in (("WA", cost["wa"]), ("ENS", cost["ens"]))
    ]
    columns = ["", "forward passes", "seconds", "weights in memory"]
    return table(f"Inference, {cost['pairs']} pairs on {cost['device']}", columns, rows)


for each in (rm, policy):
    app.command(cls=Command)(each)
