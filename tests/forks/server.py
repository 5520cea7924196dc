"""Process that has imported everything and forks one process per command; `processes.py` and `shim.py` ask it."""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tests.forks.interpreter import become, split

MODULES = (
    "accelerate",
    "peft",
    "sacrebleu",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
)  # what commands import late; none of them starts a thread, which a fork would lose
STARTS_THREADS = ("warmkit.trl",)  # by what the trainer of transformers imports
AT_IMPORT = (
    *(
        "FORCE_COLOR",
        "GITHUB_ACTIONS",
        "HF_",
        "HOME",
        "HUGGING",
        "KMP",
        "LANG",
        "LC_",
        "LD_",
        "MALLOC",
        "MKL",
        "MPL",
        "NUMBA",
        "OMP",
        "OPENBLAS",
        "PYTHON",
        "PYTORCH",
        "TERMINAL",
        "TORCHDYNAMO",
        "TORCHINDUCTOR",
        "TORCH_COMPILE",
        "TORCH_LOGS",
        "TRANSFORMERS",
        "TZ",
        "XDG",
    ),
)  # beginnings of the variables that are read as modules are imported
HUGE, MADV_COLLAPSE = 1 << 21, 25
UNLIKE = 0  # instead of a process id: this command needs a process of its own


def serve(file: int, place: str) -> None:
    """Answer orders until standard input closes, as it does when the tests end; then remove the folder of the shims."""
    listener, folder, born = socket.socket(fileno=file), Path(place), dict(os.environ)
    _import_everything()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's interrupt is for the commands
    while 0 not in select.select([listener, 0], [], [])[0]:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError, ValueError):  # of a client that was killed
            order, files = receive(connection)
            if not (_starts_like(order["environment"], born) and _understood(order["arguments"])):
                connection.sendall(b"%d\n" % UNLIKE)
            else:
                _answer(connection, listener, {**order, "born": born, "python": str(folder / "python")}, files)
            for file in files:
                os.close(file)
        _bury()
    shutil.rmtree(folder)


def _import_everything() -> None:
    import warmkit.cli.app

    for name in (*_modules_of("warmkit"), *MODULES):
        with contextlib.suppress(ImportError):  # whoever needs it says so
            if not name.endswith("__main__"):
                importlib.import_module(name)
    warmkit.cli.app.app(["methods"], standalone_mode=False)  # what the command line and its tables import late
    with contextlib.suppress(ImportError):  # of a later version: patterns that every loading of a model would compile
        importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("bert")
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"a fork would lose {len(threads) - 1} threads"
    tempfile.tempdir = None
    for registered in weakref.finalize._registry.values():  # type: ignore[attr-defined]
        registered.atexit = False  # torch would unregister every operator
    gc.collect()
    gc.freeze()  # collections of the forks leave these pages alone
    _collapse()


def _modules_of(package: str) -> Iterator[str]:
    """Return the names of all modules in a package, those left out whose imports start threads."""
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if found.name not in STARTS_THREADS:
            yield found.name
            yield from _modules_of(found.name) if found.ispkg else ()


def _collapse() -> None:
    """Put the memory into huge pages: a fork copies a table of its pages, here of two hundred instead of a hundred thousand."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, rights, _, _, _, *name = line.split()
        start, end = (int(each, 16) for each in place.split("-"))
        start, end = -(-start // HUGE) * HUGE, end // HUGE * HUGE
        if rights == "rw-p" and name in ([], ["[heap]"]) and start < end:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_COLLAPSE)


def _starts_like(environment: Mapping[str, str], born: Mapping[str, str]) -> bool:
    """Whether imports would see what they saw here, or what they have set since."""
    names = {name for name in (*environment, *born) if name.startswith(AT_IMPORT)} - {"PYTHONBREAKPOINT"}  # which Ray sets
    return all(environment.get(name) in (born.get(name), os.environ.get(name)) for name in names)


def _understood(arguments: list[str]) -> bool:
    """Whether these are `-m MODULE`, `-c CODE`, `-`, FILE or nothing, after options that a fork can take."""
    _, arguments = split(arguments)
    return not arguments or arguments[0] in ("-m", "-c", "-") or not arguments[0].startswith("-")


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return an order and the files that came with it."""
    head, sent, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(4 * 200))
    files = array.array("i", b"".join(data for _, _, data in sent))
    with connection.makefile("rb") as stream:
        return json.loads(stream.read(int.from_bytes(head, "big"))), list(files)


def _answer(connection: socket.socket, listener: socket.socket, order: dict[str, Any], files: list[int]) -> None:
    """Fork a process that forks the command.

    It ends at once where the caller adopts the command; else it waits for it, and kills it once the caller hangs up.
    """
    if between := os.fork():
        if order["adopted"]:
            os.waitpid(between, 0)  # hanging up says that the command has its new parent
        return
    try:
        listener.close()
        _answer_between(connection, order, files)
    except BrokenPipeError:  # nobody waits any more
        os._exit(0)
    finally:
        os._exit(1)


def _answer_between(connection: socket.socket, order: dict[str, Any], files: list[int]) -> NoReturn:
    between = os.getpid()
    if (command := os.fork()) == 0:
        connection.close()
        while order["adopted"] and os.getppid() == between:
            time.sleep(0.001)
        become(order, files)
    try:
        connection.sendall(b"%d\n" % command)
    except BrokenPipeError:  # killed before it could hear which process to end
        os.kill(command, signal.SIGKILL)
        raise
    if not order["adopted"]:
        for file in (0, 1, 2, *files):
            os.close(file)
        connection.sendall(b"%d\n" % _status(command, connection))
    os._exit(0)


def _status(command: int, connection: socket.socket) -> int:
    ended = os.pidfd_open(command)
    if ended not in select.select([ended, connection], [], [])[0]:
        os.kill(command, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])


def _bury() -> None:
    """Collect the processes that waited for a command and have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
