"""Program that looks like Python and lets the server fork what it was asked to run; imports little, as it is started often."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

INTERPRETER = ("-I", "-S")  # what a shim needs of Python
FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def order(
    place: str,
    arguments: Sequence[str],
    files: Mapping[int, int],
    *,
    folder: str | None = None,
    environment: Mapping[str, str] | None = None,
    **more: Any,
) -> socket.socket:
    """Order a command from the server at a place; return the connection, on which it says the process id."""
    mask = os.umask(0o22)
    os.umask(mask)
    content = {
        "arguments": list(arguments),
        "files": list(files),
        "folder": folder or os.getcwd(),
        "environment": dict(os.environ if environment is None else environment),
        "mask": mask,
        "session": False,
        "adopted": False,
        **more,
    }
    text = json.dumps(content).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(place)
    socket.send_fds(connection, [len(text).to_bytes(8, "big")], list(files.values()))
    connection.sendall(text)
    return connection


def main(place: str, python: str, arguments: Sequence[str]) -> None:
    """Run a command and end as it ends; signals are passed on, and where this process is killed so is the command."""
    files = [int(name) for name in os.listdir("/dev/fd")]
    inherited = {file: file for file in files if file < 3 or _inheritable(file)}
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    with order(place, arguments, inherited, session=True) as connection, connection.makefile("r") as answers:
        if (process := int(answers.readline())) == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
            os.execv(python, [python, *arguments])
        for number in FORWARDED:
            signal.signal(number, lambda number, _: os.kill(process, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        for file in inherited:
            os.close(file)
        code = int(answers.readline())
    end(code)


def end(code: int) -> NoReturn:
    """End with an exit code, or by the signal whose negative number it is."""
    if code < 0:
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 255)


def _inheritable(file: int) -> bool:
    try:
        return os.get_inheritable(file)
    except OSError:  # what listed them
        return False
