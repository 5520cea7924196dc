"""What the page about pipelines shows works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from tests.conftest import make_family

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "ci.md").read_text("utf-8"), re.DOTALL)
RECIPE = """\
merge:
  method: {method}
  init: {init}
  models: [{a}, {b}]
output:
  path: never
"""


def test_the_hook_lets_recipes_pass_that_can_be_merged_and_no_others(tmp_path: Path) -> None:
    (hook,) = yaml.safe_load(BLOCKS[1])["repos"][0]["hooks"]
    family = make_family(tmp_path)
    places = {"init": family.init, "a": family.a, "b": family.b}
    (tmp_path / "merge-good.yaml").write_text(RECIPE.format(method="slerp", **places))
    (tmp_path / "merge-bad.yaml").write_text(RECIPE.format(method="slurp", **places))
    (tmp_path / "warmkit").write_text(f'#!/bin/sh\nexec {sys.executable} -m warmkit "$@"\n')
    (tmp_path / "warmkit").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def commit(*recipes: str) -> subprocess.CompletedProcess[str]:
        assert all(re.search(hook["files"], f"recipes/{each}") for each in recipes)
        command = f"{hook['entry']} {' '.join(recipes)}"
        return subprocess.run(
            ["bash", "-c", command], check=False, capture_output=True, text=True, cwd=tmp_path, env=environment
        )

    assert commit("merge-good.yaml", "merge-good.yaml").returncode == 0
    done = commit("merge-good.yaml", "merge-bad.yaml")
    assert done.returncode == 1
    assert "merge-bad.yaml:2: merge.method: unknown method 'slurp'" in done.stderr
    assert not (tmp_path / "never").exists()


def test_the_workflow_is_one() -> None:
    workflow = yaml.safe_load(BLOCKS[0])
    steps = workflow["jobs"]["merge"]["steps"]
    assert any("--at-least" in each.get("run", "") for each in steps)


def test_the_container_copies_what_is_there() -> None:
    lines = (ROOT / "Containerfile").read_text("utf-8").splitlines()
    sources = [source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]]
    assert {"pyproject.toml", "warmkit"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
