"""`warmkit.json`: what was merged, how, and digests of everything that went in and came out."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from warmkit._version import __version__
from warmkit.common.addresses import shown
from warmkit.common.display import Displayed
from warmkit.common.json_files import dump_json, read_object
from warmkit.common.records import Form, checked, dict_of, having, is_natural, is_number, is_text, list_of, maybe
from warmkit.common.units import number
from warmkit.engine.digests import ALGORITHM, Digests, file_digest
from warmkit.errors import FormatError
from warmkit.merging.geometry import angles, norms
from warmkit.merging.types import Coefficients, Gram

MANIFEST = "warmkit.json"
FORMAT = 1


@dataclass(frozen=True, repr=False)
class GroupReport(Displayed):
    """Coefficients, norms and angles of one group of tensors in a merge.

    Attributes:
        name: The group.
        tensors: How many tensors it has.
        parameters: How many numbers.
        coefficients: One per input row, the initialisation first where it takes part; they multiply weights.
        norms: Of the task vectors (or weights), one per model; None where the method does not measure them.
        angles: Pairwise, in degrees, M lists of M; None as above, or for a pair with a zero vector.
    """

    name: str
    tensors: int
    parameters: int
    coefficients: list[float]
    norms: list[float] | None
    angles: list[list[float | None]] | None

    def _facts(self) -> Mapping[str, object]:
        pairs = [angle for i, line in enumerate(self.angles or []) for angle in line[i + 1 :]]
        return {
            "group": self.name,
            "parameters": number(self.parameters),
            "coefficients": self.coefficients,
            "norms": self.norms,
            "angles in degrees": None if self.angles is None else pairs,
        }


def report_group(name: str, tensors: int, parameters: int, row: Coefficients, gram: Gram | None) -> GroupReport:
    """Describe one group from its coefficients and Gram matrix."""
    if gram is None:
        return GroupReport(name, tensors, parameters, row.tolist(), None, None)
    degrees = [[None if math.isnan(a) else float(a) for a in line] for line in angles(gram)]
    return GroupReport(name, tensors, parameters, row.tolist(), norms(gram).tolist(), degrees)


def mean_angle(groups: Sequence[GroupReport]) -> float | None:
    """Return the mean pairwise angle over all groups, weighted by parameters, in degrees; None if none was measured."""
    pairs = [
        (angle, group.parameters)
        for group in groups
        for i, line in enumerate(group.angles or [])
        for angle in line[i + 1 :]
        if angle is not None
    ]
    weight = sum(parameters for _, parameters in pairs)
    return float(np.sum([angle * parameters for angle, parameters in pairs]) / weight) if weight else None


def span(groups: Sequence[GroupReport]) -> list[str] | None:
    """Return each row's coefficient, or its smallest and largest over the groups; None where groups have other rows."""
    if len({len(group.coefficients) for group in groups}) != 1:
        return None
    columns = zip(*(group.coefficients for group in groups))
    ends = [(f"{min(each):.3g}", f"{max(each):.3g}") for each in columns]
    return [low if low == high else f"{low} to {high}" for low, high in ends]


def write_manifest(
    folder: Path,
    description: Mapping[str, Any],
    rows: Sequence[str],
    groups: Sequence[GroupReport],
    digests: Mapping[str, Digests],
    output: int,
    sha256: bool,
) -> None:
    """Write the manifest of one output, last of its files."""
    files: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        record: dict[str, Any] = {"bytes": path.stat().st_size}
        if path.suffix != ".safetensors" or "requantised" in description.get("container", {}):
            record["xxh3-128"] = file_digest(path)
        if sha256:
            record["sha256"] = file_digest(path, "sha256")
        files[shown(path.relative_to(folder))] = record
    content = {
        "warmkit": __version__,
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **description,
        "rows": list(rows),
        "groups": [vars(group) for group in groups],
        "digest": ALGORITHM,
        "tensors": {
            name: {"output": digest.outputs[output], "inputs": list(digest.inputs)} for name, digest in sorted(digests.items())
        },
        "files": files,
    }
    (folder / MANIFEST).write_bytes(dump_json(content))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of an output.

    Raises:
        FormatError: If there is none, or it is of another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FormatError(
            f"{folder}: holds no {MANIFEST}, so it was not written by warmkit; warmkit inspect shows any checkpoint"
        )
    content = read_object(path)
    if content.get("format") != FORMAT:
        raise FormatError(f"{path}: expected a warmkit manifest of format {FORMAT}")
    return checked(content, _FORMS, path)


def _is_group(value: Any) -> bool:
    return _GROUP(value) and value.keys() == GroupReport.__annotations__.keys()


_GROUP = having(
    name=is_text,
    tensors=is_natural,
    parameters=is_natural,
    coefficients=list_of(is_number),
    norms=maybe(list_of(is_number)),
    angles=maybe(list_of(list_of(maybe(is_number)))),
)
_FORMS: dict[str, Form] = {
    "warmkit": is_text,
    "created": is_text,
    "digest": is_text,
    "method": is_text,
    "parameters": having(eta=maybe(is_number)),
    "init": maybe(having(source=is_text)),
    "models": list_of(having(source=is_text)),
    "rows": list_of(is_text),
    "groups": list_of(_is_group),
    "tensors": dict_of(having(output=is_text)),
    "files": dict_of(having(bytes=is_natural)),
    "container": maybe(having(path=is_text)),
}
"""What a manifest holds at least."""


def read_groups(folder: Path) -> tuple[GroupReport, ...]:
    """Read what the manifest of an output says of its groups.

    Raises:
        FormatError: As `read_manifest`.
    """
    return tuple(GroupReport(**group) for group in read_manifest(folder)["groups"])
