"""`warmkit reproduce` measures each claim once, goes on after a kill, and says what it will not do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import forks
from tests.cli.conftest import Call
from warmkit.evidence.reproduction.claim_recipe import FOLDER
from warmkit.evidence.reproduction.seed_file import read_seed

pytest.importorskip("transformers")
pytest.importorskip("altair")

pytestmark = pytest.mark.usefixtures("children_are_forks")
TESTBED = """\
nano:
  pretraining: {steps: 20, batch_size: 16, width: 16, heads: 2}
  reward_models: {pairs: 60, held_out: 40, steps: 4}
  warp_policies: {steps: 4, batch_size: 2, samples: 2, lr: 1e-3, anchor: ema, beta: 1.0, watched: 2}
  evaluated: 2
"""
CLAIMS = ("warm-theory", "warp-slerp")


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """Recipes of two claims, on a testbed that takes a second."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name in CLAIMS:
        shutil.copy(FOLDER / f"{name}.yaml", folder)
    (folder / "testbed.yaml").write_text(TESTBED)
    return folder


def found(folder: Path) -> dict[str, Any]:
    """Return what was measured, without where, when and in what time."""
    documents = read_seed(folder / "seed-0.jsonl")
    return {each["claim"]: {key: each[key] for key in ("numbers", "points", "setting")} for each in documents}


def command(recipes: Path, out: str, *more: str) -> list[str]:
    return ["reproduce", *CLAIMS, "--size", "nano", "--recipes", str(recipes), "-o", out, *more]


@pytest.mark.slow
def test_a_killed_reproduction_goes_on_and_ends_the_same(recipes: Path, call: Call, tmp_path: Path) -> None:
    whole = json.loads(call(*command(recipes, "whole", "--json", "--jobs", "2")).stdout)
    process = forks.Popen(
        [sys.executable, "-m", "warmkit", *command(recipes, "killed", "--jobs", "1")],
        cwd=tmp_path,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    ends = time.monotonic() + 120
    while not (tmp_path / "killed/seed-0/policies/warp-1/metrics.jsonl").exists() and time.monotonic() < ends:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed/seed-0.jsonl").exists()
    _no_worker_is_left(process.pid)
    call(*command(recipes, "killed"))
    assert found(tmp_path / "killed") == found(tmp_path / "whole")  # the same seed gives the same table, however many work
    assert {claim["claim"] for claim in whole["claims"]} == set(CLAIMS)
    assert all(statement["verdict"] for claim in whole["claims"] for statement in claim["statements"])

    before = (tmp_path / "whole/seed-0.jsonl").stat().st_mtime_ns
    shown = call(*command(recipes, "whole"))
    assert (tmp_path / "whole/seed-0.jsonl").stat().st_mtime_ns == before
    assert "undecided: 1 seed" in shown.stdout
    assert "<svg" not in (tmp_path / "whole/report.html").read_text()[:2000]
    assert "undecided: 1 seed" in (tmp_path / "whole/report.html").read_text()

    _changed_recipes_are_refused(recipes, call, tmp_path)


def _no_worker_is_left(parent: int) -> None:
    """Processes of a killed parent end by themselves."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        try:
            os.killpg(parent, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(parent, signal.SIGKILL)
    pytest.fail("workers outlived their parent")


def _changed_recipes_are_refused(recipes: Path, call: Call, tmp_path: Path) -> None:
    (recipes / "testbed.yaml").write_text(TESTBED.replace("policies: {steps: 4", "policies: {steps: 6"))
    refused = call(*command(recipes, "whole"), code=1)
    assert "made with another recipe (testbed.warp_policies.steps 4 -> 6)" in refused.output
    assert "--fresh" in refused.output
    before = found(tmp_path / "whole")
    call(*command(recipes, "whole", "--fresh"))
    after = found(tmp_path / "whole")
    assert after["warp-slerp"]["points"] != before["warp-slerp"]["points"]
    assert after["warm-theory"]["points"] == before["warm-theory"]["points"]


def test_a_dry_run_says_what_is_there_and_trains_nothing(recipes: Path, call: Call, tmp_path: Path) -> None:
    shown = json.loads(call(*command(recipes, "out", "--dry-run", "--json", "--seeds", "2")).stdout)
    assert [(each["claim"], each["seed"], each["state"]) for each in shown] == [
        (claim, str(seed), "to measure") for seed in range(2) for claim in CLAIMS
    ]
    assert not (tmp_path / "out").exists()


def test_a_page_and_a_gate(recipes: Path, call: Call, tmp_path: Path) -> None:
    theory = ["reproduce", "warm-theory", "--size", "nano", "--recipes", str(recipes), "-o", "out", "--jobs", "1"]
    call(*theory, "--page", "docs/page.md", "--gate")
    text = (tmp_path / "docs/page.md").read_text()
    assert "| [warm-theory](#" in text
    pictures = list((tmp_path / "docs/figures/reproduction").glob("*.svg"))
    assert pictures
    assert all(f"({picture.relative_to(tmp_path / 'docs')})" in text for picture in pictures)

    file = recipes / "warm-theory.yaml"
    lines = file.read_text().splitlines()
    first = next(place for place, line in enumerate(lines) if line.strip().startswith(("above:", "below:", "within:")))
    lines[first] = "    above: 1e9\n    gate: true"
    file.write_text("\n".join(lines))
    failed = call(*theory, "--gate", code=1)
    assert "error: 1 robust statements are on the wrong side" in failed.output


def test_without_what_draws_a_page_that_was_asked_for_is_an_error_and_a_report_is_a_note(
    recipes: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    theory = ["reproduce", "warm-theory", "--size", "nano", "--recipes", str(recipes), "-o", "out", "--jobs", "1"]
    assert "reports need altair" in call(*theory, "--page", "page.md", code=2).output
    assert not (tmp_path / "out").exists()  # before anything is measured
    assert "no report.html" in call(*theory).output
    assert not (tmp_path / "out/report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["warp-slrp"], 2, "unknown claim 'warp-slrp'; did you mean 'warp-slerp'?"),
        (["warm-theory", "--size", "tiny"], 2, "tiny"),
        (["warm-theory", "-o", "mine"], 1, "mine: holds something that is no reproduction"),
        (["warm-theory", "-o", "other"], 1, "other: holds a reproduction of another size than small"),
    ],
)
def test_mistakes_are_named(call: Call, tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    for name, file in (("mine", "thesis.txt"), ("other", "reproduction.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"size": "nano"}')
    assert says in " ".join(call("reproduce", *arguments, code=code).output.split())


def test_a_statement_about_an_unknown_number_is_named(recipes: Path, call: Call) -> None:
    file = recipes / "warm-theory.yaml"
    number = next(line.split(":")[1].strip() for line in file.read_text().splitlines() if line.strip().startswith("number:"))
    file.write_text(file.read_text().replace(f"number: {number}", f"number: {number}x", 1))
    arguments = ["warm-theory", "--size", "nano", "--recipes", str(recipes), "-o", "out", "--jobs", "1"]
    assert f"did you mean '{number}'?" in call("reproduce", *arguments, code=2).output
