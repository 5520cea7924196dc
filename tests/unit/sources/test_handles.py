"""More files than a process may have open."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import torch

from tests.conftest import save
from warmkit.sources.handles import Handles

LIMITED = """
import resource, sys
import warmkit
from warmkit.sources import handles
warmkit.soup(sys.argv[1:3], sys.argv[3] + "-warm")  # whatever imports open
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[4]), int(sys.argv[5])))
warmkit.liti(sys.argv[1], sys.argv[3], init=sys.argv[2], eta=[0.0, 0.5, 1.0], max_shard_size=32, threads=4)
warmkit.verify(__import__("pathlib").Path(sys.argv[3]))
"""


def limited(folder: Path, soft: int, hard: int) -> subprocess.CompletedProcess[str]:
    for seed, name in enumerate("ab"):
        generator = torch.Generator().manual_seed(seed)
        save(folder / name, {f"layers.{n}.w": torch.randn(8, generator=generator) for n in range(150)}, None, shards=150)
    command = [sys.executable, "-c", LIMITED, str(folder / "a"), str(folder / "b"), str(folder / "out"), str(soft), str(hard)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_merge_of_more_shards_than_files_may_be_open_ends_well(tmp_path: Path) -> None:
    done = limited(tmp_path, 64, 64)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "eta-0.5").glob("model-*.safetensors"))) == 150


def test_the_soft_limit_is_raised(tmp_path: Path) -> None:
    done = limited(tmp_path, 40, 4000)
    assert done.returncode == 0, done.stderr


def test_the_file_used_longest_ago_is_closed_unless_it_is_in_use(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(12)]
    for file in files:
        file.write_text(file.name)
    closed: list[bytes] = []
    handles = Handles(os.O_RDONLY, closing=lambda descriptor: closed.append(os.pread(descriptor, 9, 0)), most=3)
    with handles.use(files[0]) as first:
        for file in files[1:4]:
            with handles.use(file) as descriptor:
                assert os.pread(descriptor, 9, 0) == file.name.encode()
        assert os.pread(first, 9, 0) == b"0"
    assert (len(handles), closed) == (3, [b"1"])
    handles.close()
    assert len(handles) == 0


def test_threads_read_the_right_file(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(20)]
    for file in files:
        file.write_text(f"{file.name:>4}")
    handles, wrong = Handles(os.O_RDONLY, most=4), list[str]()

    def read(seed: int) -> None:
        for turn in range(500):
            file = files[(turn * seed) % len(files)]
            with handles.use(file) as descriptor:
                if os.pread(descriptor, 4, 0).decode().strip() != file.name:
                    wrong.append(file.name)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in (1, 3, 7, 11, 13, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handles.close()
    assert not wrong
