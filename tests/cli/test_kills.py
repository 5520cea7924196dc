"""A few kills of every command that writes a model; `python -m tests.kills` does a thousand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_killed_commands_lose_nothing_leave_nothing_and_end_in_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.kills", "--merges", "9", "--seed", "1", "--folder", str(tmp_path / "kills")]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stdout + done.stderr
