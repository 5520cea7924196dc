"""What mergekit 0.1.5 itself made of small models, and what warmkit makes of the same recipes (`tests/data/mergekit`).

All is float64, so that nothing hides behind rounding: mergekit's sums of a few terms differ in their last bits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

import warmkit
from tests.cli.conftest import Call

DATA = Path(__file__).parents[1] / "data" / "mergekit"
CASES: dict[str, Any] = yaml.safe_load((DATA / "cases.yaml").read_text())
SAID = sorted(path.stem for path in (DATA / "said").glob("*.safetensors"))


@pytest.fixture
def models(call: Call, tmp_path: Path) -> Path:
    for folder in (DATA / "models").iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    return tmp_path


def test_every_result_of_mergekit_is_compared() -> None:
    assert sorted((*CASES, "several")) == SAID


@pytest.mark.parametrize("case", SAID)
def test_the_result_is_mergekits(case: str, call: Call, models: Path) -> None:
    text = yaml.safe_dump(CASES[case], sort_keys=False) if case in CASES else (DATA / "several.yaml").read_text()
    (models / "recipe.yml").write_text(text)
    call("merge", "recipe.yml", "-o", "out", "--threads", "1")
    found, said = (load_file(path) for path in (models / "out" / "model.safetensors", DATA / "said" / f"{case}.safetensors"))
    assert found.keys() == said.keys()
    for name, values in said.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("case", [case for case in SAID if (DATA / "said" / f"{case}.json").is_file()])
def test_the_tokenizer_is_mergekits(case: str, call: Call, models: Path) -> None:
    (models / "recipe.yml").write_text(yaml.safe_dump(CASES[case], sort_keys=False))
    call("merge", "recipe.yml", "-o", "out", "--threads", "1")
    said = json.loads((DATA / "said" / f"{case}.json").read_text())
    assert json.loads((models / "out" / "tokenizer.json").read_text())["added_tokens"] == said["added"]
    assert json.loads((models / "out" / "config.json").read_text())["vocab_size"] == said["vocab_size"]
    (models / "own.yaml").write_text(call("merge", "recipe.yml", "--explain").stdout)
    call("merge", "own.yaml", "-o", "own", "--threads", "1")
    assert (models / "own" / "model.safetensors").read_bytes() == (models / "out" / "model.safetensors").read_bytes()
    warmkit.verify(models / "out")
