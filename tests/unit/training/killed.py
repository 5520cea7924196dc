"""A training in a process of its own, killed on its way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests import forks
from warmkit.recipes.recipe import recipe_text


def kill_after(lines: int, verb: str, recipe: Any, **environment: str) -> Path:
    """Kill `warmkit train VERB` once the metrics have some lines; return the run's directory."""
    run = Path(recipe.output.path)
    file, metrics = run.with_name("recipe.yaml"), run / "metrics.jsonl"
    file.write_text(recipe_text(recipe))
    command = [sys.executable, "-m", "warmkit", "train", verb, str(file), "--quiet"]
    process = forks.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "NO_COLOR": "1", **environment})
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run / "summary.json").exists(), "killed too late"
    return run
