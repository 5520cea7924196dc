"""The place of a result: what came there meanwhile, what --force may delete, what became of the work in progress."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import warmkit
from tests.conftest import Family, Run, make_family, save, weights
from warmkit.common import renaming
from warmkit.engine.replaceable import check_replaceable
from warmkit.errors import OutputError
from warmkit.formats.dtypes import DTYPES
from warmkit.formats.safetensors_file import build_header

Act = Callable[[], object]


def once(act: Act) -> Callable[[int, int], None]:
    """Do something when a run has done its first task."""
    left = [act]

    def advance(moved: int, total: int) -> None:
        if left:
            left.pop()()

    return advance


def soup(family: Family, out: Path, meanwhile: Act = lambda: None, **options: Any) -> None:
    warmkit.soup([family.a, family.b], out, threads=1, advance=once(meanwhile), **options)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- what came meanwhile ---------------------------------------------------------------------------------------------------


def make_folder(out: Path) -> None:
    out.mkdir()
    (out / "precious").write_text("x")


def make_empty(out: Path) -> None:
    out.mkdir()


def make_file(out: Path) -> None:
    out.write_text("x")


def make_link(out: Path) -> None:
    out.symlink_to(out.parent / "nowhere")


def make_checkpoint(out: Path) -> None:
    save(out, weights(7))


@pytest.mark.parametrize("atomic", [True, False], ids=["renameat2", "rename"])
@pytest.mark.parametrize("force", [True, False], ids=["force", ""])
@pytest.mark.parametrize("make", [make_folder, make_empty, make_file, make_link, make_checkpoint])
def test_what_is_made_at_the_destination_meanwhile_stays_and_so_does_the_result(
    make: Callable[[Path], None], force: bool, atomic: bool, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not atomic:
        monkeypatch.setattr(renaming, "_rename", lambda *_: False)
    out = tmp_path / "out"
    with pytest.raises(OutputError, match=r"out: was made by something else.*stays as it is; the result waits in .*\.out"):
        soup(family, out, lambda: make(out), force=force)
    assert (out.is_symlink(), out.is_file()) == (make is make_link, make is make_file)
    if make is make_folder:
        assert content(out) == {"precious": b"x"}
    if make is make_checkpoint:
        assert set(content(out)) == {"model.safetensors", "config.json"}
    out.rename(tmp_path / "elsewhere")
    result = warmkit.soup([family.a, family.b], out)
    assert result.resumed == len(weights(0))
    warmkit.verify(out)
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("atomic", [True, False], ids=["renameat2", "rename"])
def test_force_replaces_the_checkpoint_that_was_there(
    atomic: bool, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not atomic:
        monkeypatch.setattr(renaming, "_rename", lambda *_: False)
    out = save(tmp_path / "out", weights(7))
    soup(family, out, force=True)
    warmkit.verify(out)
    assert not list(tmp_path.glob(".out*"))


def test_force_keeps_what_was_added_to_the_checkpoint_meanwhile(family: Family, tmp_path: Path) -> None:
    out = save(tmp_path / "out", weights(7))
    with pytest.raises(OutputError, match=r"out/thesis\.txt: is not part of a checkpoint"):
        soup(family, out, lambda: (out / "thesis.txt").write_text("x") and None, force=True)
    assert set(content(out)) == {"model.safetensors", "config.json", "thesis.txt"}


def test_force_keeps_a_checkpoint_that_was_written_anew_meanwhile(family: Family, tmp_path: Path) -> None:
    out, new = save(tmp_path / "out", weights(7)), save(tmp_path / "new", weights(8))
    with pytest.raises(OutputError, match=r"out: was changed by something else .* stays as it is; the result waits in"):
        soup(family, out, lambda: shutil.copy(new / "model.safetensors", out) and None, force=True)
    assert content(out) == content(new)
    soup(family, out, force=True)
    warmkit.verify(out)
    assert not list(tmp_path.glob(".out*"))


def test_force_writes_where_the_checkpoint_that_was_there_has_gone(family: Family, tmp_path: Path) -> None:
    out = save(tmp_path / "out", weights(7))
    soup(family, out, lambda: out.rename(tmp_path / "moved") and None, force=True)
    warmkit.verify(out)
    assert set(content(tmp_path / "moved")) == {"model.safetensors", "config.json"}


# ---- what --force may delete -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "foreign",
    [
        "thesis/text",
        "thesis.txt",
        "train.py",
        "data.jsonl",
        "optimizer.pt",
        "checkpoint-5/model.safetensors.bak",
        ".git/HEAD",
    ],
)
def test_force_refuses_by_name_what_a_checkpoint_does_not_consist_of(foreign: str, family: Family, tmp_path: Path) -> None:
    out = save(tmp_path / "out", weights(7))
    (out / foreign).parent.mkdir(exist_ok=True)
    (out / foreign).write_text("x")
    before = content(out)
    with pytest.raises(OutputError, match=f"out/{foreign}: is not part of a checkpoint, and --force would delete it"):
        soup(family, out, force=True)
    assert content(out) == before
    assert not list(tmp_path.glob(".out*"))


def test_force_refuses_folders_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "config.json").write_text("{}")
    (tmp_path / "nested" / "empty").mkdir(parents=True)
    save(tmp_path / "nested", weights(1))
    (tmp_path / "file").write_text("")
    save(tmp_path / "linked", weights(1))
    (tmp_path / "linked" / "1_Pooling").symlink_to(tmp_path / "configs")
    (tmp_path / "link").symlink_to(tmp_path / "linked")
    sweep = save(tmp_path / "sweep" / "eta-0.5", weights(1)).parent
    (sweep / "eta-1").mkdir()
    (sweep / "eta-1" / "notes").write_text("x")
    for name, said in (
        ("configs", "holds no weights"),
        ("nested", "nested/empty: is not part"),
        ("file", "something else"),
        ("linked", "linked/1_Pooling: is not part"),
        ("link", "is a link, which --force does not replace"),
        ("sweep", "eta-1/notes: is not part"),
    ):
        with pytest.raises(OutputError, match=said):
            check_replaceable(tmp_path / name)


def test_force_replaces_every_kind_of_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    whole = save(tmp_path / "whole", weights(1), shards=3)
    names = """tokenizer.json tokenizer.model tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json
        merges.txt generation_config.json chat_template.jinja preprocessor_config.json modeling_own.py LICENSE README.md
        modules.json 1_Pooling/config.json 2_Dense/model.safetensors additional_chat_templates/tool_use.jinja"""
    for name in names.split():
        (whole / name).parent.mkdir(exist_ok=True)
        (whole / name).write_text("")
    ours = save(tmp_path / "ours", weights(1))
    (ours / "own_companion.txt").write_text("")
    (ours / "warmkit.json").write_text(json.dumps({"files": {"own_companion.txt": {}}}))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        (adapter / name).write_text("")
    save(tmp_path / "sweep" / "eta-0.1", weights(1))
    for name in ("empty", "whole", "ours", "adapter", "sweep"):
        check_replaceable(tmp_path / name)


# ---- work in progress ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["", "result", "result/model.safetensors"])
def test_work_that_is_removed_meanwhile_is_no_result(what: str, family: Family, tmp_path: Path) -> None:
    out, gone = tmp_path / "out", tmp_path / ".out.warmkit" / what
    remove = gone.unlink if gone.suffix == ".safetensors" else (lambda: shutil.rmtree(gone))
    with pytest.raises(OutputError, match=r"was removed or replaced|cannot be written"):
        soup(family, out, remove)
    assert not out.exists()
    soup(family, out)
    warmkit.verify(out)
    assert not list(tmp_path.glob(".out*"))


def test_a_journal_is_not_believed_of_files_that_are_gone(tmp_path: Path) -> None:
    family, out = make_family(tmp_path, shards=3), tmp_path / "out"
    with pytest.raises(OutputError):
        soup(family, out, out.mkdir)
    out.rmdir()
    result = tmp_path / ".out.warmkit" / "result"
    (result / "model.safetensors").unlink()
    resumed = warmkit.soup([family.a, family.b], out)
    assert resumed.resumed == 0
    warmkit.verify(out)


@pytest.mark.parametrize("name", [".out.warmkit", ".out.warmkit/result", ".out.warmkit/lock"])
def test_a_link_in_place_of_work_in_progress_is_not_followed(name: str, family: Family, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "result").mkdir(parents=True)
    (victim / "result" / "thesis").write_text("x")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(victim if name != ".out.warmkit/lock" else victim / "new")
    before = content(victim)
    if name == ".out.warmkit/result":
        soup(family, tmp_path / "out")
    else:
        with pytest.raises(OutputError, match=r"expected a directory for work in progress|cannot be written"):
            soup(family, tmp_path / "out")
    assert content(victim) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_work_in_progress_of_another_user_is_left_alone(family: Family, tmp_path: Path) -> None:
    theirs = tmp_path / ".out.warmkit"
    theirs.mkdir()
    (theirs / "thesis").write_text("x")
    os.chown(theirs, 12345, 12345)
    with pytest.raises(OutputError, match="work in progress of another user"):
        soup(family, tmp_path / "out")
    assert content(theirs) == {"thesis": b"x"}


@pytest.mark.parametrize("left", [[], ["lock"]])
def test_what_a_run_left_that_was_killed_at_its_very_end_is_removed(left: list[str], family: Family, tmp_path: Path) -> None:
    out, root = tmp_path / "out", tmp_path / ".out.warmkit"
    soup(family, out)
    root.mkdir()
    for name in left:
        (root / name).write_text("")
    with pytest.raises(OutputError, match="already exists"):
        soup(family, out)
    assert not root.exists()


# ---- places that touch inputs ----------------------------------------------------------------------------------------------


def test_a_destination_that_holds_files_of_an_input_is_refused_even_with_force(family: Family, tmp_path: Path) -> None:
    for out in (family.a, tmp_path, family.b / "out"):
        with pytest.raises(OutputError, match="choose another -o"):
            soup(family, out, force=True)
    view = tmp_path / "view"
    view.mkdir()
    for name in ("model.safetensors", "config.json"):
        (view / name).symlink_to(family.c / name)
    with pytest.raises(warmkit.WarmkitError, match=r"a file of the input|link"):
        warmkit.soup([family.a, view], family.c, force=True)
    assert warmkit.open_checkpoint(family.c)


# ---- names -----------------------------------------------------------------------------------------------------------------


def test_etas_that_print_alike_have_folders_of_their_own(family: Family, tmp_path: Path) -> None:
    etas = [0.3, 0.12345678, 0.12345679]
    result = warmkit.liti(family.a, tmp_path / "out", init=family.init, eta=etas)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["eta-0.12345678", "eta-0.12345679", "eta-0.3"]
    one, two = (warmkit.open_checkpoint(result.outputs[eta])["lm_head.weight"].load() for eta in etas[1:])
    assert not torch.equal(one, two)


def test_the_command_lists_every_eta(family: Family, run: Run) -> None:
    done = run("liti", family.a, "--init", family.init, "--eta", "0.12345678,0.12345679", "-o", "out", "--json")
    assert list(json.loads(done.stdout)["outputs"]) == ["0.12345678", "0.12345679"]


def test_a_tensor_that_safetensors_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for seed, folder in enumerate("ab"):
        (tmp_path / folder).mkdir()
        torch.save({"__metadata__": torch.full((2,), float(seed))}, tmp_path / folder / "pytorch_model.bin")
    with pytest.raises(OutputError, match="called '__metadata__'"):
        warmkit.soup([tmp_path / "a", tmp_path / "b"], tmp_path / "out", allow_pickle=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    with pytest.raises(OutputError, match="no text that UTF-8 can hold"):
        build_header([("bad\ud800", DTYPES["F32"], (2,))], {})


def test_a_header_that_no_reader_takes_is_refused(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warmkit.formats.safetensors_file.MAX_HEADER_BYTES", 600)
    wide = save(tmp_path / "wide", {f"layers.{n}": torch.zeros(1) for n in range(20)}, None, shards=10)
    with pytest.raises(OutputError, match=r"allow 600; choose a smaller --max-shard-size"):
        warmkit.soup([wide, wide], tmp_path / "out")
    warmkit.soup([wide, wide], tmp_path / "out", max_shard_size=16)


# ---- disks -----------------------------------------------------------------------------------------------------------------

FULL = """
import resource, signal, sys
import warmkit
from warmkit.verbs.merge import soup
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
try: soup(sys.argv[1:3], sys.argv[3])
except warmkit.WarmkitError as error: print(error); sys.exit(1)
"""


@pytest.mark.parametrize("most", [100, 3000])
def test_files_that_may_not_grow_are_one_line_and_the_next_run_ends_well(most: int, family: Family, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(family.a), str(family.b), str(tmp_path / "out"), str(most)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, ""), done.stderr
    assert "cannot be written: File too large" in done.stdout
    assert not (tmp_path / "out").exists()
    soup(family, tmp_path / "out")
    warmkit.verify(tmp_path / "out")
