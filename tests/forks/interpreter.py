"""What a fork of the server does to be the Python interpreter that was asked for."""

from __future__ import annotations

import atexit
import fcntl
import multiprocessing.spawn
import os
import runpy
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from tests.forks.shim import end


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the options of the interpreter that a fork can take, and the rest."""
    count = next((number for number, each in enumerate(arguments) if each not in ("-u", "-B")), len(arguments))
    return arguments[:count], arguments[count:]


def become(order: dict[str, Any], files: list[int]) -> NoReturn:
    """Be the interpreter that was asked for."""
    _open_only(dict(zip(order["files"], files)))
    if order["session"]:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.umask(order["mask"])
    os.chdir(order["folder"])
    for name in order["born"]:  # what imports have set stays
        del os.environ[name]
    os.environ.update(order["environment"])
    options, arguments = split(order["arguments"])
    sys.dont_write_bytecode |= "-B" in options
    sys.stdout.reconfigure(line_buffering=os.isatty(1), write_through="-u" in options)  # type: ignore[union-attr]
    sys.executable = order["python"]
    multiprocessing.spawn.set_executable(sys.executable)
    _leave(_exit_code(lambda: _interpret(arguments)))


def _open_only(wanted: Mapping[int, int]) -> None:
    """Give the files their numbers, and close every other one."""
    apart = {number: fcntl.fcntl(file, fcntl.F_DUPFD, 1000) for number, file in wanted.items()}
    os.closerange(3, 1000)
    for number, file in apart.items():
        os.dup2(file, number, inheritable=True)
        os.close(file)


def _interpret(arguments: list[str]) -> None:
    sys.orig_argv = [sys.executable, *arguments]
    match arguments:
        case ["-m", module, *rest]:
            sys.path[0], sys.argv = os.getcwd(), ["-m", *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *rest]:
            sys.path[0], sys.argv = "", ["-c", *rest]
            _execute(code, "<string>")
        case [] | ["-", *_]:
            sys.path[0], sys.argv = "", arguments or [""]
            _execute(sys.stdin.read(), "<stdin>")
        case _:
            sys.path[0], sys.argv = os.path.dirname(os.path.realpath(arguments[0])), arguments
            runpy.run_path(arguments[0], run_name="__main__")


def _execute(code: str, name: str) -> None:
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, name, "exec"), main.__dict__)


def _exit_code(run: Callable[[], None]) -> int:
    """Run it and return what Python would exit with, a signal's number negated."""
    try:
        run()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        traceback.print_exc()
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _leave(code: int) -> NoReturn:
    """End as an interpreter does, but do not tear down a hundred thousand objects first."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 120
    end(code)
