"""What a path holds, and the page of one or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from warmkit.errors import DataError
from warmkit.report.page import Badge, Page, Section, Table, literal
from warmkit.report.runs.documents import document
from warmkit.report.runs.merge import is_merge, merge
from warmkit.report.runs.part import Part, read_document, short, state_badge
from warmkit.report.runs.training import is_training, training
from warmkit.report.runs.warm import is_warm, warm
from warmkit.report.runs.warp import is_warp, warp
from warmkit.report.runs.working import is_going

REPRODUCTION, DEMO = "reproduction.json", "demo.json"


def report(paths: Sequence[Path]) -> tuple[Page, list[Part]]:
    """Collect what runs left, and lay it out as one page: one part each, training runs together.

    Args:
        paths: Directories of runs and merges, and JSON documents.

    Returns:
        The page, not live, and the parts that it is made of.

    Raises:
        DataError: If a path is no run, or a file in it cannot be read.
        FormatError: If a manifest cannot be read.
    """
    kinds = {path: kind_of(path) for path in dict.fromkeys(paths)}
    runs = [path for path, kind in kinds.items() if kind == "training run"]
    parts = [_collected(COLLECTORS[kind], path, kind) for path, kind in kinds.items() if kind != "training run"]
    parts += [_collected(lambda _: training(runs), runs[0], "training run")] if runs else []
    return (_alone(parts[0]) if len(parts) == 1 else _together(parts, len(kinds))), parts


def _collected(collect: Callable[[Path], Part], path: Path, kind: str) -> Part:
    """Return what a collector makes of a path; files of another form than warmkit's own raise anything."""
    try:
        return collect(path)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"{path}: a file in it is not what a {kind} leaves ({type(error).__name__})") from None


def kind_of(path: Path) -> str:
    """Say what lies at a path; of what holds several kinds, the whole.

    Raises:
        DataError: If it is no run.
    """
    if path.is_file():
        if path.suffix != ".json":
            raise DataError(f"{path}: expected a run's directory, or a JSON document that warmkit wrote")
        return "document"
    if not path.is_dir():
        raise DataError(f"{path}: there is no such run")
    for kind, holds in HOLDS.items():
        if holds(path):
            return kind
    raise DataError(f"{path}: holds no run of warmkit{_advice(path)}")


def _advice(folder: Path) -> str:
    """Say where runs lie near a directory that is none."""
    below = [each for each in sorted(folder.iterdir()) if each.is_dir() and any(holds(each) for holds in HOLDS.values())]
    if below:
        more = f" and {len(below) - 4} more" if len(below) > 4 else ""
        return f"; there are runs in it: {', '.join(str(each) for each in below[:4])}{more}"
    parent = folder.resolve().parent
    if folder.name == "model" and any(holds(parent) for holds in HOLDS.values()):
        return f", it is the model of one: give {folder.parent}"
    return "; expected recipe.yaml and metrics.jsonl of a training run, warmkit.json of a merge, or what warm or warp leave"


def _alone(part: Part) -> Page:
    return Page(part.name, part.subtitle, part.sections, notes=part.notes)


def _together(parts: Sequence[Part], runs: int) -> Page:
    """Lay out parts one after another below an overview."""
    rows = [
        [literal(part.name), part.kind, state_badge(True, False) if part.done else Badge("not done", "open")] for part in parts
    ]
    sections = [Section("Overview", [Table(["run", "kind", "state"], rows)])]
    for part in parts:
        sections.append(Section(part.name, [part.subtitle, *(f"**{note}**" for note in part.notes)]))
        sections += [replace(section, level=section.level + 1) for section in part.sections]
    return Page(f"{runs} runs", ", ".join(part.name for part in parts), sections)


def _reproduction(folder: Path) -> Part:
    """Report on a reproduction; it goes on while a process holds the lock of its folder."""
    from warmkit.reproduction.page import page_of
    from warmkit.reproduction.results import read_documents, results

    page = page_of(results(read_documents(folder)))
    return Part("reproduction", page.title, f"{page.subtitle} `{literal(str(folder))}`", page.sections, not is_going(folder))


def _demo(folder: Path) -> Part:
    from warmkit.reproduction.demo_page import page_of

    page = page_of(read_document(folder / DEMO))
    return Part("demo", short(str(folder)), f"{page.title}: `{literal(str(folder))}`", page.sections)


HOLDS: dict[str, Callable[[Path], bool]] = {
    "reproduction": lambda folder: (folder / REPRODUCTION).is_file(),
    "demo": lambda folder: (folder / DEMO).is_file(),
    "WARP pipeline": is_warp,
    "WARM pipeline": is_warm,
    "training run": is_training,
    "merge": is_merge,
}
"""What tells a directory, the whole before its parts."""

COLLECTORS: dict[str, Callable[[Path], Part]] = {
    "reproduction": _reproduction,
    "demo": _demo,
    "WARP pipeline": warp,
    "WARM pipeline": warm,
    "merge": merge,
    "document": document,
}
