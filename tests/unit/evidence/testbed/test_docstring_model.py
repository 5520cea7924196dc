"""The tiny language model of docstrings: loads, repeats, and appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from warmkit.errors import OutputError
from warmkit.evidence.testbed.docstring_model import DocstringModelSize, write_docstring_model

pytest.importorskip("transformers")
TINY = DocstringModelSize(vocabulary=400, width=16, layers=1, context=16, batch=8, steps=12, files=20)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_docstring_model(tmp_path_factory.mktemp("docstrings") / "model", 3, size=TINY)


def test_transformers_loads_the_model_and_its_tokenizer(model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer("Return the socket.", return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0]) == "Return the socket."
    assert torch.isfinite(AutoModelForCausalLM.from_pretrained(model)(ids).logits).all()


def test_a_seed_decides_the_bytes_and_the_random_state_stays(model: Path, tmp_path: Path) -> None:
    def weights(path: Path) -> bytes:
        return (path / "model.safetensors").read_bytes()

    state = torch.get_rng_state()
    assert weights(write_docstring_model(tmp_path / "again", 3, size=TINY)) == weights(model)
    assert weights(write_docstring_model(tmp_path / "other", 4, size=TINY)) != weights(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "notes").write_text("mine")
    with pytest.raises(OutputError, match=r"model: already exists; choose another -o, or replace it with --force"):
        write_docstring_model(target, size=TINY, advance=lambda step, total: pytest.fail("trained"))
    write_docstring_model(target, size=TINY, force=True)
    assert not (target / "notes").exists()
    assert (target / "model.safetensors").exists()


def test_an_interrupted_training_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(step: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_docstring_model(tmp_path / "model", size=TINY, advance=interrupt)
    assert not list(tmp_path.iterdir())


def test_the_rate_rises_and_falls() -> None:
    size = DocstringModelSize(steps=120)
    rates = [size.rate(step) for step in range(120)]
    assert max(rates) == rates[9]
    assert rates[0] == pytest.approx(3e-4)
    assert rates[-1] == pytest.approx(3e-3 * (1 - 0.95 * 119 / 120))
