"""Documents that verbs write with -o or print with --json: front, lmc, bon, sxs, eval policy, eval rm, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmkit.common.records import is_number
from warmkit.errors import DataError, UsageError
from warmkit.report.chart import Chart
from warmkit.report.html_page import Cell, Grid, Section, Table, literal, slug
from warmkit.report.runs.averaged_models import (
    ACCURACY,
    accuracy_charts,
    accuracy_table,
    agreement_table,
    cost_table,
    individual_table,
)
from warmkit.report.runs.fronts import front_charts, front_table, reward_charts
from warmkit.report.runs.layers import layered
from warmkit.report.runs.merge import ANGLES
from warmkit.report.runs.part import BAND, Part, distinct, ends, filled, heading, percent, read_document, short, span, words

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
    fronts, top = content["fronts"], content["best"]
    best = f"Highest mean reward: **{span(top['values']['reward'])}** ({top['method']}, eta {top['eta']:g}), "
    best += f"KL {span(top['values']['kl_sft'])}."
    policies: list[list[Cell]] = [[name, f"`{path}`"] for name, path in content["policies"].items()]
    sections = [
        Section(
            "Reward against the KL",
            [best, *front_charts(fronts, content.get("trajectories")), front_table(fronts, "All points")],
        ),
        Section("One reward against another", reward_charts(fronts, list(content["policies"]))),
        Section(
            "What was merged", [Table(["policy", "path"], [["init", f"`{content['init']}`"], *policies]), *_settings(content)]
        ),
    ]
    sections = [each for each in sections if each.blocks]
    return sections, f"Front of {', '.join(content['policies'])} on {content['prompts']} prompts"


def _settings(content: Document) -> list[Table]:
    rows: list[list[Cell]] = [
        [name, str(value)] for name, value in content.get("settings", {}).items() if not isinstance(value, (dict, list))
    ]
    return [Table(["setting", "value"], rows, "How the policies were sampled", folded=True)] if rows else []


def lmc_charts(content: Document) -> list[Chart]:
    """Draw WA, ENS and the diagonal between two reward models, a chart a data set.

    Source: WARM (Ramé et al., 2024), figure 2.
    """
    x, points = f"lambda, from {short(content['a'])} (0) to {short(content['b'])} (1)", content["points"]
    caption = "The band is the interval of WA less the diagonal, 95% over pairs: above the diagonal is connectivity."
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
        chart = Chart(slug(f"lmc {data}"), f"Accuracy on {data}", rows, "lambda", "accuracy", x, ACCURACY, **BAND)
        charts.append(replace(chart, says=_connected([each for each in points if each["data"] == data]), caption=caption))
    return charts


def _connected(points: list[Any]) -> str:
    """Say where the average is better than the mean of the two."""
    inner = [point for point in points if 0 < point["lambda"] < 1]
    gains = [100 * point["wa_less_diagonal"]["value"] for point in inner]
    if not gains:
        return ""
    sure = sum(point["wa_less_diagonal"]["low"] > 0 for point in inner)
    above = f"WA lies above the diagonal at {sum(gain > 0 for gain in gains)} of {len(gains)} places between the models"
    return f"{above}, {sure} of them surely (95%), and at most {max(gains):+.1f} points."


def _lmc(content: Document) -> tuple[list[Section], str]:
    a, b, points, charts = content["a"], content["b"], content["points"], lmc_charts(content)
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


def bon_charts(content: Document) -> list[Chart]:
    """Draw a control's score of what every chooser takes of N, a chart a control, against the KL of best-of-N.

    Source: WARM (Ramé et al., 2024), figure 13.
    """
    points, charts = content["points"], list[Chart]()
    for control in dict.fromkeys(point["control"] for point in points):
        shown = [each for each in points if each["control"] == control]
        rows = [
            {"line": each["chooser"], "kl": each["kl"], "score": each["score"]["value"], "N": each["n"], **ends(each["score"])}
            | ({"label": str(each["n"])} if each["chooser"] == shown[0]["chooser"] and each["n"].bit_count() == 1 else {})
            for each in shown
        ]
        caption = "Numbers: N. Bands are bootstrap intervals of 95% over prompts; those of different choosers move together."
        name, title, x = slug(f"bon {control}"), f"Best of N by {control}", "KL to the policy, nats: log N - (N-1)/N"
        chart = Chart(name, title, rows, "kl", "score", x, f"score of {control}", **BAND, label="label")
        charts.append(replace(chart, tips=("N",), says=_best(shown), caption=caption))
    return charts


def _best(points: list[Any]) -> str:
    """Say which chooser does best at the largest N."""
    n = max(each["n"] for each in points)
    ranked = sorted((each for each in points if each["n"] == n), key=lambda each: -each["score"]["value"])
    return f"Best of {n}: " + "; ".join(f"{each['chooser']} {span(each['score'])}" for each in ranked[:3]) + "."


def _bon(content: Document) -> tuple[list[Section], str]:
    points, charts = content["points"], bon_charts(content)
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


def sxs_chart(content: Document) -> Chart:
    """Draw who wins how often against whom."""
    matches = content["matches"]
    rows = [
        {"pair": f"{each['a']} against {each['b']}", "rate": 100 * each["win_rate"]["value"], **ends(each["win_rate"], 100)}
        for each in matches
    ]
    sure = [each for each in matches if each["win_rate"]["low"] > 0.5 or each["win_rate"]["high"] < 0.5]
    says = f"Of {len(matches)} pairs {len(sure)} {'has' if len(sure) == 1 else 'have'} a winner that is sure (95%)."
    caption = "Ties are half a win; 50 is a draw. Lines are intervals of 95% over prompts."
    y = "wins of the first, %"
    chart = Chart("win-rates", "Win rates", rows, "pair", "rate", "pair", y, **BAND, kind="points", reference=50)
    return replace(chart, zero=True, says=says, caption=caption)


def _sxs(content: Document) -> tuple[list[Section], str]:
    matches, names, chart = content["matches"], list(content["policies"]), sxs_chart(content)
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
                {"line": names[each["policy"]], "kl": each["kl_sft"]["value"], name: each[name]["value"], **ends(each[name])}
                for each in policies
            ]
            title, x = f"{heading(name)} against the KL", words("kl_sft")
            charts.append(Chart(slug(f"policies {name}"), title, rows, "kl", name, x, words(name), kind="points", **BAND))
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


def compare_charts(content: Document) -> list[Chart]:
    """Draw angles over the layers, and cosines and norm ratios of every pair.

    Raises:
        UsageError: If there is no pair.

    Source: WARP (Ramé et al., 2024), figure 11.
    """
    if len(content["models"]) < 2:
        raise UsageError("a comparison is drawn of pairs: give at least two models")
    titles = {
        "task_vector_cosine": "Cosine of task vectors",
        "weight_cosine": "Cosine of weights",
        "task_vector_norm_ratio": "Norm ratio of task vectors",
        "weight_norm_ratio": "Norm ratio of weights",
    }
    kind, names = content["granularity"], dict(zip(content["models"], distinct(content["models"])))
    pairs = [
        {"line": f"{names[pair['first']]} / {names[pair['second']]}", "group": group["name"], **pair}
        for group in content["groups"]
        for pair in group["pairs"]
    ]
    rows = [pair for pair in pairs if is_number(pair["task_vector_angle"])]
    more: dict[str, Any] = {"kind": kind, "reference": 90, "caption": "90 degrees are orthogonal."}
    charts = [layered("angles", ANGLES, rows, "task_vector_angle", "angle, degrees", **more)] if rows else []
    for key, title in titles.items():
        values = [{"line": pair["line"], "value": pair[key]} for pair in pairs if is_number(pair.get(key))]
        caption = f"A mark a {kind}." if len({pair["line"] for pair in pairs}) > 1 else ""
        chart = Chart(slug(key), title, values, "value", "value", title.lower(), f"{kind}s", kind="histogram", caption=caption)
        charts += [chart] if values else []
    return charts


def run_charts(content: Document) -> list[Chart]:
    """Draw how far a run moved from its init and how it turned, over its steps, and the angles of its layers to its end."""
    run, rows = content["run"], list[dict[str, Any]]()
    for step, far, moved in zip(run["steps"], run["distances"], run["moves"]):
        rows += [{"line": "from the init", "step": step, "norm": far}, {"line": "since the last", "step": step, "norm": moved}]
    turns = [{"step": step, "angle": turn} for step, turn in zip(run["steps"], run["turns"]) if turn is not None]
    says = f"At the end it is {run['distances'][-1]:.3g} from its init, after {sum(run['moves']):.3g} of way."
    if run["participation"] is not None:
        says += f" It moved in {run['participation']:.1f} directions; one explains {100 * run['first_share']:.0f}%."
    more: dict[str, Any] = {"reference": 90, "caption": "90 degrees: a move says nothing of the next; 180: it is taken back."}
    charts = [
        Chart("distances", "How far the run moved", rows, "step", "norm", y_title="norm over all weights", says=says, zero=True)
    ]
    charts += [
        Chart("turns", "How the run turned", turns, "step", "angle", y_title="angle between moves, degrees", **more)
    ] * bool(turns)
    last, names = content["models"][-1], dict(zip(content["models"], distinct(content["models"])))
    to_end = [
        {"line": f"{names[pair['first']]} / {names[last]}", "group": group["name"], **pair}
        for group in content["groups"]
        for pair in group["pairs"]
        if pair["second"] == last and is_number(pair["task_vector_angle"])
    ]
    kind = content["granularity"]
    title = "Angles between task vectors and the last one"
    return charts + [layered("angles", title, to_end, "task_vector_angle", "angle, degrees", kind=kind)] * bool(to_end)


def _compare(content: Document) -> tuple[list[Section], str]:
    charts = compare_charts(content) if len(content["models"]) > 1 else []
    whole = [Section("The run", run_charts(content))] if "run" in content else []
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
    sections = [*whole, Section("Geometry", [table, *charts[:1], Grid(charts[1:])])]
    return sections, f"{len(content['models'])} models from `{content['init']}`"


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
