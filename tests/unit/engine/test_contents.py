"""Contents say what a checkpoint holds, wherever it lies, and which file of it was changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from warmkit.engine import contents as module
from warmkit.engine.contents import changes, check_contents, contents, digest_of, record_of, write_contents
from warmkit.engine.digests import file_digest
from warmkit.errors import ChangedError, CheckpointError, FormatError


def model(folder: Path, value: float = 1.0) -> Path:
    folder.mkdir(parents=True)
    save_file({"model.layers.0.q.weight": torch.full((4, 4), value)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    (folder / "README.md").write_text("what it is")
    (folder / "optimizer.pt").write_bytes(b"of a run")
    return folder


def adapter(folder: Path) -> Path:
    folder.mkdir(parents=True)
    factors = {"A": torch.ones(2, 4), "B": torch.ones(4, 2)}
    named = {f"base_model.model.model.layers.0.q.lora_{part}.weight": each for part, each in factors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def test_contents_are_the_digests_of_weights_config_and_tokenizer(tmp_path: Path) -> None:
    found = contents(str(model(tmp_path / "a")))
    assert {name: each["xxh3-128"] for name, each in found.items()} == {
        name: file_digest(tmp_path / "a" / name) for name in ("model.safetensors", "config.json", "tokenizer.json")
    }


def test_contents_are_the_same_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(model(tmp_path / "a"), tmp_path / "b")
    assert not changes(contents(str(tmp_path / "a")), contents(str(tmp_path / "b")))
    assert digest_of(contents(str(tmp_path / "a"))) == digest_of(contents(str(tmp_path / "b")))


def test_a_file_that_was_not_touched_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = contents(str(model(tmp_path / "a")))
    monkeypatch.setattr(module, "file_digest", lambda file: pytest.fail(f"{file} was read again"))
    assert contents(str(tmp_path / "a"), known) == known


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_file_is_named_with_both_digests(name: str, tmp_path: Path) -> None:
    known = contents(str(model(tmp_path / "a")))
    content = (model(tmp_path / "b", 2.0) / name).read_bytes()
    (tmp_path / "a" / name).write_bytes(content if name == "model.safetensors" else content + b" ")
    expected, found = known[name]["xxh3-128"], file_digest(tmp_path / "a" / name)
    assert changes(known, contents(str(tmp_path / "a"), known)) == [
        f"{name} has another content (xxh3-128 {expected} expected, xxh3-128 {found} found)"
    ]


def test_files_that_came_and_went_are_named(tmp_path: Path) -> None:
    known = contents(str(model(tmp_path / "a")))
    (tmp_path / "a" / "tokenizer.json").rename(tmp_path / "a" / "vocab.txt")
    assert changes(known, contents(str(tmp_path / "a"), known)) == ["tokenizer.json is gone", "vocab.txt is new"]


def test_what_is_not_read_may_change(tmp_path: Path) -> None:
    known = contents(str(model(tmp_path / "a")))
    (tmp_path / "a" / "README.md").write_text("more")
    (tmp_path / "a" / "optimizer.pt").unlink()
    os.utime(tmp_path / "a" / "model.safetensors")
    assert not changes(known, contents(str(tmp_path / "a"), known))


def test_a_single_file_has_contents(tmp_path: Path) -> None:
    assert list(contents(str(model(tmp_path / "a") / "model.safetensors"))) == ["model.safetensors"]


def test_a_pickle_has_contents_as_training_reads_it(tmp_path: Path) -> None:
    folder = model(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    torch.save({"w": torch.ones(2)}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in contents(str(folder))


def test_adapters_have_the_contents_of_their_base_too(tmp_path: Path) -> None:
    pair = f"{model(tmp_path / 'base')}+{adapter(tmp_path / 'adapter')}"
    known = contents(pair)
    assert sorted(known) == [
        *("adapter 1: adapter_config.json", "adapter 1: adapter_model.safetensors", "adapter 1: tokenizer_config.json"),
        *("config.json", "model.safetensors", "tokenizer.json"),
    ]
    (tmp_path / "adapter" / "tokenizer_config.json").write_text('{"eos_token": "b"}')
    (tmp_path / "base" / "config.json").write_text("{}")
    assert [each.partition(" has ")[0] for each in changes(known, contents(pair, known))] == [
        "config.json",
        "adapter 1: tokenizer_config.json",
    ]


def test_a_repository_of_the_hub_is_told_by_its_revision(tmp_path: Path) -> None:
    cache, commits = tmp_path / "models--owner--name" / "snapshots", ("a" * 40, "b" * 40)
    first, second = (contents(str(model(cache / each))) for each in commits)
    assert first == {"owner/name": {"revision": "a" * 40}}
    assert changes(first, second) == [
        f"owner/name has another content (revision {commits[0]} expected, revision {commits[1]} found)"
    ]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        contents(str(tmp_path / "nothing"))


# ---- what was left in a folder ---------------------------------------------------------------------------------------


def test_a_finished_folder_is_checked_against_its_record(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    assert not check_contents(folder)
    write_contents(folder)
    assert check_contents(folder)
    save_file({"model.layers.0.q.weight": torch.zeros(4, 4)}, folder / "model.safetensors")
    with pytest.raises(ChangedError, match=r"model: was changed after it was finished: model\.safetensors has another content"):
        check_contents(folder)
    record_of(folder).unlink()  # as the message says
    assert not check_contents(folder)


def test_a_folder_that_was_replaced_by_the_same_is_the_same(tmp_path: Path) -> None:
    write_contents(model(tmp_path / "model"))
    (tmp_path / "model").rename(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "model")
    assert check_contents(tmp_path / "model")


def test_a_folder_whose_weights_are_gone_was_changed(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    write_contents(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ChangedError, match="was changed after it was finished"):
        check_contents(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"files": {"a": 3}}', b'{"files": {"a": {"seen": [1]}}}', b"\xff"])
def test_a_record_of_another_form_is_named(content: bytes, tmp_path: Path) -> None:
    record_of(model(tmp_path / "model")).write_bytes(content)
    with pytest.raises(FormatError, match=r"model\.digests\.json: .*; put it back, or delete it"):
        check_contents(tmp_path / "model")
