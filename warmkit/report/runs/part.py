"""Part of a report: what is shown of one run, and reading files that may be half there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from warmkit.common.records import read_record
from warmkit.report.html_page import Badge, Section, Table, literal

BAND: dict[str, Any] = {"low": "low", "high": "high"}
"""Columns of a band, as fields of a chart."""


@dataclass(frozen=True)
class Part:
    """One run, or several of a kind drawn together.

    Attributes:
        kind: What it is: `merge`, `training run`, ...
        name: What it is called on the page.
        subtitle: One line of what was done.
        sections: Of the page, headings of level 2 and deeper.
        done: Whether nothing will change any more.
        notes: What a reader must know first: files that are cut off, steps that are missing.
    """

    kind: str
    name: str
    subtitle: str
    sections: Sequence[Section]
    done: bool = True
    notes: Sequence[str] = ()


def read_document(file: Path) -> dict[str, Any]:
    """Read a JSON object that warmkit wrote; names in it are shown as they are, never as markup.

    Raises:
        CheckpointError: If it cannot be read.
        FormatError: If it is none.
    """
    return literal(read_record(file, {}))


def read_whole_document(file: Path) -> dict[str, Any] | None:
    """Read a document that is written when its work is done; None before that."""
    return read_document(file) if file.exists() else None


def state_badge(done: bool, going: bool) -> Badge:
    """Say where a run stands."""
    if done:
        return Badge("done", "good")
    return Badge("going on", "open") if going else Badge("stopped", "bad")


def short(source: str) -> str:
    """Return the last telling part of a path: `runs/run-1/model` is run-1.

    Examples:
        >>> short("out/runs/run-1/model"), short("hf://meta/llama")
        ('run-1', 'llama')
    """
    parts = [part for part in source.rstrip("/").split("/") if part]
    if len(parts) > 1 and parts[-1] == "model":
        parts.pop()
    return parts[-1] if parts else source


def distinct(sources: Sequence[str]) -> list[str]:
    """Return short names that tell paths apart: of runs of one name, with the folder that differs.

    Examples:
        >>> distinct(["a/runs/run-1", "b/runs/run-1", "c"])
        ['run-1 (a)', 'run-1 (b)', 'c']
    """
    named = [short(each) for each in sources]
    return [
        _told(each, [other for other, other_name in zip(sources, named) if other_name == name])
        for each, name in zip(sources, named)
    ]


def _told(source: str, namesakes: Sequence[str]) -> str:
    """Return the name of a path, with the first folder that none of its namesakes has in that place."""
    folders = [each.rstrip("/").removesuffix("/model").split("/")[:-1][::-1] for each in namesakes]
    own = source.rstrip("/").removesuffix("/model").split("/")[:-1][::-1]
    if len(namesakes) < 2:
        return short(source)
    telling = [folder for place, folder in enumerate(own) if sum(each[place : place + 1] == [folder] for each in folders) == 1]
    return f"{short(source)} ({telling[0]})" if telling else source


def span(estimate: Mapping[str, Any], scale: float = 1, form: str = ".3g") -> str:
    """Write a mean with its interval."""
    value, low, high = (f"{scale * estimate[key]:{form}}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def ends(estimate: Mapping[str, float], scale: float = 1) -> dict[str, float]:
    """Return the columns of a band."""
    return {edge: scale * estimate[edge] for edge in ("low", "high")}


def filled(table: Table) -> Table:
    """Return a table without the columns that are empty in every row."""
    kept = [place for place, _ in enumerate(table.columns) if any(row[place] not in ("", None) for row in table.rows)]
    return replace(
        table, columns=[table.columns[place] for place in kept], rows=[[row[place] for place in kept] for row in table.rows]
    )


def percent(value: float | None) -> str:
    """Write a share in percent, to a tenth."""
    return "" if value is None else f"{100 * value:.1f}"


def words(name: str) -> str:
    """Write the name of a value as people read it.

    Examples:
        >>> words("control_length"), words("kl_sft")
        ('control length', 'KL to the SFT model, nats')
    """
    known = {
        "kl_sft": "KL to the SFT model, nats",
        "kl_sft_sampled": "KL to the SFT model, sampled, nats",
        "kl_anchor": "KL to the anchor, nats",
        "kl_anchor_sampled": "KL to the anchor, sampled, nats",
        "entropy": "entropy, nats a token",
        "length": "length, tokens",
        "without_eos": "share without an end",
        "lr": "learning rate",
        "grad_norm": "norm of the gradient",
        "win_rate": "win rate",
    }
    return known.get(name) or (
        name.replace("_", " ", 1) if name.startswith(("control_", "reward_")) else name.replace("_", " ")
    )


def heading(name: str) -> str:
    """Write the name of a value as a title has it, without its unit.

    Examples:
        >>> heading("kl_sft")
        'KL to the SFT model'
    """
    text = words(name).split(",")[0]
    return text[:1].upper() + text[1:]
