"""Reports: the page of one path or several, by what they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from warmkit.errors import DataError
from warmkit.report.html_page import Badge, Page, Section, Table, literal
from warmkit.report.runs.documents import document
from warmkit.report.runs.merge import is_merge, merge
from warmkit.report.runs.part import Part, state_badge
from warmkit.report.runs.training import is_training, training
from warmkit.report.runs.warm import is_warm, warm
from warmkit.report.runs.warp import is_warp, warp


@dataclass(frozen=True)
class Kind:
    """A kind of directory that a report shows.

    Attributes:
        name: For readers.
        holds: Says whether a directory is one.
        collect: Returns what to show of it.
    """

    name: str
    holds: Callable[[Path], bool]
    collect: Callable[[Path], Part]


KINDS = (
    Kind("WARP pipeline", is_warp, warp),
    Kind("WARM pipeline", is_warm, warm),
    Kind("training run", is_training, lambda folder: training([folder])),
    Kind("merge", is_merge, merge),
)
"""The whole stands before its parts: a directory is of the first kind that holds."""
_DOCUMENT = Kind("document", Path.is_file, document)


def report(paths: Sequence[Path], kinds: Sequence[Kind] = KINDS) -> tuple[Page, list[Part]]:
    """Collect what runs left, and lay it out as one page: one part each, training runs together.

    Args:
        paths: Directories of runs and merges, and JSON documents.
        kinds: What directories may be.

    Returns:
        The page, not live, and the parts that it is made of.

    Raises:
        DataError: If a path is no run, or a file in it cannot be read.
        FormatError: If a manifest cannot be read.
    """
    found = {path: kind_of(path, kinds) for path in dict.fromkeys(paths)}
    runs = [path for path, kind in found.items() if kind.name == "training run"]
    parts = [_collected(kind, path) for path, kind in found.items() if path not in runs]
    parts += [_collected(replace(found[runs[0]], collect=lambda _: training(runs)), runs[0])] if runs else []
    return (_alone(parts[0]) if len(parts) == 1 else _together(parts, len(found))), parts


def _collected(kind: Kind, path: Path) -> Part:
    """Return what to show of a path; files of another form than warmkit's own raise anything."""
    try:
        return kind.collect(path)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"{path}: a file in it is not what a {kind.name} leaves ({type(error).__name__})") from None


def kind_of(path: Path, kinds: Sequence[Kind] = KINDS) -> Kind:
    """Say what lies at a path; of what holds several kinds, the whole.

    Raises:
        DataError: If it is no run.
    """
    if path.is_file():
        if path.suffix != ".json":
            raise DataError(f"{path}: expected a run's directory, or a JSON document that warmkit wrote")
        return _DOCUMENT
    if not path.is_dir():
        raise DataError(f"{path}: there is no such run")
    for kind in kinds:
        if kind.holds(path):
            return kind
    raise DataError(f"{path}: holds no run of warmkit{_advice(path, kinds)}")


def _advice(folder: Path, kinds: Sequence[Kind]) -> str:
    """Say where runs lie near a directory that is none."""
    below = [each for each in sorted(folder.iterdir()) if each.is_dir() and any(kind.holds(each) for kind in kinds)]
    if below:
        more = f" and {len(below) - 4} more" if len(below) > 4 else ""
        return f"; there are runs in it: {', '.join(str(each) for each in below[:4])}{more}"
    parent = folder.resolve().parent
    if folder.name == "model" and any(kind.holds(parent) for kind in kinds):
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
