"""A few kills of every command that writes a model; `python -m tests.kills` does a thousand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import forks


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_killed_commands_lose_nothing_leave_nothing_and_end_in_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.kills", "--merges", "9", "--seed", "1", "--folder", str(tmp_path / "kills")]
    done = forks.run(command, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
