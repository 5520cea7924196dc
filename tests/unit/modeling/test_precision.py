"""Precision: what the device computes fast by default, one line where another was asked for, and one for the whole of a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from tests.unit.training import tiny
from warmkit.modeling import precision
from warmkit.modeling.precision import autocast, fast_precision, slow_precision
from warmkit.training.reward_modeling import train_reward_model
from warmkit.training.trained_precision import with_precision

CPU = torch.device("cpu")


def processor(monkeypatch: pytest.MonkeyPatch, **instructions: bool) -> None:
    """Stand in for a processor, as torch describes it."""
    monkeypatch.setattr(precision.torch, "cpu", SimpleNamespace(get_capabilities=lambda: {"avx2": True, **instructions}))


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16", "sve_bf16"])
def test_bfloat16_is_fast_where_the_processor_has_instructions_for_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    processor(monkeypatch, avx512_f=True, **{name: True})
    assert fast_precision(CPU) == "bfloat16"


@pytest.mark.parametrize("instructions", [{}, {"avx512_f": True}, {"avx512_f": True, "avx512_bf16": False}])
def test_float32_is_fast_elsewhere(monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool]) -> None:
    processor(monkeypatch, **instructions)
    assert fast_precision(CPU) == "float32"


def test_an_older_torch_is_asked_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision.torch, "cpu", SimpleNamespace(_is_avx512_bf16_supported=lambda: True))
    assert fast_precision(CPU) == "bfloat16"
    monkeypatch.setattr(precision.torch, "cpu", SimpleNamespace())
    assert fast_precision(CPU) == "float32"


def test_this_processor_is_described_by_torch() -> None:
    assert fast_precision(CPU) in {"float32", "bfloat16"}
    known = torch.cpu.get_capabilities()
    if known["architecture"] == "x86_64":
        assert {"avx512_bf16", "amx_bf16"} <= known.keys(), "the names that are asked for"


@pytest.mark.parametrize("has", [True, False])
def test_auto_computes_in_what_is_fast(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    processor(monkeypatch, avx512_bf16=has)
    one = torch.ones(2, 2)
    computed = {}
    for name in ("auto", "float32", "bfloat16"):
        with autocast(name, CPU):
            computed[name] = (one @ one).dtype
    assert computed == {"auto": torch.bfloat16 if has else torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}


def test_a_slow_precision_that_is_asked_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch)
    assert "bfloat16 is slow here" in (slow_precision("bfloat16") or "")
    assert slow_precision("float32") is None
    assert slow_precision("auto") is None
    processor(monkeypatch, avx512_bf16=True)
    assert slow_precision("bfloat16") is None


@pytest.mark.parametrize(("has", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_a_run_records_the_precision_that_it_chose_and_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has: bool, chosen: str
) -> None:
    recipe = tiny.recipe(tmp_path, precision="auto", steps=2)
    processor(monkeypatch, avx512_bf16=has)
    first = train_reward_model(recipe)
    assert yaml.safe_load((first.path.parent / "recipe.yaml").read_text())["rm"]["precision"] == chosen
    processor(monkeypatch, avx512_bf16=not has)
    assert with_precision(recipe, "rm").rm.precision == chosen
    assert train_reward_model(recipe).resumed == 2, "the same run, on another processor"


def test_a_recipe_that_names_its_precision_keeps_it(tmp_path: Path) -> None:
    for name in ("float32", "bfloat16"):
        recipe = tiny.recipe(tmp_path, precision=name)
        assert with_precision(recipe, "rm") is recipe


@pytest.mark.parametrize("text", ["", "rm: 3\n", "rm: {precision: half}\n", "rm: [\n", "\x00"])
def test_what_is_no_recipe_says_nothing_about_the_precision(tmp_path: Path, text: str) -> None:
    recipe = tiny.recipe(tmp_path, precision="auto")
    run = Path(recipe.output.path)
    run.mkdir()
    (run / "recipe.yaml").write_text(text)
    assert with_precision(recipe, "rm").rm.precision == fast_precision()
