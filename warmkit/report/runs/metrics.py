"""`metrics.jsonl` of a training run, read as far as it goes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.common.records import is_number
from warmkit.errors import DataError
from warmkit.report.html_page import literal

Line = Mapping[str, Any]
VALIDATION = "validation_"
POINTS = 200  # of a line of a chart; longer runs are drawn by means over blocks
FEW = 40  # steps that are drawn as they are
EACH = 600  # steps that are drawn one by one behind their running mean


@dataclass(frozen=True)
class Metrics:
    """What is there.

    Attributes:
        lines: One a step, in their order.
        cut: What is wrong with the file, if anything is.
    """

    lines: Sequence[Line]
    cut: str | None = None

    def names(self) -> list[str]:
        """Return every value that some step has, `step` and the evaluations left out."""
        found = dict.fromkeys(name for line in self.lines for name, value in line.items() if is_number(value))
        return [name for name in found if name != "step" and not name.startswith(VALIDATION)]

    def of(self, name: str) -> list[tuple[int, float]]:
        """Return (step, value) of one name, where it is known."""
        return [(int(line["step"]), float(line[name])) for line in self.lines if is_number(line.get(name))]

    def evaluations(self) -> list[dict[str, float]]:
        """Return what the run's evaluations on the way found, without their prefix."""
        prefix = VALIDATION
        return [
            {
                "step": line["step"],
                **{name.removeprefix(prefix): value for name, value in line.items() if name.startswith(prefix)},
            }
            for line in self.lines
            if any(name.startswith(prefix) for name in line)
        ]

    def path(self) -> Sequence[Line]:
        """Return where a policy was, for charts beside the KL: its evaluations where there are several, else every step."""
        found = [each for each in self.evaluations() if "kl_sft" in each]
        return found if len(found) > 1 else self.lines


def read_metrics(file: Path) -> Metrics:
    """Read the metrics of a run up to the first line that is none.

    Raises:
        DataError: If there are lines, but not one that holds a step, or the file cannot be read.
    """
    try:
        raw = file.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return Metrics([])
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    lines: list[Line] = []
    for number, each in enumerate(raw, 1):
        line = _parsed(each)
        if line is None:
            if not lines and len(raw) > 1:
                raise DataError(f"{file}: expected a line of JSON with `step` a step, found {each[:40]!r} in line 1")
            return Metrics(lines, _cut(file, number, len(lines), len(raw)))
        lines.append(line)
    return Metrics(lines)


def _parsed(line: bytes) -> Line | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return literal(found) if isinstance(found, dict) and is_number(found.get("step")) else None


def _cut(file: Path, number: int, steps: int, lines: int) -> str:
    shown = f"{steps} {'step is' if steps == 1 else 'steps are'} shown"
    if number == lines:
        return f"`{file.name}`: line {number} is cut off; {shown}"
    return f"`{file.name}`: line {number} is no step, and the {lines - number} after it are left out; {shown}"


def smoothed(points: Sequence[tuple[int, float]]) -> tuple[list[tuple[int, float]], int]:
    """Return the running mean of noisy steps, at most `POINTS` of them, and its window; few steps stay as they are.

    Examples:
        >>> smoothed([(1, 2.0), (2, 4.0)])
        ([(1, 2.0), (2, 4.0)], 1)
    """
    if len(points) <= FEW:
        return list(points), 1
    window, stride = max(5, len(points) // 25), -(-len(points) // POINTS)
    values = [value for _, value in points]
    kept = sorted({*range(0, len(points), stride), len(points) - 1})
    return [(points[place][0], _mean(values[max(0, place + 1 - window) : place + 1])) for place in kept], window


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def blocks(lines: Sequence[Line], names: Sequence[str], count: int = 24) -> list[dict[str, float]]:
    """Return means of values over blocks of steps, at most `count`: where a policy was, without the noise of batches."""
    known = [line for line in lines if all(is_number(line.get(name)) for name in names)]
    size = max(1, -(-len(known) // count))
    parts = [known[start : start + size] for start in range(0, len(known), size)]
    return [{"step": part[-1]["step"], **{name: _mean([line[name] for line in part]) for name in names}} for part in parts]
