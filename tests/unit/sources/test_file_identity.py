"""Inputs that change while they are read: refused, whatever kind they are of, and nothing is written."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import warmkit
from tests.conftest import CONFIG, Family, make_family, save, weights
from tests.unit.layouts import lora
from warmkit.errors import ChangedError, WarmkitError
from warmkit.sources.file_identity import identities_at, identity
from warmkit.verbs.merger import Merger

Change = Callable[[Path], None]


def replaced(file: Path) -> None:
    """Put a copy in the file's place: the same bytes and times, another file."""
    shutil.copy2(file, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)


def overwritten(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(-4, os.SEEK_END)
        opened.write(b"\0\0\0\0")
    os.utime(file)


def removed(file: Path) -> None:
    file.unlink()


def once(change: Change, file: Path) -> Callable[[int, int], None]:
    """Change a file when a run has done its first task."""
    left = [change]

    def advance(moved: int, total: int) -> None:
        if left:
            left.pop()(file)

    return advance


def untouched(folder: Path, output: Path, act: Callable[[], Any], said: str) -> None:
    """Check that something is refused for a change, and that nothing of it is left."""
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(ChangedError, match=said):
        act()
    assert not output.exists()
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "said"), [(replaced, "replaced by another"), (overwritten, "overwritten"), (removed, "removed")], ids=lambda x: x
)
@pytest.mark.parametrize("method", ["lerp", "slerp"])
def test_a_weight_file_that_changes_during_a_merge_is_noticed(
    method: str, change: Change, said: str, family: Family, tmp_path: Path
) -> None:
    last, out = family.b / "model.safetensors", tmp_path / "out"
    merge = lambda: warmkit.merge(  # noqa: E731
        [family.a, family.b], out, init=family.init, method=method, threads=1, advance=once(change, last)
    )
    untouched(tmp_path, out, merge, f"b/model.safetensors: was {said}")


def test_a_shard_that_is_replaced_before_it_is_opened_is_not_read(tmp_path: Path) -> None:
    family, out = make_family(tmp_path, shards=5), tmp_path / "out"
    last = family.a / "model-00005-of-00005.safetensors"
    merge = lambda: warmkit.soup([family.a, family.b], out, threads=1, advance=once(replaced, last))  # noqa: E731
    untouched(tmp_path, out, merge, "00005-of-00005.safetensors: was replaced")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("which", ["a", "b"])
def test_a_config_or_tokenizer_that_changes_is_noticed(name: str, which: str, family: Family, tmp_path: Path) -> None:
    for model in (family.a, family.b):
        (model / "tokenizer_config.json").write_text("{}")
    out, file = tmp_path / "out", tmp_path / which / name
    merge = lambda: warmkit.soup([family.a, family.b], out, threads=1, advance=once(replaced, file))  # noqa: E731
    untouched(tmp_path, out, merge, f"{which}/{name}: was replaced")


def test_what_a_training_run_goes_on_writing_beside_the_weights_is_no_change(family: Family, tmp_path: Path) -> None:
    names = (
        "trainer_state.json",
        "optimizer.pt",
        "checkpoint-1/model.safetensors.index.json",
        "checkpoint-1/model.safetensors",
    )
    (family.a / "checkpoint-1").mkdir()
    for name in names:
        (family.a / name).write_text("{}")
    for number, name in enumerate(names):
        out = tmp_path / f"out-{number}"
        warmkit.soup([family.a, family.b], out, threads=1, advance=once(replaced, family.a / name))
        warmkit.verify(out)


def test_a_sweep_notices_too(family: Family, tmp_path: Path) -> None:
    out, file = tmp_path / "out", family.init / "model.safetensors"
    sweep = lambda: warmkit.liti(  # noqa: E731
        family.a, out, init=family.init, eta=[0.1, 0.5], threads=1, advance=once(overwritten, file)
    )
    untouched(tmp_path, out, sweep, "sft/model.safetensors: was overwritten")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_adapter_that_changes_is_noticed(name: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = lora.base(tmp_path / "base")
    adapter, out = lora.adapter(tmp_path / "adapter", base, r=2, target_modules=["q_proj"]), tmp_path / "out"
    merge = lambda: warmkit.merge(  # noqa: E731
        [f"{base}+{adapter}", base], out, method="lerp", threads=1, advance=once(replaced, adapter / name)
    )
    untouched(tmp_path, out, merge, f"adapter/{name}: was replaced")


@pytest.mark.parametrize("kind", ["pickle", "distributed"])
def test_what_torch_saved_is_noticed(kind: str, tmp_path: Path) -> None:
    for seed, name in ((1, "a"), (2, "b")):
        if kind == "pickle":
            (tmp_path / name).mkdir()
            torch.save(weights(seed), tmp_path / name / "pytorch_model.bin")
        else:
            import torch.distributed.checkpoint as dcp

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dcp.save(weights(seed), checkpoint_id=tmp_path / name, no_dist=True)
    out = tmp_path / "out"
    file = next(file for file in (tmp_path / "b").iterdir() if file.suffix in (".bin", ".distcp"))
    merge = lambda: warmkit.soup(  # noqa: E731
        [tmp_path / "a", tmp_path / "b"], out, allow_pickle=True, threads=1, advance=once(replaced, file)
    )
    untouched(tmp_path, out, merge, f"b/{file.name}: was replaced")


# ---- every way of reading ------------------------------------------------------------------------------------------------

BESIDE = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
TOKENS = '{"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": []}'


def complete(path: Path) -> Path:
    """Put beside weights what a merge compares or copies."""
    for name in BESIDE:
        if not (path / name).exists():
            (path / name).write_text(TOKENS if name == "tokenizer.json" else "{}" if name.endswith("json") else "{{ 1 }}")
    return path


def two(folder: Path, **options: Any) -> list[Path]:
    return [complete(save(folder / name, weights(seed), **options)) for seed, name in ((1, "a"), (2, "b"))]


def merged(folder: Path, output: Path, advance: Callable[[int, int], None]) -> None:
    warmkit.merge(two(folder), output, method="lerp", threads=1, advance=advance)


def averaged(folder: Path, output: Path, advance: Callable[[int, int], None]) -> None:
    warmkit.ema(two(folder, shards=2), output, threads=1, advance=advance)


def sliced(folder: Path, output: Path, advance: Callable[[int, int], None]) -> None:
    one, other = two(folder, config={**CONFIG, "num_hidden_layers": 3})
    slices = [warmkit.Slice((warmkit.LayerRange(one, 0, 2),)), warmkit.Slice((warmkit.LayerRange(other, 1, 3),))]
    warmkit.merge_slices(slices, output, threads=1, advance=advance)


def united(folder: Path, output: Path, advance: Callable[[int, int], None]) -> None:
    warmkit.merge(two(folder), output, method="lerp", vocabulary="union", threads=1, advance=advance)


def unpickled(folder: Path, output: Path, advance: Callable[[int, int], None]) -> None:
    for seed, name in ((1, "a"), (2, "b")):
        complete(save(folder / name, {}, shards=1))
        (folder / name / "model.safetensors").unlink()
        first, second = dict(list(weights(seed).items())[:5]), dict(list(weights(seed).items())[5:])
        mapping = dict.fromkeys(first, "pytorch_model-00001-of-00002.bin") | dict.fromkeys(
            second, "pytorch_model-00002-of-00002.bin"
        )
        torch.save(first, folder / name / "pytorch_model-00001-of-00002.bin")
        torch.save(second, folder / name / "pytorch_model-00002-of-00002.bin")
        (folder / name / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": mapping}))
    warmkit.soup([folder / "a", folder / "b"], output, allow_pickle=True, threads=1, advance=advance)


def adapted(folder: Path, output: Path, advance: Callable[[int, int], None]) -> None:
    base = complete(lora.base(folder / "a"))
    adapter = lora.adapter(folder / "b", base, r=2, target_modules=["q_proj"])
    warmkit.merge([f"{base}+{adapter}", base], output, method="lerp", threads=1, advance=advance)


def extracted(folder: Path, output: Path, advance: Callable[[int, int], None]) -> None:
    base, tuned = (complete(lora.base(folder / name, seed=seed)) for seed, name in ((0, "a"), (1, "b")))
    warmkit.extract_lora(tuned, output, init=base, rank=2, advance=advance)


def chosen(folder: Path, output: Path, advance: Callable[[int, int], None]) -> None:
    warmkit.greedy_soup(two(folder), output, score="echo {} >/dev/null; echo 1", threads=1, advance=advance)


WEIGHTS = {
    averaged: ("model-00002-of-00002.safetensors", "model.safetensors.index.json"),
    unpickled: ("pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"),
    adapted: ("adapter_model.safetensors", "adapter_config.json"),
}
READERS = (merged, averaged, sliced, united, unpickled, adapted, extracted, chosen)


@pytest.mark.parametrize(
    ("read", "which", "name"),
    [
        (read, which, name)
        for read in READERS
        for which in "ab"
        for name in (*WEIGHTS.get(read, ("model.safetensors",)), *BESIDE)
        if (name in WEIGHTS[adapted]) == (which == "b") or read is not adapted
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_whatever_is_compared_copied_or_read_is_watched(
    read: Callable[..., None], which: str, name: str, tmp_path: Path
) -> None:
    out, file = tmp_path / "out", tmp_path / which / name
    with pytest.raises(ChangedError, match=f"{which}/{re.escape(name)}: was replaced by another file"):
        read(tmp_path, out, once(replaced, file))
    assert not out.exists()


def test_extract_lora_notices(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base, out = lora.base(tmp_path / "base"), tmp_path / "out"
    tuned = lora.base(tmp_path / "tuned", seed=1)
    extract = lambda: warmkit.extract_lora(  # noqa: E731
        tuned, out, init=base, rank=2, advance=once(overwritten, base / "model.safetensors")
    )
    untouched(tmp_path, out, extract, "base/model.safetensors: was overwritten")


def test_compare_and_a_merge_in_memory_notice(family: Family) -> None:
    file = family.a / "model.safetensors"
    with pytest.raises(ChangedError, match="was replaced"):
        warmkit.compare([family.a, family.b], init=family.init, threads=1, advance=once(replaced, file))
    merger = Merger([family.a, family.b], method="lerp")
    merger.state_dict(lambda_=0.2)
    overwritten(file)
    with pytest.raises(ChangedError, match="was overwritten"):
        merger.state_dict(lambda_=0.4)


def test_a_greedy_soup_notices_between_scores_and_the_result(tmp_path: Path) -> None:
    models = [save(tmp_path / name, {"w": torch.tensor([value])}, None) for name, value in (("a", 1.0), ("b", 2.0))]
    file = models[0] / "model.safetensors"
    score = f"if [ -e {tmp_path}/seen ]; then cp {file} {file}.new && mv {file}.new {file}; fi; touch {tmp_path}/seen; "
    with pytest.raises(WarmkitError, match="was replaced"):
        warmkit.greedy_soup(models, tmp_path / "out", score=score + "echo {} >/dev/null; echo 1")
    assert not (tmp_path / "out").exists()


def test_identities_are_those_of_files_in_a_directory_and_its_folders(tmp_path: Path) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    for name in ("file", "one/file", "one/two/file"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "nowhere").symlink_to(tmp_path / "nothing")
    found = identities_at(tmp_path)
    assert sorted(path.name for path in found) == ["file", "file", "link"]
    assert found[tmp_path / "link"] == identity(tmp_path / "file")
    assert identities_at(tmp_path / "file") == {tmp_path / "file": identity(tmp_path / "file")}
    assert identities_at(tmp_path / "nothing") == {}


@pytest.mark.parametrize("method", ["slerp", "ties"])
def test_a_change_that_leaves_no_new_time_is_noticed_where_a_method_reads_twice(
    method: str, family: Family, tmp_path: Path
) -> None:
    def rewritten(file: Path) -> None:
        """Change every weight as a process does that has mapped the file: without a new time, in the worst case."""
        before = file.stat()
        start = 8 + int.from_bytes(file.read_bytes()[:8], "little")
        with file.open("r+b") as opened:
            opened.seek(start)
            opened.write(bytes(before.st_size - start))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    file, out = family.b / "model.safetensors", tmp_path / "out"
    merge = lambda: warmkit.merge(  # noqa: E731
        [family.a, family.b], out, init=family.init, method=method, threads=1, advance=once(rewritten, file)
    )
    untouched(tmp_path, out, merge, "b: tensor .* was overwritten while it was read")
