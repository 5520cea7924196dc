"""`warmkit warp`: iterations, their fronts and angles, and the runs that were merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warmkit.engine.manifest import MANIFEST, mean_angle, read_groups, read_manifest
from warmkit.report.html_page import Block, Cell, Listing, Section, Table, literal
from warmkit.report.runs.fronts import Point, front_charts, front_table, reward_charts
from warmkit.report.runs.layers import layered
from warmkit.report.runs.merge import ANGLES, named_groups
from warmkit.report.runs.part import Part, read_document, read_whole_document, short, span, state_badge
from warmkit.report.runs.training import Run, curve_sections, overview, recipe_keys
from warmkit.report.runs.warm import runs_of
from warmkit.report.runs.working import is_going


def is_warp(folder: Path) -> bool:
    return "warp" in recipe_keys(folder)


def warp(folder: Path) -> Part:
    """Report on a WARP pipeline, or on how far it is.

    Raises:
        DataError: If a file is of something else.
        FormatError: If a manifest cannot be read.
    """
    summary, wanted = read_whole_document(folder / "summary.json"), recipe_keys(folder).get("warp") or {}
    homes = sorted(folder.glob("iteration-*"), key=lambda home: (len(home.name), home.name))
    runs = {f"{home.name}/{name}": run for home in homes for name, run in runs_of(home / "runs").items()}
    merges = {home.name: found for home in homes if (found := _merge_of(home)) is not None}
    sections = [
        Section("The pipeline", [_state(folder, summary, runs, wanted), *_iterations(merges, runs), *_scores(summary)]),
        *_fronts(folder, summary, runs),
        *_geometry(merges),
        Section("The runs", [overview(runs)] if runs else ["No run has begun."]),
        *curve_sections({name: run.metrics for name, run in runs.items()}, 3, "runs"),
        Section("Recipe", [Listing("recipe.yaml", (folder / "recipe.yaml").read_text("utf-8"))]),
    ]
    notes = [f"{name}: {run.metrics.cut}" for name, run in runs.items() if run.metrics.cut]
    notes += (summary or {}).get("notes", [])
    iterations = wanted.get("iterations", len(homes))
    subtitle = f"WARP: {iterations} iterations of {wanted.get('runs', 'several')} policies: `{literal(str(folder))}`"
    return Part("WARP pipeline", short(str(folder)), subtitle, sections, summary is not None, notes)


def _merge_of(home: Path) -> Path | None:
    return next((home / name for name in ("merged", "init") if (home / name / MANIFEST).exists()), None)


def _state(folder: Path, summary: Mapping[str, Any] | None, runs: Mapping[str, Run], wanted: Mapping[str, Any]) -> Table:
    finished, total = sum(run.summary is not None for run in runs.values()), wanted.get("iterations", 1) * wanted.get("runs", 1)
    rows: list[list[Cell]] = [["state", state_badge(summary is not None, is_going(folder))]]
    rows.append(["runs finished", f"{finished} of {total}" if wanted.get("policies") is None else finished])
    if summary is not None:
        rows.append(["final model", f"`{summary['final']['path']}`, eta {summary['final']['eta']:g} from the SFT model"])
        if summary["front"]:
            top = max(summary["front"], key=lambda point: point["values"]["reward"]["value"])
            best = f"{span(top['values']['reward'])} at eta {top['eta']:g}, KL {span(top['values']['kl_sft'])}"
            rows.append(["highest mean reward", best])
    return Table([], rows)


def _iterations(merges: Mapping[str, Path], runs: Mapping[str, Run]) -> list[Block]:
    rows: list[list[Cell]] = []
    for name, merge in merges.items():
        manifest, angle = literal(read_manifest(merge)), mean_angle(read_groups(merge))
        steps = [
            int(run.metrics.lines[-1]["step"]) for key, run in runs.items() if key.startswith(f"{name}/") and run.metrics.lines
        ]
        rows.append(
            [
                name,
                len(manifest["models"]),
                max(steps, default=None),
                f"`{manifest['method']}`",
                manifest["parameters"].get("eta", 1.0),
                None if angle is None else round(angle, 2),
                f"`{(manifest.get('init') or {}).get('source', '')}`",
            ]
        )
    columns = ["iteration", "policies", "steps", "method", "eta", "mean angle, degrees", "started from"]
    return [Table(columns, rows, "The merges")] if rows else []


def _scores(summary: Mapping[str, Any] | None) -> list[Block]:
    """Return what a command said of policies and merges, where one was asked."""
    found = [each.get("scores", {}) for each in [*(summary or {}).get("iterations", []), summary or {}]]
    rows: list[list[Cell]] = [[name, value] for each in found for name, value in each.items()]
    return [Table(["model", "score"], rows, "Scores of the command")] if rows else []


def _fronts(folder: Path, summary: Mapping[str, Any] | None, runs: Mapping[str, Run]) -> list[Section]:
    """Return the fronts of all iterations that have one, each with the paths of training beside it."""
    known, paths = _known_fronts(folder, summary), {name: run.metrics.path() for name, run in runs.items()}
    sections = []
    if known:
        sections.append(Section("Fronts of KL and reward", [*front_charts(known, paths), front_table(known, "All points")]))
    if summary is not None and summary["soups"]:
        soups = {"soups": summary["soups"]}
        sections.append(Section("Rewarded soups", [*reward_charts(soups), front_table(soups, "All mixes")]))
    return sections


def _known_fronts(folder: Path, summary: Mapping[str, Any] | None) -> dict[str, Sequence[Point]]:
    steps = {file.stem: read_document(file)["result"] for file in sorted((folder / "steps").glob("*front.json"))}
    fronts = {f"iteration {name.split('-')[1]}": result["points"] for name, result in steps.items() if name != "front"}
    if "front" in steps and (len(fronts) > 1 or not fronts):
        fronts["from the SFT model"] = steps["front"]["points"]
    if not fronts and summary is not None and summary["front"]:
        fronts["from the SFT model"] = summary["front"]
    return {name: points for name, points in fronts.items() if points}


def _geometry(merges: Mapping[str, Path]) -> list[Section]:
    """Draw the mean angle between the policies of every iteration, layer by layer."""
    rows = [
        {"line": name, "group": group.name, "angle": angle}
        for name, merge in merges.items()
        for group in named_groups(merge)
        if (angle := mean_angle([group])) is not None
    ]
    caption = "Mean over the pairs of policies; 90 degrees are orthogonal."
    chart = layered("angles", ANGLES, rows, "angle", "angle, degrees", caption=caption, reference=90)
    return [Section("Geometry by layer", [chart])] if rows else []
