"""`metrics.jsonl`, whole or cut off anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from warmkit.errors import DataError
from warmkit.report.runs.metrics import POINTS, blocks, read_metrics, smoothed

LINES = [
    json.dumps({"step": step, "loss": 1 / step, "validation_loss": 2.0 if step % 2 == 0 else None}) for step in range(1, 9)
]


def written(folder: Path, text: str) -> Path:
    file = folder / "metrics.jsonl"
    file.write_text(text)
    return file


def test_whole_metrics_are_read_whole(tmp_path: Path) -> None:
    metrics = read_metrics(written(tmp_path, "\n".join(LINES) + "\n"))
    assert metrics.cut is None
    assert metrics.names() == ["loss"]
    assert metrics.of("loss") == [(step, 1 / step) for step in range(1, 9)]


def test_a_cut_is_named_and_what_is_there_is_kept(tmp_path: Path) -> None:
    text = "\n".join(LINES)
    for length in range(len(LINES[0]) + 2, len(text)):
        metrics = read_metrics(written(tmp_path, text[:length]))
        whole = sum(line in LINES for line in text[:length].splitlines())
        assert len(metrics.lines) == whole
        if whole < len(text[:length].splitlines()):
            assert (
                metrics.cut
                == f"`metrics.jsonl`: line {whole + 1} is cut off; {whole} step{'s are' if whole > 1 else ' is'} shown"
            )


def test_a_broken_line_in_the_middle_is_named_with_what_follows_it(tmp_path: Path) -> None:
    metrics = read_metrics(written(tmp_path, "\n".join([*LINES[:3], "{broken", *LINES[4:]])))
    assert metrics.cut == "`metrics.jsonl`: line 4 is no step, and the 4 after it are left out; 3 steps are shown"


def test_metrics_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a line of JSON with `step` a step, found .* in line 1"):
        read_metrics(written(tmp_path, "a,b\n1,2\n"))


def test_no_metrics_are_no_steps(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl").lines == []


def test_evaluations_are_the_steps_that_have_one(tmp_path: Path) -> None:
    lines = [json.dumps({"step": 1, "loss": 3}), json.dumps({"step": 2, "loss": 2, "validation_loss": 5})]
    assert read_metrics(written(tmp_path, "\n".join(lines) + "\n")).evaluations() == [{"step": 2, "loss": 5}]


def test_long_runs_are_drawn_by_their_running_mean() -> None:
    points = [(step, float(step % 2)) for step in range(1, 5001)]
    line, window = smoothed(points)
    assert window == 200
    assert POINTS <= len(line) <= POINTS + 1
    assert line[-1] == (5000, 0.5)
    assert all(abs(value - 0.5) < 0.01 for step, value in line if step > window)


def test_blocks_of_steps_keep_the_mean_of_everything() -> None:
    lines = [{"step": step, "kl_sft": step / 10, "reward": step * 2.0} for step in range(1, 49)]
    found = blocks(lines, ["kl_sft", "reward"])
    assert len(found) == 24
    assert found[0] == {"step": 2, "kl_sft": pytest.approx(0.15), "reward": 3.0}
    assert sum(each["reward"] for each in found) / 24 == pytest.approx(sum(line["reward"] for line in lines) / 48)
