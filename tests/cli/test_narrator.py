"""No silence: where stderr is no terminal, a command that takes long says plain lines; on one, a bar does."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.conftest import Family
from warmkit.cli import narrator
from warmkit.cli.console import Console
from warmkit.cli.narrator import Narrator, Stage

COMMANDS = Path(__file__).parents[2] / "warmkit" / "cli"
QUICK = {"corrupt", "inspect", "methods", "recipes"}
"""Files of commands that read headers, or text."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, in a list to change it."""
    now = [0.0]
    monkeypatch.setattr(narrator.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands speak from the beginning."""
    monkeypatch.setattr(narrator, "FIRST", 0.0)


def test_a_line_says_what_is_done_of_how_much_and_how_long_the_rest_takes(clock: list[float]) -> None:
    stage = Stage("training", "steps")
    clock[0] = 40
    assert stage.line() == "training: 40 s so far"
    stage.advance(200, 800)  # of a run that was resumed: no time tells how long a step takes
    assert stage.line() == "training: 200 of 800 steps (25%), 40 s so far"
    clock[0] = 60
    stage.advance(100, 800)
    assert stage.line() == "training: 300 of 800 steps (37%), about 1 min 40 s left"
    stage.advance(500, 800)
    assert stage.line() == "training: 800 of 800 steps (100%), finishing"
    assert stage.ending() == "training: done, 800 steps in 1 min 0 s"


def test_bytes_have_their_units_and_a_total_may_be_unknown(clock: list[float]) -> None:
    merging, scoring = Stage("merging", "bytes"), Stage("scoring", "rows")
    clock[0] = 30
    merging.advance(1_200_000_000, 14_500_000_000)
    assert merging.line() == "merging: 1.2 GB of 14.5 GB (8%), 30 s so far"
    scoring.advance(12_000, 0)
    assert scoring.line() == "scoring: 12000 rows, 30 s so far"


def test_the_first_word_comes_after_ten_seconds_and_another_one_every_half_minute(clock: list[float]) -> None:
    said: list[str] = []
    told = Narrator(said.append)
    with told.stage("merging", "bytes"):
        pass
    assert not said, "what is quick is not told"
    clock[0] = 11
    with told.stage("scoring", "models"):
        told.advance(1, 2)
        told.rename("averaging")
    assert said == [
        "scoring: begins",
        "scoring: done in 0 s",
        "averaging: begins",
        "averaging: done in 0 s",
    ]
    assert (narrator.FIRST, narrator.EVERY) == (10, 30)


def test_work_without_any_progress_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrator, "FIRST", 0.01)
    monkeypatch.setattr(narrator, "EVERY", 0.01)
    said: list[str] = []
    with Narrator(said.append).watching():
        deadline = time.monotonic() + 5
        while len(said) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
    assert len(said) >= 3
    assert all(line.startswith("working: ") and line.endswith(" so far") for line in said)
    count = len(said)
    time.sleep(0.03)
    assert len(said) == count, "nothing after the end"


def test_a_merge_tells_its_stage_on_stderr_and_stdout_stays_a_document(at_once: None, call: Call, family: Family) -> None:
    merge = ("merge", "--init", family.init, family.a, family.b)
    done = call(*merge, "-o", "one", "--json")
    assert json.loads(done.stdout)["written"]
    first, *_, last = [line for line in done.stderr.splitlines() if not line.startswith("working: ")]
    assert first == "merging: begins"
    assert last.startswith("merging: done, ")
    assert last.split(", ")[1].split()[1] == "kB"
    assert call(*merge, "-o", "two", "--quiet").stderr == ""


def test_every_command_that_may_take_long_tells_its_progress() -> None:
    texts = {file.stem: file.read_text("utf-8") for file in COMMANDS.glob("*.py") if file.stem not in QUICK}
    told = re.compile(r"console\.(progress|counted)\(")
    silent = [name for name, text in texts.items() if "@command(" in text and not told.search(text)]
    assert not silent


def test_on_a_terminal_a_bar_names_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    console = Console(quiet=False, verbose=False, json=False)
    with console.watched(), console.progress("probing", unit="steps") as advance:
        assert advance is not None
        advance(1, 4)
        console.stage("fine-tuning")
        advance(1, 4)
    assert "fine-tuning" in terminal.getvalue()
    assert "begins" not in terminal.getvalue()
