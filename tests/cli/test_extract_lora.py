"""Adapters on the command line: merged, looked at, taken out again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.unit.layouts import lora


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    base = lora.base(folder / "base")
    return base, lora.adapter(folder / "adapter", base, r=3, target_modules=["q_proj", "up_proj"])


def test_a_merge_with_adapters_says_which_base_was_used(places: tuple[Path, Path], call: Call, tmp_path: Path) -> None:
    base, adapter = places
    done = call("merge", "--init", base, f"{base}+{adapter}", adapter, "-o", "out", "--method", "slerp", "--json")
    document = json.loads(done.stdout)
    assert f"{adapter}: adapter on {base}, as its adapter_config.json says" in done.stderr
    assert document["mean_angle"] == pytest.approx(0, abs=1e-3)
    call("verify", "out")
    looked = json.loads(call("inspect", f"{base}+{adapter}", "--json").stdout)
    assert looked["files"] == ["model.safetensors", "adapter_model.safetensors", "adapter_config.json"]


def test_extraction_reports_what_is_lost(places: tuple[Path, Path], call: Call, tmp_path: Path) -> None:
    base, adapter = places
    full = call("extract-lora", "--init", base, f"{base}+{adapter}", "-o", "whole", "--rank", "3", "-v")
    assert "parameters; 0 of the task vector's squared norm is lost" in re.sub(r"[\d.]+e-\d+ of", "0 of", full.stdout)
    assert "exact" in full.stdout
    part = json.loads(call("extract-lora", "--init", base, f"{base}+{adapter}", "-o", "part", "--rank", "1", "--json").stdout)
    assert 0.05 < part["lost"] < 0.9
    assert {each["rank"] for each in part["modules"]} == {1}
    said = call("extract-lora", "--init", base, f"{base}+{adapter}", "-o", "some", "--targets", "q_proj", code=0).stdout
    assert "tensors that are no factors (model.layers." in said
    call("extract-lora", "--init", base, adapter, "-o", "part", code=1)
    call("extract-lora", "--init", base, adapter, "-o", "other", "--targets", "nothing", code=2)
    assert not (tmp_path / "other").exists()
