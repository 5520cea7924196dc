"""`subprocess.Popen` and `subprocess.run` for commands that begin with `sys.executable`, through the server of this process."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tests.forks.shim import INTERPRETER, order

ROOT = Path(__file__).parents[2]
SERVER = "import sys; sys.path[0] = {root!r}; from tests.forks.server import serve; serve({file}, {folder!r})"
ADOPT = 36  # PR_SET_CHILD_SUBREAPER
PYTHON = sys.executable
SHIM = """\
#!/bin/sh
'''exec' {python} {options} "$0" "$@"
'''
import sys
sys.path.insert(0, {here!r})
import shim
shim.main({place!r}, {python!r}, [*{before!r}, *sys.argv[1:]])
"""
_adopting = threading.Lock()


class Popen(subprocess.Popen[Any]):
    """Process of a Python command, without its imports.

    It is a child of this process, with its own folder, environment, files, signals and exit code. A command gets a real
    interpreter where variables that are read at import differ from ours, where it gives options to the interpreter, and where
    the system is not Linux. Take `subprocess` itself for a test of imports, threads, memory or resource limits.
    """

    def _execute_child(self, *given: Any) -> None:
        told = inspect.signature(super()._execute_child).bind(*given).arguments  # type: ignore[misc]
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        streams = {number: told[name] for number, name in enumerate(("p2cread", "c2pwrite", "errwrite"))}
        files = {number: number if file == -1 else file for number, file in streams.items()}
        forked = _fork(told, files | {each: each for each in told["pass_fds"]})
        if not forked:
            return super()._execute_child(*given)  # type: ignore[misc]
        self.pid, self._child_created = forked, True  # type: ignore[attr-defined]
        return self._close_pipe_fds(*(told[name] for name in ends))  # type: ignore[attr-defined]


def _fork(told: dict[str, Any], files: dict[int, int]) -> int:
    """Return the process id of a command, 0 where it needs an interpreter of its own."""
    command = [os.fsdecode(each) for each in told["args"]]
    if command[0] != sys.executable or told["preexec_fn"] or sys.platform != "linux":
        return 0
    where: dict[str, Any] = {"folder": told["cwd"] and os.fsdecode(told["cwd"]), "environment": told["env"]}
    where |= {"session": told["start_new_session"], "adopted": True}
    with _adopting, _adopts(), order(str(shims() / "server"), command[1:], files, **where) as connection:
        return int(connection.makefile("r").read())


@contextlib.contextmanager
def _adopts() -> Generator[None, None, None]:
    """Become the parent of grandchildren whose parent ends meanwhile."""
    ctypes.CDLL(None).prctl(ADOPT, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).prctl(ADOPT, 0)


def run(command: list[Any], *, input: Any = None, timeout: float | None = None, **options: Any) -> Any:
    """Do what `subprocess.run` does with output captured."""
    pipes = {"stdin": subprocess.PIPE} if input is not None else {}
    pipes |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(command, **pipes, **options) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def shims() -> Path:
    """Return the folder of a `warmkit`, `python` and `python3` that the server runs, to be put before a PATH."""
    return _started()[0]


@functools.cache
def _started() -> tuple[Path, subprocess.Popen[bytes]]:
    """Start the server of this process, which ends when its standard input closes."""
    folder = Path(tempfile.mkdtemp(prefix="forks-"))
    place = str(folder / "server")
    for name, before in {"python": [], "python3": [], "warmkit": ["-m", "warmkit"]}.items():
        here = str(ROOT / "tests" / "forks")
        text = SHIM.format(python=PYTHON, options=" ".join(INTERPRETER), here=here, place=place, before=before)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen(128)
        code = SERVER.format(root=str(ROOT), file=listener.fileno(), folder=str(folder))
        files = [listener.fileno()]
        command = [PYTHON, "-c", code]
        return folder, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=files)
