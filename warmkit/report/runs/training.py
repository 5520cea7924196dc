"""Training runs: reward models, SFT, policies; several together are drawn into the same charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from warmkit.common.records import is_number
from warmkit.errors import DataError
from warmkit.report.chart import Chart
from warmkit.report.html_page import Block, Cell, Grid, Listing, Section, Table, literal
from warmkit.report.runs.curves import curves, learning, machinery, plane
from warmkit.report.runs.metrics import Metrics, read_metrics
from warmkit.report.runs.part import Part, distinct, read_whole_document, state_badge, words
from warmkit.report.runs.working import is_going

KINDS = {"rm": "reward model", "sft": "SFT", "policy": "policy", "command": "command"}


@dataclass(frozen=True)
class Run:
    """A run directory, as far as it is there.

    Attributes:
        path: The directory.
        kind: Of `KINDS`, or `run` where no recipe says it.
        recipe: As text.
        metrics: One line a step.
        summary: None until the run is done.
        going: Whether a process works in it now.
    """

    path: Path
    kind: str
    recipe: str
    metrics: Metrics
    summary: dict[str, Any] | None
    going: bool


def is_training(folder: Path) -> bool:
    return (folder / "metrics.jsonl").exists() or bool(set(recipe_keys(folder)) & set(KINDS))


def recipe_keys(folder: Path) -> dict[str, Any]:
    """Return the recipe of a run; empty where there is none that can be read."""
    try:
        content = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    except (OSError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def open_training(folder: Path) -> Run:
    """Read a run directory.

    Raises:
        DataError: If its metrics or summary are of something else.
    """
    file, recipe = folder / "recipe.yaml", recipe_keys(folder)
    kind = next((name for key, name in KINDS.items() if key in recipe), "run")
    text = file.read_text("utf-8") if file.exists() else ""
    metrics = read_metrics(folder / "metrics.jsonl")
    return Run(folder, kind, text, metrics, read_whole_document(folder / "summary.json"), is_going(folder))


def training(folders: Sequence[Path]) -> Part:
    """Report on one training run, or on several in the same charts.

    Raises:
        DataError: If a directory's files are of something else.
    """
    runs = dict(zip(distinct([str(folder) for folder in folders]), map(open_training, folders)))
    notes = [note if len(runs) == 1 else f"{name}: {note}" for name, run in runs.items() for note in _notes(run)]
    kinds = list(dict.fromkeys(run.kind for run in runs.values()))
    shown = {name: run.metrics for name, run in runs.items()}
    if len(runs) == 1:
        ((name, run),) = runs.items()
        title, where = name, f"`{literal(str(run.path))}`"
        subtitle = f"Training of a {run.kind}: {where}" if run.kind in KINDS.values() else where
    else:
        title, subtitle = f"{len(runs)} training runs", f"Training of {' and '.join(kinds)}: {', '.join(runs)}"
    sections = [
        Section("The run" if len(runs) == 1 else "The runs", [overview(runs), *_findings(runs)]),
        *curve_sections(shown),
        Section("Recipe" if len(runs) == 1 else "Recipes", _recipes(runs)),
    ]
    return Part("training run", title, subtitle, [each for each in sections if each.blocks], _done(runs), notes)


def curve_sections(runs: Mapping[str, Metrics], level: int = 2, prefix: str = "") -> list[Section]:
    """Return the charts of training: what was learned, and how the machine worked."""
    plain = {name: metrics for name, metrics in runs.items() if metrics.lines}
    sections = [
        Section("Reward and KL", plane(plain, prefix), level),
        Section("Training curves", _grid(curves(plain, learning(plain), prefix)), level),
        Section("Rates and speed", _grid(curves(plain, machinery(plain), prefix)), level),
    ]
    return [section for section in sections if section.blocks]


def _grid(charts: Sequence[Chart]) -> list[Block]:
    return [Grid(charts)] if len(charts) > 1 else list(charts)


def overview(runs: Mapping[str, Run]) -> Table:
    """Say of every run where it stands and where it ended."""
    names = [
        name for name in ("loss", "accuracy", "reward", "kl_sft", "length") if any(_last(run, name) for run in runs.values())
    ]
    columns = ["run", "state", "steps", "time", *(f"last {words(name).split(',')[0]}" for name in names)]
    rows: list[list[Cell]] = [
        [
            name,
            state_badge(run.summary is not None, run.going),
            _steps(run),
            _duration((run.summary or {}).get("seconds")),
            *(_last(run, value) for value in names),
        ]
        for name, run in runs.items()
    ]
    return Table(columns, rows, "Last values are those of the evaluation at the end, else means over the last 20 steps.")


def _done(runs: Mapping[str, Run]) -> bool:
    return all(run.summary is not None for run in runs.values())


def _steps(run: Run) -> Cell:
    return int(run.metrics.lines[-1]["step"]) if run.metrics.lines else 0


def _last(run: Run, name: str) -> float | None:
    """Return the last value that is known: of an evaluation where there is one."""
    evaluated = (run.summary or {}).get(f"validation_{name}")
    if is_number(evaluated):
        return float(f"{evaluated:.4g}")
    found = [line[name] for line in run.metrics.lines[-20:] if is_number(line.get(name))]
    return float(f"{sum(found) / len(found):.4g}") if found else None


def _duration(seconds: Any) -> str:
    if not is_number(seconds):
        return ""
    whole = int(seconds)
    if whole < 120:
        return f"{seconds:.0f} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _notes(run: Run) -> list[str]:
    notes = [] if run.metrics.cut is None else [run.metrics.cut]
    stopped = (run.summary or {}).get("stopped")
    notes += [f"Stopped early: {stopped}"] if stopped else []
    notes += (run.summary or {}).get("notes") or []
    notes += [f"Warning of the run: {each}" for each in (run.summary or {}).get("warnings") or []]
    if run.summary is None and not run.going:
        notes.append("The run is not done and no process works on it; the same command goes on where it stopped.")
    if run.summary is not None and not run.metrics.lines and run.metrics.cut is None:
        notes.append("`metrics.jsonl` is missing or empty: there are no curves.")
    return notes


def _findings(runs: Mapping[str, Run]) -> list[Block]:
    """Return accuracies on every data set, where the runs are reward models."""
    rows: list[list[Cell]] = []
    for name, run in runs.items():
        for data, report in ((run.summary or {}).get("evaluation") or {}).items():
            if not isinstance(report, dict) or "accuracy" not in report:
                raise DataError(f"{run.path / 'summary.json'}: expected accuracies under `evaluation`")
            span = f"{100 * report['accuracy']:.1f} ({100 * report['low']:.1f} to {100 * report['high']:.1f})"
            errors = [f"{report[key]:.3f}" for key in ("loss", "calibration_error", "length_correlation")]
            rows.append([name, data, report["pairs"], span, *errors])
    columns = ["run", "data", "pairs", "accuracy, % (95%)", "loss", "calibration error", "correlation with length"]
    return [Table(columns, rows, "Evaluation at the end")] if rows else []


def _recipes(runs: Mapping[str, Run]) -> list[Block]:
    return [
        Listing(f"Recipe of {name}" if len(runs) > 1 else "recipe.yaml", run.recipe) for name, run in runs.items() if run.recipe
    ]
