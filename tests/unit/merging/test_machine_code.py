"""Machine code on disk: found again without numba, and made again where it is not what it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from warmkit.merging import machine_code
from warmkit.merging.machine_code import Kernel

X = np.array([1.0, -3.0, 2.0], np.float32)
TOP = int(np.array(3.0, np.float32).view(np.uint32))  # the bits of the largest magnitude


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine_code, "_folders", lambda: [tmp_path])
    return tmp_path


def peak() -> int:
    return Kernel("compiled", "peak")(X)


def test_a_second_process_has_the_same_bytes_and_does_not_import_numba(tmp_path: Path) -> None:
    script = """
import sys
import numpy as np
from warmkit.merging.kernels import NumbaKernels
kernels, out = NumbaKernels(), np.empty(100, np.uint16)
block = np.arange(500, dtype=np.uint16).reshape(5, 100)
assert kernels.combine(np.array([0.1, 0.2, 0.3, 0.2, 0.2]), block, out)
print(out.tobytes().hex(), kernels.gram(block, "weights").tobytes().hex(), "numba" in sys.modules)
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert said[0][:2] == said[1][:2]
    assert [each[2] for each in said] == ["True", "False"]


def test_code_is_one_file_a_function_and_types(folder: Path) -> None:
    assert peak() == TOP
    (file,) = folder.iterdir()
    assert file.name.startswith("compiled.peak-f41c.")


@pytest.mark.parametrize("damage", ["shorter", "a bit", "empty", "of other sources"])
def test_damaged_code_is_not_run_but_made_again(folder: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    peak()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    if damage == "of other sources":
        monkeypatch.setattr(machine_code, "_origin", lambda: b"another version of numba")
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        file.write_bytes({"shorter": whole[:-1], "a bit": flipped, "empty": b""}[damage])
    made: list[str] = []
    compile_it = machine_code._compile
    monkeypatch.setattr(machine_code, "_compile", lambda *which: made.append(which[1]) or compile_it(*which))
    assert peak() == TOP
    assert made == ["peak"]
    assert peak() == TOP
    assert made == ["peak"]  # the second time it was whole
    assert list(folder.iterdir()) == [file]


def test_the_first_folder_that_can_be_written_takes_it_and_any_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    no_folder, user = tmp_path / "file" / "cache", tmp_path / "user" / "cache"
    monkeypatch.setattr(machine_code, "_folders", lambda: [no_folder])
    assert peak() == TOP
    monkeypatch.setattr(machine_code, "_folders", lambda: [no_folder, user])
    assert peak() == TOP
    assert len(list(user.iterdir())) == 1
    monkeypatch.setattr(machine_code, "_compile", lambda *which: pytest.fail("compiled again"))
    assert peak() == TOP


def test_an_error_inside_of_machine_code_is_an_exception() -> None:
    rows, out = np.zeros((4, 8), np.float32), np.empty(8, np.float32)
    with pytest.raises(RuntimeError, match="failed"):
        Kernel("compiled", "combine")(np.ones(4), rows, np.arange(4), np.empty(0), out)  # sums have no place


def test_arrays_of_other_layouts_have_code_of_their_own(folder: Path) -> None:
    kernel = Kernel("compiled", "peak")
    assert kernel(np.repeat(X, 2)[::2]) == TOP
    assert kernel(X) == TOP
    assert {file.name.split(".")[1] for file in folder.iterdir()} == {"peak-f41a", "peak-f41c"}
