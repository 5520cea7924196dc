"""Models in GGUF: the numbers that transformers reads, or an error that names why not."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import warmkit
from tests.conftest import CONFIG, save, tensors_of
from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.formats import gguf_file
from warmkit.formats.gguf_header import read_header
from warmkit.formats.tensors import result_dtype

pytest.importorskip("gguf", reason="GGUF is read with the package gguf")
DATA = Path(__file__).parents[2] / "data" / "quantised"
SAID = json.loads((DATA / "said" / "gguf.json").read_text())
LLAMA = DATA / "gguf" / "llama.gguf"
Q = "model.layers.0.self_attn.q_proj.weight"


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("piece", [1 << 18, 100])
def test_every_number_is_that_of_transformers(name: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "PIECE", piece)
    opened = warmkit.open_checkpoint(DATA / "gguf" / f"{name}.gguf")
    tied = SAID[name]["lm_head.weight"] == SAID[name]["model.embed_tokens.weight"]
    assert {each: digest(tensor.load()) for each, tensor in opened.items()} == {
        each: said for each, said in SAID[name].items() if not (tied and each == "lm_head.weight")
    }
    assert {result_dtype(each.entry).torch_name for each in opened.values()} == {"bfloat16"}
    assert f"GGUF of {name}: its blocks are read as the bfloat16 weights" in opened.notes[0]


@pytest.mark.parametrize("start", [0, 1, 31, 32, 500, 1000])
def test_any_part_is_that_part_of_the_numbers(start: int) -> None:
    tensor = warmkit.open_checkpoint(LLAMA)[Q]
    whole = tensor.load().reshape(-1)
    for stop in (start + 1, start + 7, start + 24):
        found = bytearray(4 * (stop - start))
        with gguf_file.Files() as files:
            tensor.entry.read(files, start, memoryview(found))
        assert torch.equal(torch.frombuffer(found, dtype=torch.float32), whole[start:stop])


def test_it_is_merged_with_a_dense_init_whose_config_it_takes(tmp_path: Path) -> None:
    exact = tensors_of(LLAMA)
    sft = save(tmp_path / "sft", {name: each.bfloat16() * 2 for name, each in exact.items()}, {**CONFIG, "model_type": "llama"})
    folder = tmp_path / "folder"  # a folder with one such file is the same
    folder.mkdir()
    shutil.copy(LLAMA, folder / "model.gguf")
    for number, model in enumerate((LLAMA, folder)):
        out = tmp_path / f"out-{number}"
        warmkit.liti(model, out, init=sft, eta=0.25)
        for name, tensor in load_file(out / "model.safetensors").items():
            expected = 0.75 * (exact[name].bfloat16() * 2).double() + 0.25 * exact[name].double()
            assert torch.equal(tensor, expected.float().bfloat16()), name
        assert (out / "config.json").is_file()


def test_a_mixture_of_experts_merges_with_one_in_another_layout(tmp_path: Path) -> None:
    """Experts are read one by one, and those of a dense model lie in stacks."""
    file = DATA / "gguf" / "qwen3moe.gguf"
    exact = tensors_of(file)
    home = "model.layers.0.mlp.experts"
    gates, ups, downs = (
        torch.stack([exact.pop(f"{home}.{each}.{part}_proj.weight") for each in range(2)]) for part in ("gate", "up", "down")
    )
    stacks = {f"{home}.gate_up_proj": torch.cat([gates, ups], 1), f"{home}.down_proj": downs}
    config = {**CONFIG, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}
    sft = save(tmp_path / "sft", {name: each * 2 for name, each in (exact | stacks).items()}, config)
    warmkit.soup([sft, file], tmp_path / "out")
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(tensor, (exact | stacks)[name] * 1.5), name


def test_a_stack_of_experts_that_is_none_is_named(tmp_path: Path) -> None:
    content = (DATA / "gguf" / "qwen3.gguf").read_bytes()
    change = content.replace(b"\x05\0\0\0\0\0\0\0qwen3", b"\x08\0\0\0\0\0\0\0qwen3moe", 1)
    names = ((b"\x13\0\0\0\0\0\0\0blk.0.ffn_up.weight", b"\x18\0\0\0\0\0\0\0blk.0.ffn_up_exps.weight"),)
    for before, after in names:
        assert before in change
        change = change.replace(before, after, 1)
    with pytest.raises(FormatError, match=r"expected \[experts, out, in\]"):
        warmkit.open_checkpoint(written(tmp_path / "model.gguf", change))


def test_the_same_files_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"--as same quantises again in fp8 .* its weights are GGUF in GGUF"):
        warmkit.merge([LLAMA], output=tmp_path / "out", method="uniform", container="same")


# ---- what is refused -----------------------------------------------------------------------------------------------------


def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'warmkit\[gguf\]'"):
        warmkit.open_checkpoint(LLAMA)


def test_several_files_in_a_folder_are_one_too_many(tmp_path: Path) -> None:
    for name in ("q4.gguf", "q8.gguf"):
        shutil.copy(LLAMA, tmp_path / name)
    with pytest.raises(FormatError, match=r"2 files in GGUF \(q4.gguf, q8.gguf\); give one of them"):
        warmkit.open_checkpoint(tmp_path)


def test_a_file_that_was_cut_is_named(tmp_path: Path) -> None:
    content = LLAMA.read_bytes()
    for size in (*range(0, 900, 37), len(content) - 1):
        with pytest.raises(FormatError, match=r"cut\.gguf"):
            warmkit.open_checkpoint(written(tmp_path / "cut.gguf", content[:size]))


CHANGES: dict[str, tuple[bytes, bytes, str]] = {
    "another version": (b"GGUF\x03", b"GGUF\x01", "expected GGUF of version 2 or 3"),
    "big-endian": (b"GGUF\x03\0\0\0", b"GGUF\0\0\0\x03", "expected GGUF of version 2 or 3, little-endian"),
    "another architecture": (b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba", "of the architecture 'mamba' is not read"),
    "an unknown tensor": (b"blk.0.ffn_gate.weight", b"blk.0.ffn_gaze.weight", "'blk.0.ffn_gaze.weight' is none that is known"),
    "a name that is no text": (b"token_embd.weight", b"token_\xff\xffbd.weight", "a text that is none"),
    "a name twice": (b"blk.0.attn_k.weight", b"blk.0.attn_q.weight", "two tensors have one name"),
    "other heads": (
        b"llama.attention.head_count\x04\0\0\0\x02",
        b"llama.attention.head_count\x04\0\0\0\x05",
        "'blk.0.attn_q.weight' has 32 rows, which are not those of 5 heads",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_does_not_fit_is_named(what: str, tmp_path: Path) -> None:
    before, after, expected = CHANGES[what]
    content = LLAMA.read_bytes()
    assert before in content
    with pytest.raises(CheckpointError) as refusal:
        warmkit.open_checkpoint(written(tmp_path / "model.gguf", content.replace(before, after, 1)))
    assert isinstance(refusal.value, FormatError | UnsupportedError)
    assert expected in str(refusal.value)


@pytest.mark.parametrize(("kind", "expected"), [(99, "is of type 99"), (26, "is of type 26"), (14, "ends beyond the file")])
def test_a_type_that_is_not_dequantised_is_named(kind: int, expected: str, tmp_path: Path) -> None:
    content = bytearray(LLAMA.read_bytes())
    place = content.index(b"blk.0.attn_v.weight") + len(b"blk.0.attn_v.weight") + 4 + 16
    content[place : place + 4] = struct.pack("<I", kind)
    with pytest.raises(CheckpointError, match=expected):
        warmkit.open_checkpoint(written(tmp_path / "model.gguf", bytes(content)))


def test_lists_and_texts_of_a_header_are_passed_over() -> None:
    said, tensors = read_header(LLAMA)
    assert said["llama.attention.head_count"] == 2
    assert said["tokenizer.ggml.tokens"] is None
    assert len(tensors) == 12
