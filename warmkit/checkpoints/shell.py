"""Shell command that ends, with all that it started, when this process does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time

GRACE = 5.0  # seconds between the request to end and the end
# The guard reads from a pipe that this process holds and never writes to: it closes when this process ends, even by SIGKILL.
GUARDED = """
exec 3<"/dev/fd/$2"
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 </dev/null &
guard=$!
sh -c "$1" 3<&-
status=$?
kill $guard
exit $status
"""


def run_shell(line: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a shell command in a session of its own and return its exit code and what it printed.

    If this process is interrupted, or killed, the command's processes end too.

    Args:
        line: The command.
        given: Its standard input.
    """
    ours, held = os.pipe()  # both are closed in what other threads start meanwhile
    try:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(given)
            stdin.seek(0)
            process = subprocess.Popen(
                ["/bin/sh", "-c", GUARDED, "sh", line, str(ours)],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(ours,),
                start_new_session=True,
            )
        with process:
            try:
                out, err = process.communicate()
            except BaseException:
                _end_group(process)
                raise
    finally:
        os.close(ours)
        os.close(held)
    return subprocess.CompletedProcess(line, process.returncode, out, err)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask every process of the command to end, and kill what is left after a while."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
