"""Kills, full disks and read-only places: the destination is absent or complete, and a rerun ends in the same bytes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import warmkit
from tests import forks
from tests.benchmarks.llama import build
from tests.conftest import Family, Run
from tests.unit.layouts.lora import adapter
from warmkit.errors import OutputError

# journals every quarter of a megabyte, so that a model of a test's size leaves something to resume
EAGER = "import sys, warmkit.engine.sink as sink; sink.FLUSH_BYTES = 1 << 18; from warmkit.cli.app import main; main()"
KILLS = 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of 30 million parameters in shards."""
    folder = tmp_path_factory.mktemp("large")
    for seed, name in enumerate(("sft", "a", "b")):
        build(folder / name, "0.03B", seed, shards=2)
    return folder


def start(folder: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    merge = ["merge", "--init", str(folder / "sft"), str(folder / "a"), str(folder / "b"), "-o", str(output), "--json"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return forks.Popen([sys.executable, "-c", EAGER, *merge, "--eta", "0.3,1", *more], **pipes)


def finish(process: subprocess.Popen[str]) -> dict[str, object]:
    """Wait for a run that must succeed and return its result."""
    said, diagnosis = process.communicate()
    assert process.returncode == 0, diagnosis
    return json.loads(said)


def staged(output: Path, process: subprocess.Popen[str]) -> float:
    """Wait until a run has begun to write, and return that moment."""
    while not (output.parent / f".{output.name}.warmkit").exists():
        assert process.poll() is None
        time.sleep(0.002)
    return time.monotonic()


def interrupt_midway(folder: Path, output: Path, number: int = signal.SIGKILL, *more: str) -> subprocess.Popen[str]:
    """Start a run and send it a signal once its journal holds finished tensors."""
    journal = output.parent / f".{output.name}.warmkit" / "journal.jsonl"
    victim = start(folder, output, "--threads", "1", *more)
    while not (journal.exists() and journal.read_text().count('"tensor"') > 4):
        assert victim.poll() is None
        time.sleep(0.002)
    victim.send_signal(number)
    return victim


def digests(output: Path) -> list[str]:
    """Return the digest of every tensor of every eta, as `verify` finds it on disk."""
    warmkit.verify(output)
    manifests = [json.loads((output / f"eta-{eta}" / "warmkit.json").read_text()) for eta in ("0.3", "1")]
    return [tensor["output"] for manifest in manifests for _, tensor in sorted(manifest["tensors"].items())]


def test_kill_9_at_random_moments_leaves_nothing_half_done(large: Path, tmp_path: Path) -> None:
    finish(start(large, tmp_path / "first"))  # compiles the kernels
    whole = start(large, tmp_path / "whole", "--threads", "1")
    began = staged(tmp_path / "whole", whole)
    finish(whole)
    duration, expected = time.monotonic() - began, digests(tmp_path / "whole")
    moments, resumed, killed = random.Random(0), 0, 0
    for number in range(KILLS):
        output = tmp_path / f"out{number}"
        victim = start(large, output, "--threads", "1")
        staged(output, victim)
        time.sleep(moment := moments.uniform(0, 1) * duration)
        victim.kill()
        if victim.wait() == -signal.SIGKILL:
            killed += 1
        else:
            duration = moment  # the first run took longer, beside other work
        victim.communicate()
        if output.exists():
            assert digests(output) == expected
        again = start(large, output)
        said, diagnosis = again.communicate()
        if again.returncode:  # the kill came when the result was in place, or never
            assert "already exists" in diagnosis
        else:
            resumed += json.loads(said)["resumed"] > 0
        assert digests(output) == expected
        assert not list(tmp_path.glob(f".out{number}.*"))
        shutil.rmtree(output)
    assert killed >= KILLS // 4
    assert resumed > 0, "no kill came late enough to leave anything to resume"


@pytest.mark.parametrize("kind", ["that edits task vectors", "of an adapter"])
def test_a_killed_merge_resumes_to_the_same_bytes(kind: str, large: Path, tmp_path: Path) -> None:
    more: tuple[str, ...] = ("--method", "ties", "--granularity", "layer")
    if kind == "of an adapter":
        pytest.importorskip("peft")
        factors = adapter(tmp_path / "adapter", large / "sft", r=4, target_modules=["q_proj", "down_proj"])
        more = (f"{large / 'sft'}+{factors}",)
    victim = interrupt_midway(large, tmp_path / "out", signal.SIGKILL, *more)
    victim.communicate()
    assert not (tmp_path / "out").exists()
    assert finish(start(large, tmp_path / "out", *more))["resumed"]
    assert not finish(start(large, tmp_path / "whole", *more))["resumed"]
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly_and_the_next_run_resumes(number: int, code: int, large: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    victim = interrupt_midway(large, output, number)
    _, said = victim.communicate()
    assert victim.returncode == code, said
    assert "goes on where this one stopped" in said
    assert "Traceback" not in said
    assert not output.exists()
    assert finish(start(large, output))["resumed"]
    warmkit.verify(output)


@pytest.mark.parametrize("other", ["--no-resume", "--granularity=tensor", "--max-shard-size=50MB"])
def test_another_plan_starts_over(other: str, large: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    interrupt_midway(large, output).communicate()
    assert finish(start(large, output, other))["resumed"] == 0
    warmkit.verify(output)


def test_an_input_that_changed_since_starts_over(large: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    interrupt_midway(large, output).communicate()
    os.utime(next((large / "a").glob("*.safetensors")))
    assert finish(start(large, output))["resumed"] == 0


def test_a_torn_journal_is_used_up_to_the_tear(large: Path, tmp_path: Path) -> None:
    output, journal = tmp_path / "out", tmp_path / ".out.warmkit" / "journal.jsonl"
    finish(start(large, tmp_path / "whole"))
    interrupt_midway(large, output).communicate()
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:-9] + b"\0\0\0")
    assert 0 < finish(start(large, output))["resumed"] < sum(b'"tensor"' in line for line in lines)  # type: ignore[operator]
    assert digests(output) == digests(tmp_path / "whole")


def test_two_runs_do_not_write_the_same_destination(large: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = start(large, output, "--threads", "1")
    while not (tmp_path / ".out.warmkit" / "journal.jsonl").exists():
        assert first.poll() is None
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)  # or it may be done before the second has begun
    second = start(large, output)
    _, said = second.communicate()
    first.send_signal(signal.SIGCONT)
    finish(first)
    assert second.returncode == 1
    assert "another warmkit is writing it" in said
    warmkit.verify(output)


# ---- disks -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6M", "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def megabytes(tmp_path: Path) -> Path:
    """Two models of 4 MB."""
    import torch

    from tests.conftest import save

    for seed, name in enumerate("ab"):
        generator = torch.Generator().manual_seed(seed)
        tensors = {f"layers.{n}.weight": torch.randn(128, 1024, generator=generator) for n in range(8)}
        save(tmp_path / name, tensors, config=None)
    return tmp_path


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(large: Path, small_disk: Path, run: Run) -> None:
    done = run("merge", "--method", "lerp", large / "a", large / "b", "-o", small_disk / "out")
    assert done.returncode == 1
    assert "are needed and" in done.stderr
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_half_way_loses_nothing(megabytes: Path, small_disk: Path) -> None:
    output, filler = small_disk / "out", small_disk / "filler"

    def fill(moved: int, total: int) -> None:
        if not filler.exists():
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(1 << 16)):
                    pass

    models = [megabytes / "a", megabytes / "b"]
    with pytest.raises(OutputError, match="the disk is full; free some space"):
        warmkit.merge(models, output, method="lerp", threads=1, advance=fill)
    assert not output.exists()
    filler.unlink()
    warmkit.merge(models, output, method="lerp")
    warmkit.verify(output)
    assert sorted(path.name for path in small_disk.iterdir()) == ["out"]


def test_a_place_that_cannot_be_written_is_named(family: Family, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("soup", family.a, family.b, "-o", tmp_path / "file" / "out")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert str(tmp_path / "file") in done.stderr


def test_a_read_only_file_system_is_an_error(family: Family, run: Run, small_disk: Path) -> None:
    remounted = subprocess.run(["mount", "-o", "remount,ro", small_disk], capture_output=True, check=False)
    assert remounted.returncode == 0
    done = run("soup", family.a, family.b, "-o", small_disk / "out")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(small_disk) in done.stderr


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root writes everywhere")
def test_a_directory_without_permission_is_an_error(family: Family, run: Run, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    done = run("soup", family.a, family.b, "-o", tmp_path / "locked" / "out")
    assert (done.returncode, "not writable" in done.stderr) == (1, True)
