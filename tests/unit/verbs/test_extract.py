"""Adapters taken back out of models: exact where they can be, and honest about what they lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import warmkit
from tests.conftest import save, tensors_of
from tests.unit.layouts import lora
from warmkit.errors import OutputError, UsageError


@pytest.mark.parametrize(("architecture", "config"), [("llama", {}), ("gpt2", {"fan_in_fan_out": True}), ("bert", {})])
def test_a_task_vector_of_that_rank_is_restored(architecture: str, config: dict[str, Any], tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base", architecture)
    adapter = lora.adapter(tmp_path / "adapter", base, r=4, lora_alpha=6, target_modules="all-linear", **config)
    dense = lora.save_dense(tmp_path / "dense", base, adapter)
    made = warmkit.extract_lora(dense, tmp_path / "out", init=base, rank=4)
    expected, before = lora.dense(base, adapter), tensors_of(base)
    adapted = {f"{each.name}.weight" for each in made.modules}
    for source in (tmp_path / "out", f"{base}+{tmp_path / 'out'}"):
        for name, value in tensors_of(source).items():
            torch.testing.assert_close(value, expected[name] if name in adapted else before[name], rtol=1e-4, atol=2e-6)
    for name, value in lora.dense(base, tmp_path / "out").items():  # what peft makes of it
        if name in adapted:
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=2e-6)
    assert all(each.squared_loss <= 1e-10 * each.squared_norm for each in made.modules)
    assert {each.rank for each in made.modules} == {4}


def test_the_report_says_what_is_lost(tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base")
    before = tensors_of(base)
    generator = torch.Generator().manual_seed(5)
    after = {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in before.items()}
    save(tmp_path / "model", after, json.loads((base / "config.json").read_text()))
    made = warmkit.extract_lora(tmp_path / "model", tmp_path / "out", init=base, rank=5)
    found = tensors_of(f"{base}+{tmp_path / 'out'}")
    lost = sum(float((found[name] - value).double().square().sum()) for name, value in after.items())
    total = sum(float((before[name] - value).double().square().sum()) for name, value in after.items())
    assert made.lost == pytest.approx(lost / total, rel=1e-4)
    assert made.squared_norm == pytest.approx(total, rel=1e-5)
    for each in made.modules:
        difference = (after[f"{each.name}.weight"] - before[f"{each.name}.weight"]).double()
        spectrum = torch.linalg.svdvals(difference).square()
        assert each.squared_loss == pytest.approx(float(spectrum[5:].sum()), rel=1e-4)
    assert {each.name for each in made.rest} == {n for n in before if "norm" in n or "embed" in n or "lm_head" in n}
    assert not any(each.saved for each in made.rest)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "bert"])
def test_the_rest_saved_whole_is_the_rest(architecture: str, tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base", architecture)
    before = tensors_of(base)
    generator = torch.Generator().manual_seed(5)
    after = {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in before.items()}
    config = json.loads((base / "config.json").read_text())
    save(tmp_path / "model", after, config)
    made = warmkit.extract_lora(tmp_path / "model", tmp_path / "out", init=base, rank=24, save_rest=True)
    found, peft = tensors_of(tmp_path / "out"), lora.dense(base, tmp_path / "out")
    for name, value in after.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-6)
        torch.testing.assert_close(peft[name], value, rtol=1e-4, atol=2e-6)
    assert made.lost < 1e-10
    assert all(each.saved for each in made.rest)


def test_ranks_follow_the_energy(tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base")
    tuned = lora.adapter(tmp_path / "adapter", base, r=6, target_modules=["q_proj", "down_proj"], rank_pattern={"q_proj": 2})
    made = warmkit.extract_lora(f"{base}+{tuned}", tmp_path / "out", init=base, energy=0.999, targets=["q_proj", "down_proj"])
    assert {each.rank for each in made.modules if "q_proj" in each.name} == {2}
    assert {each.rank for each in made.modules if "down_proj" in each.name} <= {5, 6}
    assert made.lost < 1e-3
    peft = lora.dense(base, tmp_path / "out")
    for name, value in tensors_of(tmp_path / "out").items():
        torch.testing.assert_close(peft[name], value, rtol=1e-5, atol=1e-6)


def test_a_model_that_is_its_base_gives_an_adapter_of_zeros(tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base")
    made = warmkit.extract_lora(base, tmp_path / "out", init=base, rank=2)
    assert made.lost == 0
    assert all(torch.equal(value, tensors_of(base)[name]) for name, value in tensors_of(tmp_path / "out").items())


def test_what_cannot_be_extracted_is_refused(tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base")
    adapter = lora.adapter(tmp_path / "adapter", base, r=2, target_modules=["q_proj"])
    before = sorted(path.name for path in tmp_path.iterdir())
    wrong: list[tuple[str, type[Exception], dict[str, Any]]] = [
        ("did you mean 'q_proj'", UsageError, {"targets": ["q_projs"]}),
        ("no matrix is called 'embed_tokens'", UsageError, {"targets": ["embed_tokens"]}),
        ("rank must be at least 1", UsageError, {"rank": 0}),
        ("energy must be above 0", UsageError, {"energy": 1.5}),
        ("found both", UsageError, {"energy": 0.5, "rank": 3}),
        ("expected the dense model", UsageError, {"init": f"{base}+{adapter}"}),
    ]
    for words, kind, options in wrong:
        with pytest.raises(kind, match=words):
            warmkit.extract_lora(base, tmp_path / "out", **{"init": base, **options})
    with pytest.raises(OutputError, match="already exists"):
        warmkit.extract_lora(base, adapter, init=base)
    with pytest.raises(OutputError, match="is an input"):
        warmkit.extract_lora(base, base, init=base, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    warmkit.extract_lora(base, adapter, init=base, rank=3, force=True)
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 3
