"""Shell command that ends, with all that it started, when this process does."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from warmkit.common.addresses import printable
from warmkit.errors import ScoreError

PLAIN = re.compile(r"(?!-)[\w@%+=:,./-]+", re.ASCII)  # what a shell passes on as it is
GRACE = 5.0  # seconds between the request to end and the end
# The guard reads from a pipe that this process holds and never writes to: it closes when this process ends, even by SIGKILL.
GUARDED = """
exec 3<"/dev/fd/$2"
line=$1
shift 2
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 </dev/null &
guard=$!
sh -c "$line" sh "$@" 3<&-
status=$?
kill $guard
exit $status
"""


def run_shell(
    line: str,
    given: bytes = b"",
    arguments: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    log: IO[bytes] | None = None,
    limit: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a shell command in a session of its own and return its exit code and what it printed.

    If this process is interrupted, or killed, the command's processes end too.

    Args:
        line: The command.
        given: Its standard input.
        arguments: What "$1", "$2", ... stand for in it.
        environment: By default that of this process.
        log: What it prints goes there instead.
        limit: Seconds that it may take.

    Raises:
        TimeoutExpired: If it took longer; its processes are ended.
    """
    ours, held = os.pipe()  # both are closed in what other threads start meanwhile
    try:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(given)
            stdin.seek(0)
            process = subprocess.Popen(
                ["/bin/sh", "-c", GUARDED, "sh", line, str(ours), *arguments],
                stdin=stdin,
                stdout=log or subprocess.PIPE,
                stderr=log or subprocess.PIPE,
                env=environment,
                pass_fds=(ours,),
                start_new_session=True,
            )
        with process:
            try:
                out, err = process.communicate(timeout=limit)
            except BaseException:
                _end_group(process)
                raise
    finally:
        os.close(ours)
        os.close(held)
    return subprocess.CompletedProcess(line, process.returncode, out, err)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask every process of the command to end, and kill what is left after a while.

    What made a session of its own, as torchrun's workers do, is killed as well.
    """
    others = _descendants(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    for each in others:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    process.wait()


def _descendants(process: int) -> list[int]:
    """Return all processes that one has started, where the system lists them in /proc."""
    try:
        children = [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(each for child in children for each in _descendants(child))]


def with_argument(line: str, placeholder: str, value: str, number: int = 1) -> str:
    """Return a shell command in which a placeholder stands for a text that the shell must not read as its own words.

    A text of plain letters takes its place as it is. Any other becomes "$1", quoted by us, whether the placeholder stands alone
    or in quotes of its own; `run_shell` gets it as an argument, of this number.

    Raises:
        ScoreError: If such a text belongs into the middle of a quoted one, which another program may read as a program.

    Examples:
        >>> with_argument("score.py {}", "{}", "runs/a"), with_argument("score.py '{}'", "{}", "a $(b)")
        ('score.py runs/a', 'score.py "$1"')
    """
    if PLAIN.fullmatch(value):
        return line.replace(placeholder, value)
    parts = line.split(placeholder)
    for place in range(len(parts) - 1):
        quote = _open_quote(placeholder.join(parts[: place + 1]))
        before, after = parts[place], parts[place + 1]
        if quote:
            if not before.endswith(quote) or not after.startswith(quote):
                raise ScoreError(
                    f"the command has {placeholder} inside of quotes, where the name {printable(value)!r} could be read as a "
                    f"program; write {placeholder} without quotes, or rename the directory"
                )
            parts[place], parts[place + 1] = before[:-1], after[1:]
    return f'"${{{number}}}"'.join(parts) if number > 9 else f'"${number}"'.join(parts)


def _open_quote(line: str) -> str:
    """Return the quote that is open at the end of the beginning of a command, "" for none."""
    quote, escaped = "", False
    for each in line:
        if escaped:
            escaped = False
        elif each == "\\" and quote != "'":
            escaped = True
        elif each == quote:
            quote = ""
        elif each in "'\"" and not quote:
            quote = each
    return quote
