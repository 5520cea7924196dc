"""`warmkit warm`: the averages, the individuals, and how the runs were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warmkit.engine.manifest import MANIFEST
from warmkit.report.html_page import Block, Cell, Grid, Listing, Section, Table, literal
from warmkit.report.runs.averaged_models import (
    accuracy_charts,
    accuracy_table,
    agreement_table,
    cost_table,
    individual_table,
    orders_chart,
    partners_table,
)
from warmkit.report.runs.merge import geometry_sections
from warmkit.report.runs.part import Part, percent, read_whole_document, short, state_badge
from warmkit.report.runs.training import Run, curve_sections, is_training, open_training, overview, recipe_keys
from warmkit.report.runs.working import is_going


def is_warm(folder: Path) -> bool:
    return "warm" in recipe_keys(folder)


def warm(folder: Path) -> Part:
    """Report on a WARM pipeline, or on how far it is.

    Raises:
        DataError: If a file is of something else.
    """
    summary, runs = read_whole_document(folder / "summary.json"), runs_of(folder / "runs")
    wanted = recipe_keys(folder).get("warm") or {}
    sections = [Section("The pipeline", [*_state(folder, summary, runs, wanted)])]
    if summary is not None:
        sections += _found(folder, summary)
    if "members" not in wanted:  # which are trained already
        sections += [
            Section("The runs", [overview(runs)] if runs else ["No run has begun."]),
            *curve_sections({name: run.metrics for name, run in runs.items()}, 3, "runs"),
        ]
    sections += [
        Section("Recipe", [Listing("recipe.yaml", (folder / "recipe.yaml").read_text("utf-8"))]),
    ]
    notes = [f"{name}: {run.metrics.cut}" for name, run in runs.items() if run.metrics.cut]
    notes += (summary or {}).get("notes", [])
    subtitle = f"WARM: weight average of {len(wanted.get('members', runs))} reward models: `{literal(str(folder))}`"
    return Part("WARM pipeline", short(str(folder)), subtitle, sections, summary is not None, notes)


def runs_of(folder: Path) -> dict[str, Run]:
    """Open every run below a folder, in the order of their numbers."""
    found = [each for each in folder.glob("*") if each.is_dir() and is_training(each)]
    return {each.name: open_training(each) for each in sorted(found, key=lambda each: (len(each.name), each.name))}


def _state(folder: Path, summary: Mapping[str, Any] | None, runs: Mapping[str, Run], wanted: Mapping[str, Any]) -> list[Block]:
    finished = sum(run.summary is not None for run in runs.values())
    rows: list[Sequence[Cell]] = [
        ["state", state_badge(summary is not None, is_going(folder))],
        *([] if "members" in wanted else [["runs finished", f"{finished} of {wanted.get('runs', len(runs))}"]]),
    ]
    if summary is not None:
        final = summary["final"]
        if "score" in final:
            return [Table([], [*rows, *_scored_state(summary)])]
        validation = final.get("validation") or {}
        rows += [
            ["final model", f"{final['method']} of {', '.join(final['members'])}"],
            ["its accuracy on validation", f"{percent(validation.get('accuracy'))} %"],
            ["greedy soup", f"{', '.join(summary['greedy']['members'])}: {percent(summary['greedy']['validation'])} %"],
            ["excluded", ", ".join(summary["excluded"]) or "none"],
            *_choice(summary),
        ]
    return [Table([], rows)]


def _scored_state(summary: Mapping[str, Any]) -> list[Sequence[Cell]]:
    final = summary["final"]
    return [
        ["final model", f"{final['method']} of {', '.join(final['members'])}"],
        ["its score", final["score"]],
        ["scored by", f"`{literal(summary['scores']['command'])}`"],
        ["not in the final model", ", ".join(final["left_out"]) or "none"],
        ["excluded", ", ".join(summary["excluded"]) or "none"],
    ]


def _scored(summary: Mapping[str, Any]) -> list[Section]:
    """Return the runs that a command scored, and the averages that were tried."""
    scores = summary["scores"]
    tables = [_trained([{**each, "score": scores["individuals"][each["name"]]} for each in summary["runs"]])]
    tried: list[list[Cell]] = [[", ".join(each["members"]), each["score"]] for each in scores["tried"]]
    tables += [Table(["members", "score"], tried, "Averages that were tried")] if tried else []
    return [Section("The individuals", tables)]


def _choice(summary: Mapping[str, Any]) -> list[Sequence[Cell]]:
    """Say which pairs chose the members, where the pipeline kept some for it."""
    ranking = summary["data"].get("ranking")
    if ranking is None:
        return [["chosen on", "the validation pairs themselves: their accuracies are flattered"]]
    return [
        ["chosen by", f"`{summary['final']['choice']}`, on {ranking['pairs']} ranking pairs"],
        ["measured on", f"{summary['data']['validation']['pairs']} other validation pairs"],
        ["not in the final model", ", ".join(summary["final"]["left_out"]) or "none"],
    ]


def _found(folder: Path, summary: Mapping[str, Any]) -> list[Section]:
    if "scores" in summary:
        return _scored(summary) + _geometry(folder / "model")
    order, model = orders_chart(summary["orders"]), folder / "model"
    how = _pool(summary["runs"]) if "model" in summary["runs"][0] else _trained(summary["runs"])
    sections = [
        Section(
            "WA against ENS and the individuals",
            [Grid(accuracy_charts(summary["accuracy"])), accuracy_table(summary["accuracy"])],
        ),
        Section(
            "The individuals",
            [
                how,
                individual_table(summary["individuals"], "Every model on every data set"),
                *([order] if order else []),
                *([partners_table(summary["partners"])] if "partners" in summary else []),
                agreement_table(summary["agreement"]),
            ],
        ),
        Section("Cost", [cost_table(summary["cost"])]),
    ]
    return sections + _geometry(model)


def _geometry(model: Path) -> list[Section]:
    return geometry_sections(model, title="The final merge by layer") if (model / MANIFEST).exists() else []


def _trained(runs: Sequence[Mapping[str, Any]]) -> Table:
    told = [key for key in runs[0] if key != "name"]
    rows: list[list[Cell]] = [[each["name"], *(_cell(key, each[key]) for key in told)] for each in runs]
    return Table(["run, best first", *({"lr": "learning rate"}.get(key, key) for key in told)], rows, "How they differ")


def _cell(key: str, value: Any) -> Cell:
    if key == "init":
        return f"`{value}`"
    return f"{value:g}" if isinstance(value, float) else value


def _pool(models: Sequence[Mapping[str, Any]]) -> Table:
    return Table(["model, best first", "path"], [[each["name"], f"`{each['model']}`"] for each in models], "The pool")
