"""Vocabularies that differ: rows by token, tokenizers and configs that say the same, models that run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import warmkit
from tests.conftest import Run
from warmkit.errors import MismatchError, UsageError
from warmkit.formats.dtypes import BY_TORCH_NAME
from warmkit.formats.tensors import StoredTensor
from warmkit.layouts.token_rows import narrow, picked, widen
from warmkit.sources.files import Files

TEXTS = ["the cat sat on the mat", "a dog and a cat", "the dog ran to the mat and sat"] * 4
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
CHAT = "<|im_start|>the cat<|im_end|>"


def base_tokenizer(size: int = 36) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=size, special_tokens=["<s>", "</s>"], show_progress=False)
    )
    return tokenizer


def make(
    folder: Path, added: Sequence[str], seed: int, *, pad_to: int = 1, size: int = 36, tied: bool = False, **roles: str
) -> Path:
    """Write a tiny Llama whose rows are a function of seed and token, whatever the token's id."""
    tokenizer = base_tokenizer(size)
    tokenizer.add_special_tokens(list(added))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **roles)
    rows = -(-tokenizer.get_vocab_size() // pad_to) * pad_to
    ids = {f"{role}_token_id": getattr(fast, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=rows, tie_word_embeddings=tied, max_position_embeddings=32, **sizes, **ids)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, tensor in ((EMBEDDING, model.model.embed_tokens.weight), (HEAD, model.lm_head.weight)):
            for token, row in tokenizer.get_vocab().items():
                tensor[row] = row_of(name if not tied else EMBEDDING, token, seed)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def row_of(name: str, token: str, seed: int) -> torch.Tensor:
    number = sum((place + 1) * byte for place, byte in enumerate(f"{name} {token}".encode()))
    shared = torch.randn(8, generator=torch.Generator().manual_seed(number))
    return shared + 0.1 * torch.randn(8, generator=torch.Generator().manual_seed(number + 7919 * seed))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def by_token(folder: Path, name: str = EMBEDDING) -> dict[str, torch.Tensor]:
    rows, ids = tensors(folder)[name], AutoTokenizer.from_pretrained(folder).get_vocab()
    assert max(ids.values()) < len(rows)
    return {token: rows[row] for token, row in ids.items()}


def check_consistent(folder: Path) -> Any:
    """Check that tokenizer, config and weights of a result agree, and that it runs; return the tokenizer."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    assert all(tokenizer.convert_tokens_to_ids(each["content"]) == each["id"] for each in content["added_tokens"])
    rows = model.get_input_embeddings().weight.shape[0]
    assert model.config.vocab_size == rows == model.lm_head.weight.shape[0]
    assert len(tokenizer) <= rows
    for role in ("bos", "eos", "pad"):
        assert getattr(model.config, f"{role}_token_id") == getattr(tokenizer, f"{role}_token_id"), role
    ids = tokenizer(CHAT, return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0], skip_special_tokens=True).endswith("the cat") or "<|im_start|>" not in tokenizer.get_vocab()
    assert torch.isfinite(model(ids).logits).all()
    return tokenizer


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An init without chat tokens, and two models that added some, in other orders, one with padding."""
    folder = tmp_path_factory.mktemp("zoo")
    return {
        "init": make(folder / "init", [], 0),
        "a": make(folder / "a", ["<|im_start|>", "<|im_end|>", "<pad>"], 1, pad_to=16, pad_token="<pad>"),
        "b": make(folder / "b", ["<|tool|>", "<|im_end|>", "<|im_start|>"], 2),
    }


# ---- union -----------------------------------------------------------------------------------------------------------


def test_a_union_averages_rows_by_token(zoo: dict[str, Path], tmp_path: Path) -> None:
    out = warmkit.merge([zoo["a"], zoo["b"]], tmp_path / "out", method="lerp", lambda_=0.25, vocabulary="union").path
    tokenizer = check_consistent(out)
    assert set(tokenizer.get_vocab()) == set(by_token(zoo["a"])) | set(by_token(zoo["b"]))
    for name in (EMBEDDING, HEAD):
        merged, a, b = by_token(out, name), by_token(zoo["a"], name), by_token(zoo["b"], name)
        for token, row in merged.items():
            if token in a and token in b:
                torch.testing.assert_close(row, 0.75 * a[token] + 0.25 * b[token], rtol=1e-6, atol=1e-7)
            else:
                assert torch.equal(row, a[token] if token in a else b[token]), token


def test_ids_of_the_first_are_kept_and_new_tokens_take_its_padding(zoo: dict[str, Path], tmp_path: Path) -> None:
    result = warmkit.soup([zoo["a"], zoo["b"]], tmp_path / "out", vocabulary="union")
    before, after = (AutoTokenizer.from_pretrained(path).get_vocab() for path in (zoo["a"], result.path))
    assert before.items() <= after.items()
    assert len(tensors(result.path)[EMBEDDING]) == len(tensors(zoo["a"])[EMBEDDING]) == 48
    assert tensors(result.path)[EMBEDDING][40:].equal(tensors(zoo["a"])[EMBEDDING][40:])  # what is still padding is the first's
    assert any("1 tokens have no row ('<|tool|>')" in note for note in result.notes)


@pytest.mark.parametrize("method", ["slerp", "lerp", "task-arithmetic"])
@pytest.mark.parametrize("eta", [1.0, 0.3])
def test_a_token_that_the_init_lacks_has_the_mean_of_those_that_have_it(
    method: str, eta: float, zoo: dict[str, Path], tmp_path: Path
) -> None:
    models = [zoo["a"], zoo["b"]]
    out = warmkit.merge(
        models, tmp_path / "out", init=zoo["init"], method=method, eta=eta, vocabulary="union", angles=True
    ).path
    check_consistent(out)
    merged, a, b = (by_token(path) for path in (out, *models))
    torch.testing.assert_close(merged["<|im_end|>"], (a["<|im_end|>"] + b["<|im_end|>"]) / 2, rtol=1e-6, atol=1e-7)
    assert torch.equal(merged["<pad>"], a["<pad>"])
    assert torch.equal(merged["<|tool|>"], b["<|tool|>"])


def test_new_tokens_do_not_change_what_the_others_become(zoo: dict[str, Path], tmp_path: Path) -> None:
    plain = [make(tmp_path / str(seed), [], seed) for seed in (1, 2)]
    expected = warmkit.merge(plain, tmp_path / "expected", init=zoo["init"]).path
    out = warmkit.merge([zoo["a"], zoo["b"]], tmp_path / "out", init=zoo["init"], vocabulary="union").path
    for token, row in by_token(expected).items():
        assert torch.equal(by_token(out)[token], row), token


def test_a_permuted_vocabulary_merges_to_the_same_logits_by_token(tmp_path: Path) -> None:
    names = ["<|im_start|>", "<|im_end|>", "<|tool|>"]
    a, b = make(tmp_path / "a", names, 1), make(tmp_path / "b", names[::-1], 1)
    inner = {name: tensor for name, tensor in tensors(a).items() if name not in (EMBEDDING, HEAD)}
    save_file({**tensors(b), **inner}, b / "model.safetensors", metadata={"format": "pt"})
    out = warmkit.soup([b, a], tmp_path / "out", vocabulary="union").path
    logits = []
    for path in (a, b, out):
        tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
        ids = tokenizer.get_vocab()
        found = model(tokenizer(CHAT, return_tensors="pt")["input_ids"]).logits[0]
        logits.append(found[:, [ids[token] for token in sorted(ids)]])
    torch.testing.assert_close(logits[2], logits[0])
    torch.testing.assert_close(logits[1], logits[0])


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    a = make(tmp_path / "a", ["<x>", "<y>"], 1, tied=True)
    b = make(tmp_path / "b", ["<y>", "<z>"], 2, tied=True)
    out = warmkit.soup([a, b], tmp_path / "out", vocabulary="union").path
    assert HEAD not in tensors(out)
    check_consistent(out)
    assert torch.equal(by_token(out)["<z>"], by_token(b)["<z>"])


def test_a_tied_model_lends_its_rows_to_the_head_of_an_untied_one(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", ["<x>"], 1), make(tmp_path / "b", ["<z>"], 2, tied=True)
    out = warmkit.soup([a, b], tmp_path / "out", vocabulary="union").path
    check_consistent(out)
    assert torch.equal(by_token(out, HEAD)["<z>"], by_token(b)["<z>"])
    expected = (by_token(a, HEAD)["<s>"] + by_token(b)["<s>"]) / 2
    torch.testing.assert_close(by_token(out, HEAD)["<s>"], expected, rtol=1e-6, atol=1e-7)


# ---- init ------------------------------------------------------------------------------------------------------------


def test_the_inits_vocabulary_leaves_out_what_was_added(zoo: dict[str, Path], tmp_path: Path) -> None:
    result = warmkit.merge([zoo["a"], zoo["b"]], tmp_path / "out", init=zoo["init"], vocabulary="init")
    check_consistent(result.path)
    for name in ("tokenizer.json", "config.json"):
        assert (result.path / name).read_bytes() == (zoo["init"] / name).read_bytes()
    assert any("3 of its tokens are left out ('<|im_start|>', '<|im_end|>', '<pad>')" in note for note in result.notes)


def test_other_base_vocabularies_are_matched_by_token_to_the_init(tmp_path: Path) -> None:
    init, a, b = make(tmp_path / "i", [], 0), make(tmp_path / "a", [], 1, size=25), make(tmp_path / "b", [], 2, size=30)
    out = warmkit.merge([a, b], tmp_path / "out", init=init, method="lerp", vocabulary="init", angles=True).path
    check_consistent(out)
    merged, rows = by_token(out), [by_token(path) for path in (a, b)]
    for token, row in by_token(init).items():
        having = [each[token] for each in rows if token in each]
        expected = sum(having) / len(having) if having else row
        torch.testing.assert_close(merged[token], expected, rtol=1e-6, atol=1e-7)


def test_scaled_task_vectors_of_tokens_that_a_model_lacks_are_zero(tmp_path: Path) -> None:
    init, a = make(tmp_path / "i", ["<x>"], 0), make(tmp_path / "a", ["<x>"], 1)
    b = make(tmp_path / "b", [], 2)
    out = warmkit.merge([a, b], tmp_path / "out", init=init, method="task-arithmetic", vocabulary="init").path
    torch.testing.assert_close(by_token(out)["<x>"], by_token(a)["<x>"], rtol=1e-6, atol=1e-6)  # x0 + d_a + 0


# ---- common ----------------------------------------------------------------------------------------------------------


def test_common_keeps_what_all_have_and_moves_ids_everywhere(tmp_path: Path) -> None:
    a = make(tmp_path / "a", ["<|tool|>", "<|im_start|>", "<|im_end|>"], 1, pad_token="<|im_end|>")
    b = make(tmp_path / "b", ["<|im_end|>", "<|im_start|>"], 2)
    out = warmkit.soup([a, b], tmp_path / "out", vocabulary="common").path
    tokenizer = check_consistent(out)
    assert "<|tool|>" not in tokenizer.get_vocab()
    assert tokenizer.pad_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>") == len(tokenizer) - 1
    expected = (by_token(a)["<|im_end|>"] + by_token(b)["<|im_end|>"]) / 2
    torch.testing.assert_close(by_token(out)["<|im_end|>"], expected, rtol=1e-6, atol=1e-7)


def test_common_keeps_tokens_that_the_tokenizer_needs(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", ["<pad>", "<x>"], 1, pad_token="<pad>"), make(tmp_path / "b", [], 2)
    out = warmkit.soup([a, b], tmp_path / "out", vocabulary="common").path
    assert check_consistent(out).pad_token == "<pad>"
    assert torch.equal(by_token(out)["<pad>"], by_token(a)["<pad>"])


# ---- strict, and what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("padded_first", [True, False])
def test_padding_is_no_vocabulary(padded_first: bool, tmp_path: Path) -> None:
    padded, plain = make(tmp_path / "padded", [], 1, pad_to=16), make(tmp_path / "plain", [], 2)
    models = [padded, plain] if padded_first else [plain, padded]
    result = warmkit.soup(models, tmp_path / "out")
    check_consistent(result.path)
    assert len(tensors(result.path)[EMBEDDING]) == (48 if padded_first else 36)
    assert any("12 of 48 rows are padding" in note for note in result.notes)
    expected = (by_token(padded)["the"] + by_token(plain)["the"]) / 2
    torch.testing.assert_close(by_token(result.path)["the"], expected, rtol=1e-6, atol=1e-7)


def test_other_vocabularies_are_refused_and_the_option_is_named(zoo: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="--vocabulary union, init or common"):
        warmkit.soup([zoo["a"], zoo["b"]], tmp_path / "out")


def test_rows_that_no_tokenizer_explains_are_refused(tmp_path: Path) -> None:
    padded, plain, short = (
        make(tmp_path / "p", [], 1, pad_to=16),
        make(tmp_path / "q", [], 2),
        make(tmp_path / "r", [], 3, size=30),
    )
    (plain / "tokenizer.json").unlink()
    with pytest.raises(MismatchError, match="no tokenizer tells"):
        warmkit.soup([padded, plain], tmp_path / "out")
    (short / "tokenizer.json").write_bytes((padded / "tokenizer.json").read_bytes())
    with pytest.raises(MismatchError, match="no tokenizer tells"):
        warmkit.soup([padded, short], tmp_path / "out")


@pytest.mark.parametrize("mode", ["union", "common"])
def test_other_base_vocabularies_have_no_union(mode: str, tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", [], 1), make(tmp_path / "b", [], 2, size=25)
    with pytest.raises(MismatchError, match=r"base vocabulary differs .* --vocabulary init"):
        warmkit.soup([a, b], tmp_path / "out", vocabulary=mode)


def test_unknown_modes_and_missing_tokenizers_are_errors(zoo: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'union'"):
        warmkit.soup([zoo["a"], zoo["b"]], tmp_path / "out", vocabulary="unoin")
    bare = make(tmp_path / "bare", [], 1)
    (bare / "tokenizer.json").unlink()
    with pytest.raises(MismatchError, match=r"needs tokenizer\.json"):
        warmkit.soup([bare, bare], tmp_path / "out", vocabulary="union")


def test_the_command_says_it_and_the_manifest_too(zoo: dict[str, Path], run: Run, tmp_path: Path) -> None:
    done = run("soup", zoo["a"], zoo["b"], "-o", "out", "--vocabulary", "union")
    assert done.returncode == 0, done.stderr
    assert "vocabulary union: 1 tokens have no row" in done.stderr
    assert len(json.loads((tmp_path / "out" / "warmkit.json").read_text())["vocabulary"]) == 2
    warmkit.verify(tmp_path / "out")


# ---- rows ------------------------------------------------------------------------------------------------------------


@given(st.data())
def test_any_range_of_any_rows(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    width, count = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    values = np.arange(count * width, dtype=np.float32).reshape(count, width)
    file = tmp_path_factory.mktemp("rows") / "rows"
    file.write_bytes(values.tobytes())
    own = StoredTensor("t", BY_TORCH_NAME["float32"], (count, width), file, 0)
    rows = np.array(data.draw(st.lists(st.integers(-1, count - 1), min_size=1, max_size=9)), np.int64)
    means = {int(row): [(0.5, own, 0), (0.5, own, count - 1)] for row in np.flatnonzero(rows < 0)}
    mean = (values[0] + values[-1]) / 2
    expected = np.stack([values[row] if row >= 0 else mean for row in rows]).ravel()
    tensor = picked(own, rows, means)
    start = data.draw(st.integers(0, tensor.elements))
    size = data.draw(st.integers(0, tensor.elements - start))
    buffer = bytearray(4 * size)
    with Files() as files:
        tensor.ahead(files, start, size)
        tensor.read(files, start, memoryview(buffer))
    assert np.frombuffer(buffer, np.float32).tolist() == expected[start : start + size].tolist()


SIZES = st.floats(1e-30, 1e30)


@given(st.lists(st.one_of(SIZES, SIZES.map(lambda size: -size)), min_size=1))
def test_means_are_rounded_once_to_the_nearest(values: list[float]) -> None:
    dtype, exact = BY_TORCH_NAME["bfloat16"], np.array(values)
    bits = narrow(exact, dtype)
    below, found, above = (np.abs(widen(bits + np.array(step).astype(np.uint16), dtype) - exact) for step in (-1, 0, 1))
    assert (found <= np.minimum(below, above)).all()
    assert not (bits[(found == below) | (found == above)] & 1).any()  # ties to even


def test_a_value_just_beside_a_tie_is_not_rounded_twice() -> None:
    tie = 1 + 2**-8  # between 1 and the next bfloat16; float32 cannot tell the others from it
    values = np.array([tie, tie + 2**-40, tie - 2**-40, -tie - 2**-40, 0.0, np.inf])
    assert widen(narrow(values, BY_TORCH_NAME["bfloat16"]), BY_TORCH_NAME["bfloat16"]).tolist() == [
        *(1.0, 1 + 2**-7, 1.0, -1 - 2**-7, 0.0, np.inf)
    ]
