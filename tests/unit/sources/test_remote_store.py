"""Checkpoints in object stores and other file systems of fsspec."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

import warmkit
from tests.conftest import Family, make_family, save, weights
from warmkit.errors import CheckpointError, FormatError, TransferError, UnsupportedError, UsageError
from warmkit.layouts.opening import open_checkpoint
from warmkit.sources import prefetch, remote_file
from warmkit.sources.remote import is_plain, read_mapping
from warmkit.sources.remote import save as save_small


@pytest.fixture
def bucket(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    """A store in memory that holds the family, the last model sharded."""
    monkeypatch.setattr(remote_file, "BACKOFF", 0.001)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    save(family.b, weights(2), shards=2)
    (family.b / "model.safetensors").unlink()
    store = fsspec.filesystem("memory")
    for folder in (family.init, family.a, family.b):
        (folder / "tokenizer_config.json").write_text("{}")
        store.put(str(folder), f"/bucket/{folder.name}", recursive=True)
    yield store
    store.rm("/bucket", recursive=True)


def test_a_merge_from_a_store_is_the_merge_from_disk(family: Family, bucket: MemoryFileSystem, tmp_path: Path) -> None:
    warmkit.merge([family.a, family.b], tmp_path / "local", init=family.init)
    remote = warmkit.merge(["memory://bucket/a", "memory://bucket/b/"], tmp_path / "out", init="memory://bucket/sft")
    assert remote.bytes_streamed
    for name in ("model.safetensors", "config.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert not list((tmp_path / "temporary").rglob("*.safetensors"))


def test_one_file_of_a_store_is_a_checkpoint(bucket: MemoryFileSystem) -> None:
    checkpoint = open_checkpoint("memory://bucket/a/model.safetensors")
    assert checkpoint.directory is None
    assert torch.equal(checkpoint["lm_head.weight"].load(), weights(1)["lm_head.weight"])


def test_another_protocol_does_as_well(family: Family, tmp_path: Path) -> None:
    assert open_checkpoint(f"file://{family.a}").nbytes == open_checkpoint(family.a).nbytes


class Flaky(MemoryFileSystem):
    """A store whose ranges fail in the way that `trouble` says, once the files are open."""

    protocol = "flaky"
    store: dict[str, Any] = MemoryFileSystem.store
    trouble: list[Any] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        body = super().cat_file(path, start, end, **more)
        if not start or not self.trouble:
            return body
        trouble = self.trouble.pop(0)
        if isinstance(trouble, Exception):
            raise trouble
        return trouble(body)


fsspec.register_implementation("flaky", Flaky, clobber=True)


@pytest.mark.parametrize(
    "trouble",
    [[OSError("reset by peer")] * 3, [TimeoutError()], [lambda body: body[: len(body) // 2]] * 3, [RuntimeError("SlowDown")]],
    ids=["errors", "timeout", "short", "slow"],
)
def test_what_passes_is_tried_again(trouble: list[Any], bucket: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flaky, "trouble", trouble)
    assert torch.equal(open_checkpoint("flaky://bucket/a")["lm_head.weight"].load(), weights(1)["lm_head.weight"])
    assert not trouble


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ([OSError("reset by peer")] * 8, r"flaky://bucket/a/model.safetensors: reset by peer \(8 attempts\)"),
        ([PermissionError("Forbidden")], "access denied: Forbidden"),
        ([lambda body: body + b"more"], "the store gave"),
        ([type("NoCredentialsError", (Exception,), {})("Unable to locate credentials")], "no credentials: Unable"),
    ],
)
def test_what_does_not_pass_is_one_line(
    trouble: list[Any], said: str, bucket: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flaky, "trouble", trouble)
    with pytest.raises(TransferError, match=said):
        open_checkpoint("flaky://bucket/a")["lm_head.weight"].load()


def test_an_object_that_is_replaced_while_it_is_read_is_noticed_before_the_result_is_in_place(
    bucket: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_family(tmp_path / "others")

    def replace(body: bytes) -> bytes:
        bucket.put(str(tmp_path / "others" / "c" / "model.safetensors"), "/bucket/a/model.safetensors")
        return body

    monkeypatch.setattr(prefetch, "PIECE", 1 << 12)
    monkeypatch.setattr(Flaky, "trouble", [replace])
    with pytest.raises(CheckpointError, match=r"flaky://bucket/a/model.safetensors: was replaced while it was read"):
        warmkit.merge(["flaky://bucket/a", "memory://bucket/b"], tmp_path / "out", method="lerp")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.warmkit").exists()


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ("memory://bucket/nothing", CheckpointError, "no such file or folder|found neither"),
        ("memory://bucket/a/config.json", CheckpointError, "expected a folder or a .safetensors file"),
        ("memory://bucket/both", FormatError, "not clear which one counts"),
        ("memory://bucket/pickled", UnsupportedError, "only pickle files"),
        ("memory://bucket/adapter", UnsupportedError, "a LoRA adapter"),
        ("memory://bucket/empty", FormatError, "found 0 bytes"),
        ("nonsense://bucket/a", UnsupportedError, "nonsense"),
        ("abfs://bucket/a", UnsupportedError, "needs another package: Install adlfs"),
    ],
)
def test_what_is_no_checkpoint_is_named(source: str, kind: type[Exception], said: str, bucket: MemoryFileSystem) -> None:
    bucket.pipe(
        {
            "/bucket/both/model.safetensors": b"",
            "/bucket/both/model.safetensors.index.json": b'{"weight_map": {"w": "model-00001-of-00001.safetensors"}}',
            "/bucket/pickled/pytorch_model.bin": b"",
            "/bucket/adapter/adapter_config.json": b"{}",
            "/bucket/empty/model.safetensors": b"",
        }
    )
    with pytest.raises(kind, match=said) as raised:
        open_checkpoint(source)
    assert source in str(raised.value)


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "c:a", "a\\b", "a\x1b[2J", "a//b", "."])
def test_a_name_that_leads_out_of_a_model_is_none(name: str, bucket: MemoryFileSystem, tmp_path: Path) -> None:
    assert not is_plain(name)
    with pytest.raises(CheckpointError, match="no name of a file inside a model"):
        save_small(tmp_path / "folder", {name: b""})
    with pytest.raises(FormatError, match="no safetensors file of this model"):
        read_mapping(json.dumps({"weight_map": {"w": f"{name}/x.safetensors"}}).encode(), "index")


def test_names_of_a_store_that_lead_out_of_a_model_are_skipped(bucket: MemoryFileSystem) -> None:
    listed = bucket.find
    strange = ["/bucket/a/../stray.json", "/bucket/a/c:stray.json", "/bucket/a//stray.json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFileSystem, "find", lambda self, path, **how: [*listed(path, **how), *strange])
        checkpoint = open_checkpoint("memory://bucket/a")
    assert sorted(each.name for each in checkpoint.path.iterdir()) == ["config.json", "tokenizer_config.json"]
    assert not list(checkpoint.path.parent.glob("stray*"))


def test_a_password_in_the_address_of_a_store_is_refused(bucket: MemoryFileSystem) -> None:
    with pytest.raises(UsageError, match="without user and password") as error:
        open_checkpoint("memory://key:S3CRET@bucket/a")
    assert "S3CRET" not in str(error.value)


def test_what_a_store_says_is_repeated_without_signatures(bucket: MemoryFileSystem) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("403 for https://host/a?X-Signature=S3CRET")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFileSystem, "find", refuse)
        with pytest.raises(TransferError, match="403 for https://host/a") as error:
            open_checkpoint("memory://bucket/a?sig=S3CRET")
    assert "S3CRET" not in str(error.value)
