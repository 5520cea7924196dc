"""Checkpoints made on the spot, and the command line as a user runs it."""

from __future__ import annotations

import json
import multiprocessing.spawn
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from safetensors.torch import save_file

import warmkit
from tests import forks

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would what we start
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side
ROOT, FOUND = str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "").split(os.pathsep)
if ROOT not in FOUND:  # what we start finds `tests`, too
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, *FOUND]))
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # here too: what we start must compute the same bytes

settings.register_profile("here", deadline=None)  # shared machines pause
settings.load_profile("here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests, so that none is left at the end, when the other worker has nothing to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Take back what a test, or what it imported, set in the environment: commands would no longer be forks."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
SHAPES = {
    "model.embed_tokens.weight": (40, 8),
    **{
        f"model.layers.{layer}.{name}": shape
        for layer in range(3)
        for name, shape in {"attn.weight": (8, 8), "mlp.weight": (24, 8), "norm.weight": (8,)}.items()
    },
    "model.norm.weight": (8,),
    "lm_head.weight": (40, 8),
}


def weights(seed: int, dtype: torch.dtype = torch.float32, scale: float = 0.1) -> dict[str, torch.Tensor]:
    """Return base weights for seed 0; for others the base plus a task vector of their own."""
    base, own = torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in SHAPES.items():
        value = torch.randn(shape, generator=base)
        if seed:
            value = value + scale * torch.randn(shape, generator=own)
        tensors[name] = value.to(dtype)
    return tensors


def save(path: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any] | None = CONFIG, shards: int = 1) -> Path:
    """Write a model directory, sharded where asked."""
    path.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    if shards == 1:
        save_file(dict(tensors), path / "model.safetensors", metadata={"format": "pt"})
    else:
        mapping = {}
        for number in range(shards):
            file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
            part = names[number::shards]
            save_file({name: tensors[name] for name in part}, path / file, metadata={"format": "pt"})
            mapping |= dict.fromkeys(part, file)
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapping}))
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


@dataclass(frozen=True)
class Family:
    """An initialisation and three models fine-tuned from it."""

    init: Path
    a: Path
    b: Path
    c: Path

    @property
    def models(self) -> list[Path]:
        return [self.a, self.b, self.c]


@pytest.fixture
def family(tmp_path: Path) -> Family:
    """float32 checkpoints in one file each."""
    return make_family(tmp_path)


def make_family(folder: Path, dtype: torch.dtype = torch.float32, shards: int = 1) -> Family:
    return Family(
        *(save(folder / name, weights(seed, dtype), shards=shards) for seed, name in enumerate(("sft", "a", "b", "c")))
    )


def tensors_of(source: Any, **how: Any) -> dict[str, torch.Tensor]:
    """Read all tensors of a checkpoint."""
    return {name: lazy.load() for name, lazy in warmkit.open_checkpoint(source, **how).items()}


class Stopped(Exception):
    """The run ends here."""


def stop_at(task: int) -> Callable[[int, int], None]:
    """Return a progress callback that ends the run at its n-th task."""
    left = iter(range(task))

    def advance(done: int, total: int) -> None:
        if next(left, None) is None:
            raise Stopped

    return advance


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `warmkit ARGS` in a process of its own, in the temporary directory."""

    def call(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "warmkit", *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", **options.pop("env", {})}
        return forks.run(command, text=True, cwd=tmp_path, env=environment, timeout=120, **options)

    return call


@pytest.fixture(scope="module")
def children_are_forks() -> Iterator[None]:
    """Let what the package itself starts from this process be forks, too: they take `sys.executable`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(forks.shims() / "python"))
        before = multiprocessing.spawn.get_executable()
        multiprocessing.spawn.set_executable(sys.executable)
        yield
        multiprocessing.spawn.set_executable(before)


@pytest.fixture
def script(tmp_path: Path) -> Run:
    """Run a shell script as continuous integration does, `bash -e`, in the temporary directory.

    Its `warmkit`, `python` and `python3` cost tenths of a second each: they are forks of a process that has imported everything
    (see `tests/forks`), and so is what they start themselves.

    Example:
        def test_the_block_works(script: Run) -> None:
            done = script("warmkit merge a b -o out\nwarmkit inspect out | head -3", timeout=60)
            assert done.returncode == 0, done.stderr
    """

    def call(text: str, **options: Any) -> subprocess.CompletedProcess[str]:
        path = f"{forks.shims()}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "COLUMNS": "120", "NO_COLOR": "1", **options.pop("env", {})}
        options = {"cwd": tmp_path, "timeout": 120, **options}
        return subprocess.run(
            ["bash", "-e", "-c", text], check=False, capture_output=True, text=True, env=environment, **options
        )

    return call


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must fail cleanly: its exit code, at most a few lines, no traceback, no destination."""

    def call(*arguments: object, code: int = 1, output: str = "out") -> str:
        before = sorted(path.name for path in tmp_path.iterdir())
        done = run(*arguments)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
        assert not (tmp_path / output).exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        return " ".join(done.stderr.split())

    return call
