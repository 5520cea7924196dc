"""What is no file of rows, in every command that reads rows: one line that names it, and no waiting for ever."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.cli.conftest import Call, Rewards
from tests.conftest import Run
from tests.unit.training import tiny

ROW = '{"prompt": "é", "chosen": "a", "rejected": "b"}\n'
POLICIES = "rewards: [{model: rm}]\npolicy: {lr: 1e-4, steps: 1, batch_size: 4}"
RECIPES = {
    "rm": "rm: {lr: 1e-4, epochs: 1, batch_size: 4}",
    "sft": "sft: {lr: 1e-4, epochs: 1, batch_size: 4}",
    "policy": POLICIES,
    "warm": "rm: {lr: 1e-4, epochs: 1, batch_size: 4}\nwarm: {runs: 2}",
    "warp": f"{POLICIES}\nwarp: {{iterations: 1}}",
}
COMMANDS = [
    "corrupt DATA -o out --rate 0.2",
    "label DATA --judge-model rm -o out",
    "score rm -i DATA",
    "eval rm rm --data DATA",
    "lmc rm rm2 --data DATA",
    "eval policy lm --prompts DATA --reward rm",
    "front lm --init lm --prompts DATA --reward rm",
    "bon lm --prompts DATA --reward rm --control rm2",
    "bon --pool DATA --reward rm --control rm2",
    "sxs lm lm2 --prompts DATA --reward rm",
    "sxs DATA lm --prompts good.jsonl --reward rm",
    *(f"train {kind} {kind}.yaml --set data.train=DATA" for kind in ("rm", "sft", "policy")),
    *(f"{kind} {kind}.yaml --set data.train=DATA" for kind in ("warm", "warp")),
]


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # in its folder: the names of sockets are short


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe.jsonl": (os.mkfifo, "expected a file of rows, found a pipe"),
    "pipe.jsonl.gz": (os.mkfifo, "expected a file of rows, found a pipe"),
    "pipe.parquet": (os.mkfifo, "expected a file of rows, found a pipe"),
    "pipe": (os.mkfifo, "expected a file of rows, found a pipe"),
    "socket.jsonl": (bind, "expected a file of rows, found a socket"),
    "device.jsonl": (lambda path: path.symlink_to("/dev/zero"), "expected a file of rows, found a device"),
    "folder.jsonl": (Path.mkdir, "expected a file of rows, found a directory"),
    "folder.parquet": (Path.mkdir, "expected a file of rows, found a directory"),
    "loop.jsonl": (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
    "missing.jsonl": (lambda path: None, "cannot be read: No such file or directory"),
    "latin.jsonl": (lambda path: path.write_bytes(ROW.encode("latin-1")), "expected a line of JSON in UTF-8, found"),
    "wide.jsonl": (lambda path: path.write_bytes(ROW.rstrip().encode("utf-16")), "expected a line of JSON in UTF-8, found"),
    os.fsdecode(b"\xff.jsonl"): (os.mkfifo, "expected a file of rows, found a pipe"),
}


@pytest.fixture(scope="session")
def models(rewards: Rewards, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    policy = tiny.model("llama", tmp_path_factory.mktemp("policy") / "llama")
    other = Path(shutil.copytree(policy, policy.with_name("other")))
    return {"rm": rewards.llamas[0], "rm2": rewards.llamas[1], "lm": policy, "lm2": other}


@pytest.fixture
def kind(request: pytest.FixtureRequest, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make what is no file of rows beside models, rows and recipes."""
    monkeypatch.chdir(tmp_path)
    for name, model in models.items():
        (tmp_path / name).symlink_to(model)
    tiny.write(tmp_path / "good.jsonl", tiny.rows(8))
    for name, section in RECIPES.items():
        model = "lm" if "rewards" in section or "sft" in section else "rm"
        data = f"data: {{train: good.jsonl, validation: good.jsonl}}\noutput: {{path: run-{name}}}\n"
        (tmp_path / f"{name}.yaml").write_text(f"model: {{path: {model}}}\n{data}{section}\n")
    KINDS[request.param][0](tmp_path / request.param)
    return request.param


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1 + ("rows are bad" in done.stderr), done.stderr
    return done.stderr


@pytest.mark.parametrize("kind", ["pipe.jsonl"], indirect=True)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_reads_rows_refuses_a_pipe(command: str, kind: str, run: Run) -> None:
    assert f"{kind}: expected a file of rows, found a pipe" in one_line(run(*command.replace("DATA", kind).split()))


@pytest.mark.parametrize("kind", KINDS, indirect=True)
@pytest.mark.parametrize("command", ["corrupt DATA -o out --rate 0.2", "score rm -i DATA"])
def test_whatever_is_no_file_of_rows_is_named_in_one_line(command: str, kind: str, run: Run) -> None:
    said = one_line(run(*(kind if each == "DATA" else each for each in command.split())))
    shown = kind.encode(errors="surrogateescape").decode(errors="backslashreplace")
    assert f"{shown}: {KINDS[kind][1]}" in said.replace(f"{shown}:1: ", f"{shown}: ")


def test_the_recipe_of_a_run_that_had_no_data_can_be_mended(models: dict[str, Path], tmp_path: Path, call: Call) -> None:
    """What a run leaves that found nothing to learn from is no run."""
    (tmp_path / "rm").symlink_to(models["rm"])
    tiny.write(tmp_path / "good.jsonl", tiny.rows(8))
    text = "model: {path: rm}\ndata: {train: missing.jsonl, validation: good.jsonl}\nrm: {epochs: 1}\noutput: {path: run}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    for verb in (("warm",), ("train", "rm")):
        assert "missing.jsonl: cannot be read" in call(*verb, "recipe.yaml", code=1).output
        assert "still.jsonl: cannot be read" in call(*verb, "recipe.yaml", "--set", "data.train=still.jsonl", code=1).output
        shutil.rmtree(tmp_path / "run")


# ---- no permission -------------------------------------------------------------------------------------------------------


class _Capabilities(ctypes.Structure):
    """What `capget` and `capset` take: a header, and two words each of effective, permitted and inheritable ones."""

    _fields_ = [("version", ctypes.c_uint32), ("thread", ctypes.c_int), ("words", ctypes.c_uint32 * 6)]


@pytest.fixture
def bound_by_modes() -> Generator[None, None, None]:
    """Let the modes of files hold for root too, in this thread: without the capabilities to pass over them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "capset"):
        pytest.skip("root may read everything here") if os.geteuid() == 0 else None
        yield
        return
    held = _Capabilities(0x20080522, 0)
    words = ctypes.byref(held, _Capabilities.words.offset)
    assert libc.capget(ctypes.byref(held), words) == 0
    effective = held.words[0]
    try:
        held.words[0] = effective & ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert libc.capset(ctypes.byref(held), words) == 0
        yield
    finally:
        held.words[0] = effective
        assert libc.capset(ctypes.byref(held), words) == 0


@pytest.mark.parametrize(
    "command",
    [
        "corrupt rows.jsonl -o out --rate 0.2",
        "corrupt rows.parquet -o out --rate 0.2",
        "corrupt closed/rows.jsonl -o out --rate 0.2",
        "corrupt closed/rows -o out --rate 0.2",
        "label rows.jsonl --judge-model rm -o out",
        "label good.jsonl --judge-model rm -o closed/out",
        "score rm -i rows.jsonl",
        "score rm -i closed/rows.jsonl",
        "train rm rows.yaml",
        "train rm closed/rows.yaml",
        "inspect closed/model",
        "report closed/run",
    ],
)
def test_what_may_not_be_read_is_named_in_one_line(command: str, call: Call, tmp_path: Path, bound_by_modes: None) -> None:
    (tmp_path / "closed").mkdir()
    tiny.write(tmp_path / "good.jsonl", tiny.rows(2))
    for name in ("rows.jsonl", "rows.parquet", "rows.yaml"):
        (tmp_path / name).write_text(ROW)
        (tmp_path / name).chmod(0)
    (tmp_path / "closed").chmod(0)
    try:
        said = call(*command.split(), code=2 if "yaml" in command else 1).output
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert "Permission denied" in said
    assert said.count("\n") == 1
