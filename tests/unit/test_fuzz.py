"""Damaged files of every kind are read as their own readers read them, or refused; the long run is `python -m tests.fuzz`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fuzz.cases import BAD, guarded, outcome
from tests.fuzz.readers import Reader, readers

CASES = 2000  # of a reader whose share is 1
KINDS = (
    *(
        "safetensors",
        "HuggingFaceStorageWriter",
        "index",
        "config",
        "adapter config",
        "adapter",
        "quantised",
        "GGUF",
        "quantised config",
        "torch.save",
        "FSDP rank files",
        "legacy torch.save",
        "torch.distributed.checkpoint",
        "Megatron-Core torch_dist",
        "DeepSpeed ZeRO",
    ),
    *("tokenizer", "tokenizer config", "manifest", "recipe", "mergekit", "rows", "score", "http ranges"),
)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reader]]:
    with guarded():
        yield readers(tmp_path_factory.mktemp("fuzz"))


def test_every_reader_has_its_turn(everything: dict[str, Reader]) -> None:
    assert tuple(everything) == KINDS, "the names that readers() of tests/fuzz/readers.py returns, in its order"


@pytest.mark.parametrize("name", KINDS)
def test_what_is_damaged_is_read_right_or_refused(name: str, everything: dict[str, Reader]) -> None:
    reader, found = everything[name], Counter[str]()
    if reader.reference is not None:
        assert reader.read() == reader.reference()
    for number in range(int(CASES * min(reader.share, 1))):
        kind, said = outcome(reader, f"suite:{name}:{number}")
        assert kind not in BAD, f"case suite:{name}:{number}: {kind}: {said}"
        found[kind] += 1
    assert found["refused"]
