"""Every quantised form of the table has its test and its row on the page of inputs; what is not in it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import warmkit
from tests.conftest import CONFIG, save, weights
from warmkit.errors import UnsupportedError
from warmkit.formats.quantised import FORMS, QuantisedForm

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("form", FORMS, ids=lambda each: each.method)
def test_a_row_is_complete(form: QuantisedForm) -> None:
    home = form.dense_entries.__module__.rpartition(".")[2]
    assert (ROOT / "tests" / "unit" / "formats" / f"test_{home}.py").is_file(), f"it needs tests/unit/formats/test_{home}.py"
    section = (ROOT / "docs" / "inputs.md").read_text().partition("## Quantised weights")[2].partition("\n## ")[0]
    row = next((each for each in section.splitlines() if each.startswith(f"| `{form.method}`")), None)
    assert row is not None, f"the table of docs/inputs.md, Quantised weights, needs a row that begins with `{form.method}`"


@pytest.mark.parametrize("method", ["hqq", "eetq", "vptq", "quark", "fbgemm_fp8", "modelopt", "bitnet"])
def test_other_methods_are_refused_by_name(method: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", weights(1), {**CONFIG, "quantization_config": {"quant_method": method}})
    with pytest.raises(UnsupportedError, match=rf"quantised weights \({method}: quantization_config in config.json\)"):
        warmkit.open_checkpoint(folder)


def test_a_form_that_is_read_does_not_hide_one_that_is_not(tmp_path: Path) -> None:
    tensors = {**weights(1), "model.layers.0.q.qweight": torch.ones(4, 2, dtype=torch.int32)}
    folder = save(tmp_path / "m", tensors, {**CONFIG, "quantization_config": {"quant_method": "fp8"}})
    with pytest.raises(UnsupportedError, match=r"packed: tensor 'model.layers.0.q.qweight'"):
        warmkit.open_checkpoint(folder)
