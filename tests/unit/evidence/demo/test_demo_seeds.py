"""The script that measures the demo on several seeds goes on where it was, and writes its page between two marks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.experiments import demo_seeds
from tests.experiments.demo_seeds import known, main, text_of
from tests.experiments.pages import marks, write_between
from tests.unit.evidence.made_up import demo_document

PART = ("demo seeds", "tests.experiments.demo_seeds")
BEGIN, END = marks(*PART)


def row(seed: int, warm: float = 0.82) -> dict[str, Any]:
    document = demo_document(seed)
    next(each for each in document["reward_models"] if each["model"] == "WARM")["validation"] = warm
    return {"seed": seed, "wall": 61.26, "cpu": 99.0, "seconds": {"sft": 20.0}, "document": document}


def test_the_bars_are_counted_and_everything_is_in_tables() -> None:
    text = text_of([row(0), row(1, warm=0.79), row(2, warm=0.805)])
    assert "WARM is at most 3 points below its ensemble and above its members' mean in 2 of 3 seeds." in text
    assert "| seed | wall time, s | CPU time of its tasks, s |\n| --- | --- | --- |\n| 0 | 61 | 99 |" in text
    assert "WARM is above the mean of its members in 2 of 3 seeds" in text
    assert text.count("| 95% |") == 3


def test_the_page_is_changed_between_its_marks_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{BEGIN}\n\nold\n\n{END}\n\nAfter.\n")
    write_between(page, *PART, "new")
    write_between(page, *PART, "newer")
    assert page.read_text() == f"# Page\n\n{BEGIN}\n\nnewer\n\n{END}\n\nAfter.\n"


def test_seeds_that_are_known_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, asked = tmp_path / "seeds.jsonl", list[int]()
    file.write_text(json.dumps(row(0)) + "\n")

    def measure(folder: Path, seed: int, busy: int) -> dict[str, Any]:
        asked.append(seed)
        return row(seed)

    monkeypatch.setattr(demo_seeds, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["demo_seeds", "--seeds", "3", "-o", str(file)])
    main()
    assert (asked, sorted(known(file))) == ([1, 2], [0, 1, 2])
    assert "3 of 3 seeds" in capsys.readouterr().out


def test_the_documentation_has_the_marks() -> None:
    page = (Path(__file__).parents[4] / "docs" / "experiments.md").read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    assert page.index(BEGIN) < page.index(END)
