"""Documents that verbs write with -o or print with --json: front, lmc, bon, sxs, eval policy, eval rm, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from warmkit.errors import DataError
from warmkit.report.chart import Chart, is_number
from warmkit.report.page import Cell, Grid, Section, Table, literal, slug
from warmkit.report.runs.averaging import accuracy_charts, accuracy_table, agreement_table, cost_table, individual_table
from warmkit.report.runs.fronts import front_charts, front_table, reward_charts
from warmkit.report.runs.part import Part, distinct, filled, heading, percent, read_document, short, span, words

Document = Mapping[str, Any]


def document(file: Path) -> Part:
    """Report on one document.

    Raises:
        DataError: If it is none that warmkit writes.
    """
    content = read_document(file)
    for kind, (keys, make) in KINDS.items():
        if keys <= content.keys():
            try:
                sections, subtitle = make(content)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise DataError(
                    f"{file}: looks like a document of `warmkit {kind}`, but {error!r} is missing or wrong"
                ) from None
            return Part(kind, file.stem, f"{subtitle}: `{literal(str(file))}`", sections)
    known = ", ".join(f"`warmkit {kind}`" for kind in KINDS)
    raise DataError(f"{file}: expected a document of {known}; found the keys {', '.join(list(content)[:8]) or 'none'}")


def _front(content: Document) -> tuple[list[Section], str]:
    fronts = content["fronts"]
    paths = [{"line": name, **row} for name, rows in (content.get("trajectories") or {}).items() for row in rows]
    top = content["best"]
    best = f"Highest mean reward: **{span(top['values']['reward'])}** ({top['method']}, eta {top['eta']:g}), "
    best += f"KL {span(top['values']['kl_sft'])}."
    policies: list[list[Cell]] = [[name, f"`{path}`"] for name, path in content["policies"].items()]
    sections = [
        Section("Reward against the KL", [best, *front_charts(fronts, paths), front_table(fronts, "All points")]),
        Section("One reward against another", reward_charts(fronts)),
        Section(
            "What was merged", [Table(["policy", "path"], [["init", f"`{content['init']}`"], *policies]), *_settings(content)]
        ),
    ]
    return [
        each for each in sections if each.blocks
    ], f"Front of {', '.join(content['policies'])} on {content['prompts']} prompts"


def _settings(content: Document) -> list[Table]:
    rows: list[list[Cell]] = [
        [name, str(value)] for name, value in content.get("settings", {}).items() if not isinstance(value, (dict, list))
    ]
    return [Table(["setting", "value"], rows, "How the policies were sampled", folded=True)] if rows else []


def _lmc(content: Document) -> tuple[list[Section], str]:
    a, b, points = content["a"], content["b"], content["points"]
    charts: list[Chart] = []
    for data in dict.fromkeys(point["data"] for point in points):
        rows: list[dict[str, Any]] = []
        for point in (each for each in points if each["data"] == data):
            gain = point["wa_less_diagonal"]
            band = {edge: 100 * (point["diagonal"] + gain[edge]) for edge in ("low", "high")}
            for line, key in (("WA", "wa"), ("ENS", "ens"), ("diagonal", "diagonal")):
                rows.append(
                    {"line": line, "lambda": point["lambda"], "accuracy": 100 * point[key], **(band if key == "wa" else {})}
                )
        x = f"lambda, from {short(a)} (0) to {short(b)} (1)"
        caption = "The band is the interval of WA less the diagonal, 95% over pairs: above the diagonal is connectivity."
        name, y = slug(f"lmc {data}"), "pairwise accuracy, %"
        charts.append(
            Chart(name, f"Accuracy on {data}", rows, "lambda", "accuracy", x, y, low="low", high="high", caption=caption)
        )
    cells: list[list[Cell]] = [
        [
            point["data"],
            round(point["lambda"], 3),
            *(percent(point[key]) for key in ("wa", "ens", "diagonal")),
            span(point["wa_less_diagonal"], 100, "+.1f"),
        ]
        for data in dict.fromkeys(point["data"] for point in points)
        for point in points
        if point["data"] == data
    ]
    columns = ["data", "lambda", "WA, %", "ENS, %", "diagonal, %", "WA less diagonal, points (95%)"]
    return [Section("Linear mode connectivity", [*charts, Table(columns, cells)])], f"From `{a}` to `{b}`"


def _bon(content: Document) -> tuple[list[Section], str]:
    points, charts = content["points"], list[Chart]()
    for control in dict.fromkeys(point["control"] for point in points):
        rows = [
            {"line": each["chooser"], "kl": each["kl"], "score": each["score"]["value"], "N": each["n"], **_ends(each["score"])}
            for each in points
            if each["control"] == control
        ]
        caption = "Bands are bootstrap intervals of 95% over prompts; those of different choosers move together."
        title, x = f"{control} of the best of N", "KL to the policy, nats: log N - (N-1)/N"
        charts.append(
            Chart(
                slug(f"bon {control}"),
                title,
                rows,
                "kl",
                "score",
                x,
                control,
                low="low",
                high="high",
                tips=("N",),
                caption=caption,
            )
        )
    cells: list[list[Cell]] = [
        [
            each["chooser"],
            each["control"],
            each["n"],
            round(each["kl"], 3),
            round(each["proxy"], 4),
            span(each["score"]),
            span(each["gain"], form="+.3g"),
        ]
        for each in points
    ]
    columns = ["chosen by", "control", "N", "KL", "own score", "score (95%)", "over N = 1 (95%)"]
    number = content["prompts"]["number"]
    return [
        Section("Best of N", [*charts, Table(columns, cells)])
    ], f"Best of N from {content['samples']} samples of {number} prompts"


def _sxs(content: Document) -> tuple[list[Section], str]:
    matches, names = content["matches"], list(content["policies"])
    rows = [
        {"pair": f"{each['a']} against {each['b']}", "rate": 100 * each["win_rate"]["value"], **_ends(each["win_rate"], 100)}
        for each in matches
    ]
    chart = Chart(
        "win-rates",
        "Win rates",
        rows,
        "pair",
        "rate",
        "pair",
        "wins of the first, %",
        low="low",
        high="high",
        kind="bars",
        zero=True,
        caption="Ties are half a win; 50 is a draw. The bar's line is the interval of 95% over prompts.",
    )
    cells: list[list[Cell]] = [
        [
            each["a"],
            each["b"],
            span(each["win_rate"], 100, ".1f"),
            span(each["score"], form="+.2f"),
            *(each[key] for key in ("wins", "ties", "losses")),
            percent(each.get("consistency")),
        ]
        for each in matches
    ]
    columns = ["A", "B", "A wins, % (95%)", "score (95%)", "wins", "ties", "losses", "orders agree, %"]
    rates = content["win_rates"]
    matrix: list[list[Cell]] = [[a, *(None if a == b else percent(rates[a][b]) for b in names)] for a in names]
    tables = [filled(Table(columns, cells, "Every two policies"))]
    tables += [Table(["policy", *names], matrix, "Win rate of the row against the column, %")] if len(names) > 2 else []
    policies: list[list[Cell]] = [[name, f"`{path}`"] for name, path in content["policies"].items()]
    sections = [Section("Side by side", [chart, *tables]), Section("The policies", [Table(["policy", "path"], policies)])]
    return sections, f"{' and '.join(names)} on {content['prompts']['number']} prompts"


def _eval_policy(content: Document) -> tuple[list[Section], str]:
    policies, charts = content["policies"], list[Chart]()
    values = [name for name, each in policies[0].items() if isinstance(each, dict) and "value" in each]
    shown = [
        name for name in values if not name.startswith("reward_") or sum(each.startswith("reward_") for each in values) > 1
    ]
    paths = [each["policy"] for each in policies]
    names = dict(zip(paths, distinct(paths)))
    if "kl_sft" in values:
        for name in (each for each in shown if each.startswith(("reward", "control_"))):
            rows = [
                {"line": names[each["policy"]], "kl": each["kl_sft"]["value"], name: each[name]["value"], **_ends(each[name])}
                for each in policies
            ]
            title, x = f"{heading(name)} against the KL", words("kl_sft")
            charts.append(Chart(slug(f"policies {name}"), title, rows, "kl", name, x, words(name), kind="points", label="line"))
    means: list[list[Cell]] = [[words(name), *(span(each[name]) for each in policies)] for name in shown]
    tables = [Table(["number", *names.values()], means, "Means (95% over prompts)")]
    first, others = names[paths[0]], [each for each in policies if each["less_first"]]
    less: list[list[Cell]] = [
        [words(name), *(span(each["less_first"][name], form="+.3g") for each in others)] for name in shown
    ]
    columns = ["number", *(names[each["policy"]] for each in others)]
    tables += [Table(columns, less, f"Less {first}, paired (95%)")] if others else []
    sections = [Section("Policies", [*tables, *charts]), Section("Settings", [*_settings(content)])]
    return [each for each in sections if each.blocks], f"{len(policies)} policies on {content['prompts']} prompts"


def _eval_rm(content: Document) -> tuple[list[Section], str]:
    models = {**content["individuals"], **({"probe only": content["probe"]} if content.get("probe") else {})}
    averages = {name: content[key] for name, key in (("WA", "wa"), ("ENS", "ens")) if content.get(key)}
    sections = [Section("Models", [individual_table(models | averages, "Every model on every data set")])]
    if "averages" in content:
        rows = content["averages"]
        agreements = [agreement_table(each) for each in list(content.get("agreement", {}).values())[:1]]
        sections.insert(0, Section("WA against ENS", [Grid(accuracy_charts(rows)), accuracy_table(rows)]))
        sections += [
            Section("Agreement and cost", [*agreements, *([cost_table(content["cost"])] if content.get("cost") else [])])
        ]
    return sections, f"{len(content['individuals'])} reward models"


def _compare(content: Document) -> tuple[list[Section], str]:
    titles = {
        "task_vector_cosine": "Cosine of task vectors",
        "weight_cosine": "Cosine of weights",
        "task_vector_norm_ratio": "Norm ratio of task vectors",
        "weight_norm_ratio": "Norm ratio of weights",
    }
    groups = content["groups"]
    places = [
        (place, group["name"], f"{short(pair['first'])} / {short(pair['second'])}", pair)
        for place, group in enumerate(groups)
        for pair in group["pairs"]
    ]
    angles = [
        {"line": line, "place": place, "group": name, "angle": pair["task_vector_angle"]}
        for place, name, line, pair in places
        if is_number(pair.get("task_vector_angle"))
    ]
    x = f"place in the order of the {content['granularity']}s"
    charts = (
        [Chart("angles", "Angles between task vectors", angles, "place", "angle", x, "angle, degrees", tips=("group",))]
        if angles
        else []
    )
    for key, title in titles.items():
        rows = [{"line": line, "value": pair[key]} for _, _, line, pair in places if is_number(pair.get(key))]
        y = f"{content['granularity']}s"
        charts += [Chart(slug(key), title, rows, "value", "value", title.lower(), y, kind="histogram")] if rows else []
    cells: list[list[Cell]] = [
        [
            short(each["first"]),
            short(each["second"]),
            *(each[key] and round(each[key], 2) for key in ("task_vectors", "weights")),
        ]
        for each in content["mean_angles"]
    ]
    columns = ["first", "second", "angle of task vectors, degrees", "angle of weights, degrees"]
    table = Table(columns, cells, "Means over the groups, weighted by parameters")
    return [
        Section("Geometry", [table, *charts[: bool(angles)], Grid(charts[bool(angles) :])])
    ], f"{len(content['models'])} models from `{content['init']}`"


def _ends(estimate: Mapping[str, float], scale: float = 1) -> dict[str, float]:
    return {edge: scale * estimate[edge] for edge in ("low", "high")}


KINDS: Mapping[str, tuple[set[str], Callable[[Document], tuple[list[Section], str]]]] = {
    "front": ({"fronts", "policies", "init"}, _front),
    "lmc": ({"a", "b", "points"}, _lmc),
    "bon": ({"choosers", "controls", "points"}, _bon),
    "sxs": ({"matches", "win_rates", "policies"}, _sxs),
    "eval policy": ({"policies", "settings"}, _eval_policy),
    "eval rm": ({"individuals", "data"}, _eval_rm),
    "compare": ({"groups", "mean_angles", "models"}, _compare),
}
"""Of every document: the keys that tell it, and what reports on it."""
