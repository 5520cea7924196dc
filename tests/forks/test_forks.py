"""A fork of the server is what a process of its own would be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import forks
from tests.conftest import Run

Start = Callable[..., "subprocess.CompletedProcess[str]"]


def direct(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return forks.run([sys.executable, "-c", code, *arguments], text=True, **options)


def by_shim(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(forks.shims() / "python"), "-c", code, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)


starts = pytest.mark.parametrize("start", [direct, by_shim])


@starts
def test_it_has_imported_everything_and_runs_one_thread(start: Start) -> None:
    done = start("import os, sys; print('torch' in sys.modules, len(os.listdir('/proc/self/task')), sys.flags.optimize)")
    assert done.stdout == "True 1 0\n"


@starts
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("raise SystemExit", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('no')", 1),
        ("1 / 0", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM),
        ("import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()", 0),
    ],
)
def test_it_ends_as_an_interpreter_does(start: Start, code: str, expected: int) -> None:
    ours, real = start(code), subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ours.returncode == real.returncode == expected
    assert ours.stdout == real.stdout
    assert ours.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]


@starts
def test_it_has_its_own_folder_environment_input_and_arguments(start: Start, tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ.get('MARK'), 'PATH' in os.environ, sys.argv, sys.stdin.read())"
    done = start(code, "a", "b", cwd=tmp_path, env={"MARK": "here", **_needed()}, input="given")
    assert done.stdout == f"{tmp_path} here False ['-c', 'a', 'b'] given\n", done.stderr


def _needed() -> dict[str, str]:
    """Return the variables without which a process would import something else."""
    return {name: value for name, value in os.environ.items() if name != "PATH"}


@starts
def test_a_variable_that_is_read_at_import_gets_a_real_interpreter(start: Start) -> None:
    code = "import os, sys; print('torch' in sys.modules, os.environ['OMP_NUM_THREADS'])"
    assert start(code, env={**os.environ, "OMP_NUM_THREADS": "7"}).stdout == "False 7\n"


@starts
def test_what_it_starts_is_a_fork_too(start: Start) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import sys; print(\"torch\" in sys.modules)'])"
    assert start(code).stdout == "True\n"


def test_it_is_a_child_of_this_process_that_can_be_killed(tmp_path: Path) -> None:
    code = "import os, time; print(os.getpid(), os.getppid(), flush=True); time.sleep(60)"
    with forks.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{process.pid} {os.getpid()}\n"
        assert process.poll() is None
        process.kill()
        assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_ends_a_shim_ends_what_it_runs(number: int) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    shim = str(forks.shims() / "python")
    with subprocess.Popen([shim, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        running = Path(f"/proc/{process.stdout.readline().strip()}")  # type: ignore[union-attr]
        assert running.exists()
        process.send_signal(number)
        assert process.wait() == -number
        latest = time.monotonic() + 20
        while running.exists():
            assert time.monotonic() < latest, "the command goes on"
            time.sleep(0.01)


def test_a_script_stops_at_the_first_error(script: Run, tmp_path: Path) -> None:
    (tmp_path / "said.py").write_text("import sys; print(sys.argv, __name__)")
    done = script(
        "warmkit --version\npython said.py x\npython3 - <<'END'\nprint(1 + 1)\nEND\nwarmkit inspect nothing\necho never"
    )
    assert done.returncode == 1
    version, said, two = done.stdout.splitlines()
    assert version.startswith("warmkit ")
    assert (said, two) == ("['said.py', 'x'] __main__", "2")
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr
