"""Commands of a user: what they print, and that nothing of them lives on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from warmkit.common.shell import run_shell, with_argument
from warmkit.errors import ScoreError

STARTED = "import sys; from warmkit.common.shell import run_shell; run_shell(sys.argv[1])"


def alive(files: list[Path]) -> list[int]:
    """Return which of the processes that wrote their numbers into files still run."""
    numbers = [int(file.read_text()) for file in files]
    stats = {each: Path(f"/proc/{each}/stat") for each in numbers}
    return [each for each, stat in stats.items() if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"]


def test_a_command_reads_what_it_is_given_and_says_how_it_ended() -> None:
    done = run_shell("cat; echo bad >&2; exit 3", b"text")
    assert (done.stdout, done.stderr, done.returncode) == (b"text", b"bad\n", 3)
    assert run_shell("cat").stdout == b""
    assert run_shell("kill -9 $$").returncode == 137


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_process_of_a_command_outlives_its_caller(number: int, tmp_path: Path) -> None:
    files = [tmp_path / "inner", tmp_path / "behind"]
    line = f"sleep 300 & echo $! > {files[1]}; sh -c 'echo $$ > {files[0]}; exec sleep 300'; true"
    caller = subprocess.Popen([sys.executable, "-c", STARTED, line], stderr=subprocess.DEVNULL)
    while not all(file.exists() and file.read_text().endswith("\n") for file in files):
        assert caller.poll() is None
        time.sleep(0.01)
    caller.send_signal(number)
    caller.wait()
    end = time.monotonic() + 20
    while alive(files) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(files)


def test_a_command_that_ignores_the_request_to_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warmkit.common.shell.GRACE", 0.3)
    file = tmp_path / "number"
    line = f"trap '' TERM; echo $$ > {file}; kill -USR1 {os.getpid()}; sleep 60; sleep 60"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_shell(line)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    end = time.monotonic() + 20
    while alive([file]) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive([file])


NAMES = ["plain", "a b", "$(touch stray)", "`touch stray`", "x; touch stray", '"; touch stray; "', "'; touch stray; '", "é*?~"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "line", ["cat {}/x", 'cat "{}"/x', "cat '{}'/x", 'cat "{}" {}/x 2>/dev/null; test -d "{}" && cat {}/x']
)
def test_what_a_name_says_is_never_run(name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    (Path(name) / "x").write_text("1")
    done = run_shell(with_argument(line, "{}", name), arguments=[name])
    assert done.stdout.startswith(b"1")
    assert not Path("stray").exists()


@pytest.mark.parametrize("line", ["sh -c 'cat {}'", 'sh -c "cat {}"', "python -c 'print(\"{}\")'", 'echo "it\\"s {}"'])
def test_a_name_in_the_middle_of_quotes_is_refused_unless_it_is_plain(line: str) -> None:
    assert with_argument(line, "{}", "runs/a-1") == line.replace("{}", "runs/a-1")
    with pytest.raises(ScoreError, match=r"write \{\} without quotes"):
        with_argument(line, "{}", "$(touch stray)")
