"""What verify finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import warmkit
from tests.conftest import Family, Run
from warmkit.errors import FormatError, VerificationError


@pytest.fixture
def output(family: Family, tmp_path: Path) -> Path:
    (family.init / "vocab.txt").write_text("a\nb\n")
    warmkit.merge(family.models, tmp_path / "out", init=family.init, max_shard_size="3KB", sha256=True)
    return tmp_path / "out"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "one bit of a weight": (lambda out: flip(sorted(out.glob("*.safetensors"))[0]), "was altered"),
    "a companion": (lambda out: (out / "vocab.txt").write_text("a\nc\n"), "vocab.txt: altered"),
    "a missing file": (lambda out: (out / "config.json").unlink(), "config.json: missing"),
    "a missing shard": (lambda out: sorted(out.glob("*.safetensors"))[0].unlink(), "which is not there"),
    "an extra file": (lambda out: (out / "notes.txt").write_text("x"), "notes.txt: not in the manifest"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_named(damage: str, output: Path) -> None:
    warmkit.verify(output)
    change, expected = DAMAGE[damage]
    change(output)
    with pytest.raises(VerificationError, match=expected):
        warmkit.verify(output)


def test_a_directory_that_warmkit_did_not_write_is_refused(family: Family) -> None:
    with pytest.raises(FormatError, match="was not written by warmkit"):
        warmkit.verify(family.a)


def test_the_command_reports_what_it_read(output: Path, run: Run) -> None:
    document = json.loads(run("verify", output, "--json").stdout)
    assert document["ok"]
    assert document["bytes"] > 0
    flip(sorted(output.glob("*.safetensors"))[0])
    done = run("verify", output)
    assert (done.returncode, done.stdout) == (1, "")
