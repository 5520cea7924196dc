"""Report of a merge: what went in, how it was mixed, its geometry, and what the manifest holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmkit.common.records import is_number, list_of
from warmkit.engine.manifest import MANIFEST, GroupReport, mean_angle, read_groups, read_manifest
from warmkit.engine.replaceable import parts_of
from warmkit.report.chart import Chart
from warmkit.report.html_page import Badge, Block, Cell, Grid, Section, Table, literal, slug
from warmkit.report.runs.layers import layered
from warmkit.report.runs.part import Part, distinct, short

PAIRS = 6  # lines of angles; more pairs are drawn by their mean and range
ANGLES = "Angles between task vectors"


def is_merge(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or bool(sweep(folder))


def sweep(folder: Path) -> list[Path]:
    """Return the merges of a LITI sweep, by eta, or the averages of one reading of a run."""
    return sorted(parts_of(folder), key=lambda each: read_manifest(each)["parameters"].get("eta", 1.0))


def merge(folder: Path) -> Part:
    """Report on a merge, or on a LITI sweep of them.

    Raises:
        FormatError: If a manifest cannot be read.
    """
    folders = [folder] if (folder / MANIFEST).is_file() else sweep(folder)
    manifest = literal(read_manifest(folders[0]))
    schedule = manifest["parameters"].get("schedule")
    etas = [f"{read_manifest(each)['parameters'].get('eta', 1.0):g}" for each in folders]
    names = [each.name for each in folders] if len(folders) > 1 else [str(schedule)]
    varied = ("eta", etas) if schedule is None else ("schedule", names)
    at = f" at {varied[0]} {', '.join(varied[1])}" if len(folders) > 1 else ""
    where = literal(str(folder))
    subtitle = f"{manifest['method']} of {_count(len(manifest['models']), 'model')}{at}: `{where}`"
    sections = [
        Section("What was merged", [_facts(manifest, *varied), _models(manifest)]),
        *geometry_sections(folders[0]),
        Section("What the manifest vouches for", [*_verified(folders)]),
    ]
    return Part("merge", short(str(folder)), subtitle, sections)


def geometry_sections(folder: Path, level: int = 2, title: str = "Geometry by layer") -> list[Section]:
    """Return norms, angles and coefficients of every group of a merge, in layer order.

    Raises:
        FormatError: If the manifest cannot be read.
    """
    manifest, groups = literal(read_manifest(folder)), named_groups(folder)
    names = distinct([each["source"] for each in manifest["models"]])
    prefix = slug(title)
    charts = [
        _angles(groups, names, prefix),
        _norms(groups, names, prefix),
        _coefficients(groups, _row_names(manifest), prefix),
    ]
    whole, angle = _table(groups, names), mean_angle(groups)
    text = "" if angle is None else f"Mean angle between two task vectors, weighted by parameters: **{angle:.2f} degrees**."
    shown: list[Block] = [text] if text else []
    return [Section(title, [*shown, Grid([each for each in charts if each is not None]), whole], level)]


def named_groups(folder: Path) -> list[GroupReport]:
    """Return the groups of a merge, their names as text that is only shown.

    Raises:
        FormatError: If the manifest cannot be read.
    """
    return [replace(group, name=literal(group.name)) for group in read_groups(folder)]


def _facts(manifest: Mapping[str, Any], varied: str, values: Sequence[str]) -> Table:
    parameters, init = manifest["parameters"], manifest.get("init")
    rows: list[Sequence[Cell]] = [["method", f"`{manifest['method']}`"], ["models", len(manifest["models"])]]
    if init:
        rows.append(["init", f"`{init['source']}`"])
    rows.append([varied, ", ".join(values)])
    skipped = ("eta", "coefficients", "checkpoints", varied)  # the table of models has the others
    rows += [[name, _written(value)] for name, value in parameters.items() if value is not None and name not in skipped]
    rows += [["parameters", f"{sum(group['parameters'] for group in manifest['groups']):,}"], ["written", manifest["created"]]]
    rows.append(["warmkit", manifest["warmkit"]])
    return Table([], rows)


_are_numbers = list_of(is_number)


def _written(value: Any) -> str:
    return ", ".join(f"{each:g}" for each in value) if _are_numbers(value) else str(value)


def _row_names(manifest: Mapping[str, Any]) -> list[str]:
    """Return what multiplies what: the init first where it takes part."""
    rows: list[str] = manifest["rows"]
    names = distinct(rows)
    return ["init", *distinct(rows[1:])] if manifest.get("init") and rows[0] == manifest["init"]["source"] else names


def _models(manifest: Mapping[str, Any]) -> Table:
    names, groups = _row_names(manifest), manifest["groups"]
    weights = [group["parameters"] for group in groups]
    rows: list[list[Cell]] = []
    if any(len(group["coefficients"]) != len(names) for group in groups):  # task vectors were edited, not combined
        return Table(["model", "source"], [[name, f"`{row}`"] for name, row in zip(names, manifest["rows"])], "What was merged")
    for place, source in enumerate(manifest["rows"]):
        shares = [group["coefficients"][place] for group in groups]
        mean = sum(share * weight for share, weight in zip(shares, weights)) / max(1, sum(weights))
        spread = "the same" if max(shares) - min(shares) < 1e-12 else f"{min(shares):.4f} to {max(shares):.4f}"
        rows.append([names[place], f"`{source}`", round(mean, 5), spread])
    return Table(["model", "source", "coefficient, mean", "over the layers"], rows, "What multiplies the weights of each")


# ---- geometry -------------------------------------------------------------------------------------------------------


def _angles(groups: Sequence[GroupReport], names: Sequence[str], prefix: str) -> Chart | None:
    rows = list[dict[str, Any]]()
    many = math.comb(len(names), 2) > PAIRS
    for group in groups:
        pairs = [
            (f"{names[i]} / {names[j]}", angle)
            for i, line in enumerate(group.angles or [])
            for j, angle in enumerate(line)
            if i < j and angle is not None
        ]
        if many and pairs:
            values = [angle for _, angle in pairs]
            ends = {"angle": sum(values) / len(values), "low": min(values), "high": max(values)}
            rows.append({"group": group.name, "line": "mean of all pairs", **ends})
        else:
            rows += [{"group": group.name, "line": pair, "angle": angle} for pair, angle in pairs]
    if not rows:
        return None
    band: dict[str, Any] = {"low": "low", "high": "high"} if many else {}
    caption = "90 degrees are orthogonal" + ("; the band is the range over pairs." if many else ".")
    return layered(f"{prefix}-angles", ANGLES, rows, "angle", "angle, degrees", caption=caption, reference=90, **band)


def _norms(groups: Sequence[GroupReport], names: Sequence[str], prefix: str) -> Chart | None:
    rows = [
        {"group": group.name, "line": name, "norm": norm} for group in groups for name, norm in zip(names, group.norms or [])
    ]
    caption = "Euclidean norms of what the method merged: task vectors where there is an init, else weights."
    return layered(f"{prefix}-norms", "Norms", rows, "norm", "Euclidean norm", zero=True, caption=caption) if rows else None


def _coefficients(groups: Sequence[GroupReport], names: Sequence[str], prefix: str) -> Chart | None:
    """Draw what multiplies each model; None where it is the same in all layers."""
    spread = max((max(row) - min(row) for row in zip(*(group.coefficients for group in groups))), default=0)
    if spread < 1e-9:
        return None
    rows = [
        {"group": group.name, "line": name, "coefficient": share}
        for group in groups
        for name, share in zip(names, group.coefficients)
    ]
    return layered(f"{prefix}-coefficients", "Coefficients", rows, "coefficient", "coefficient of the weights")


def _table(groups: Sequence[GroupReport], names: Sequence[str]) -> Table:
    measured = any(group.norms for group in groups)
    columns = ["group", "tensors", "parameters", *(["mean angle, degrees", "least norm", "largest norm"] if measured else [])]
    rows: list[list[Cell]] = []
    for group in groups:
        angle, norms = mean_angle([group]), group.norms or []
        extra: list[Cell] = [angle and round(angle, 3), round(min(norms), 4) if norms else None]
        extra.append(round(max(norms), 4) if norms else None)
        rows.append([group.name, group.tensors, group.parameters, *(extra if measured else [])])
    return Table(columns, rows, f"All {_count(len(groups), 'group')} of {_count(len(names), 'model')}", folded=True)


# ---- what was verified ----------------------------------------------------------------------------------------------


def _verified(folders: Sequence[Path]) -> list[str | Table]:
    """Say what has a digest, and whether the files are there in their sizes; contents are not read again."""
    rows: list[list[Cell]] = []
    for folder in folders:
        manifest = read_manifest(folder)
        wrong = [name for name, record in manifest["files"].items() if not _has_size(folder / name, record["bytes"])]
        badge = Badge(f"missing or of another size: {', '.join(wrong)}", "bad") if wrong else Badge("sizes as recorded", "good")
        rows.append([f"`{literal(str(folder))}`", len(manifest["tensors"]), len(manifest["files"]), manifest["digest"], badge])
    command = f"`warmkit verify {literal(str(folders[0] if len(folders) == 1 else folders[0].parent))}`"
    return [
        Table(["merge", "tensors with digests", "files", "digest", "now"], rows),
        f"Every tensor of the result and of the inputs has a digest in `{MANIFEST}`. {command} reads all of it again.",
    ]


def _has_size(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
