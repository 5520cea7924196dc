"""`warmkit inspect`: what a checkpoint holds, and what a merged one was made of."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Family, Run


def test_a_merged_model_says_what_it_was_made_of(run: Run, family: Family) -> None:
    out = family.init.parent / "out"
    run("merge", "--method", "slerp", "--init", family.init, family.a, family.b, "--eta", "0.5", "-o", out)
    shown = run("inspect", out).stdout.splitlines()
    assert shown[1].startswith(f"merged by slerp from {family.a}, {family.b}; init {family.init}; eta 0.5; mean angle ")
    merged = json.loads(run("inspect", out, "--json").stdout)["merged"]
    groups = json.loads((out / "warmkit.json").read_text())["groups"]
    total = sum(each["parameters"] for each in groups)
    expected = sum(each["angles"][0][1] * each["parameters"] for each in groups) / total
    assert merged["mean_angle"] == pytest.approx(expected)
    assert json.loads(run("inspect", family.a, "--json").stdout)["merged"] is None


def test_a_damaged_manifest_is_told_and_the_weights_are_shown(run: Run, family: Family) -> None:
    (family.a / "warmkit.json").write_text("{}")
    done = run("inspect", family.a)
    assert done.returncode == 0
    assert "warmkit.json: expected a warmkit manifest" in done.stderr
    assert "merged by" not in done.stdout
    assert "tensors" in done.stdout
