"""`warmkit recipes`: what ships is what lies in `recipes/`, in an installed package too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.cli.conftest import Call

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "recipes").glob("*.yaml"))


def test_every_recipe_is_listed_with_its_command(call: Call) -> None:
    found = {each["name"]: each for each in json.loads(call("recipes", "--json").stdout)}
    assert list(found) == [file.stem for file in FILES]
    assert {name.split("-")[0]: each["command"].split()[-1] for name, each in found.items()} == {
        kind: kind for kind in ("merge", "policy", "rm", "sft", "warm", "warp")
    }
    assert found["rm-docstrings"]["what"] == "One reward model on the docstring task"
    shown = call("recipes").stdout
    assert all(name in shown for name in found)


def test_a_recipe_is_printed_or_copied(call: Call, tmp_path: Path) -> None:
    file = ROOT / "recipes" / "warm-docstrings.yaml"
    for name in ("warm-docstrings", "recipes/warm-docstrings.yaml"):
        assert call("recipes", name).stdout == file.read_text("utf-8")
    said = call("recipes", "warm-docstrings", "-o", "new/my.yaml").stdout
    assert said == "new/my.yaml: run it with warmkit warm new/my.yaml\n"
    assert Path("new/my.yaml").read_bytes() == file.read_bytes()
    assert json.loads(call("recipes", "warm-docstrings", "-o", "new", "--json").stdout)["path"] == "new/warm-docstrings.yaml"
    assert "already exists" in call("recipes", "rm-docstrings", "-o", "new/my.yaml", code=1).stderr
    call("recipes", "rm-docstrings", "-o", "new/my.yaml", "--force")
    assert Path("new/my.yaml").read_bytes() == (ROOT / "recipes" / "rm-docstrings.yaml").read_bytes()


def test_what_is_not_there_leads_to_what_is(call: Call) -> None:
    assert "did you mean 'warm-docstrings'?" in call("recipes", "warm-docstring", code=2).stderr
    assert "warmkit recipes NAME -o FILE" in call("recipes", "-o", "my.yaml", code=2).stderr
    said = call("warm", "recipes/warm-docstrings.yaml", code=2).stderr
    assert "warmkit recipes warm-docstrings -o recipes/warm-docstrings.yaml" in said
    Path("warm.yaml").touch()
    assert "warn.yaml: no such file; did you mean 'warm.yaml'?" in call("warm", "warn.yaml", code=2).stderr
    Path("warm.yaml").unlink()
    assert "something.yaml: no such file; warmkit recipes lists" in call("warm", "something.yaml", code=2).stderr


def test_a_wheel_brings_every_recipe(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source, unpacked = tmp_path / "source", tmp_path / "unpacked"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("warmkit", "recipes"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, text=True)
    with zipfile.ZipFile(source / done.stdout.splitlines()[-1]) as wheel:
        wheel.extractall(unpacked)
    assert sorted(file.name for file in (unpacked / "warmkit" / "recipes" / "shipped").iterdir()) == [
        file.name for file in FILES
    ]
    line = [sys.executable, "-m", "warmkit", "recipes", "rm-docstrings"]
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    shown = subprocess.run(line, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert shown == (ROOT / "recipes" / "rm-docstrings.yaml").read_text("utf-8")
