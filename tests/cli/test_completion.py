"""A shell completes commands, options and the values of closed choices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from warmkit.cli import completions
from warmkit.evidence.reproduction.claim_table import CLAIMS
from warmkit.formats.dtypes import OUTPUT_NAMES
from warmkit.layouts.groups import GRANULARITIES
from warmkit.layouts.model_heads import HEADS
from warmkit.layouts.one_layout import LAYOUTS
from warmkit.layouts.vocabularies import MODES
from warmkit.merging.methods import METHODS
from warmkit.verbs.ordering import ORDERS

ROOT = Path(__file__).parents[2]


def test_the_completed_values_are_those_that_the_library_takes() -> None:
    assert [name for name, _ in completions.method("")] == list(METHODS)
    assert set(completions.claim("")) == {"all", *CLAIMS}
    assert tuple(completions.granularity("")) == GRANULARITIES
    assert tuple(completions.vocabulary("")) == MODES
    assert tuple(completions.heads("")) == HEADS
    assert tuple(completions.layout("")) == LAYOUTS
    assert tuple(completions.dtype("")) == OUTPUT_NAMES
    assert tuple(completions.order("")) == ORDERS
    assert "warm-docstrings" in completions.shipped_recipe("")


COMPLETED = {
    "warmkit merge --method sl": {"slerp", "slerp-weights"},
    "warmkit front --method iso": {"iso-c"},
    "warmkit merge --granularity ": {"layer", "tensor", "model"},
    "warmkit soup --vocabulary u": {"union"},
    "warmkit reproduce warp-l": {"warp-liti", "warp-length"},
    "warmkit reproduce all --size ": {"nano", "small", "large"},
    "warmkit label x --inconsistent ": {"drop", "keep-first"},
    "warmkit recipes warm-": {"warm-baklava", "warm-docstrings", "warm-trl"},
    "warmkit ver": {"verify"},
}


@pytest.mark.parametrize("typed", COMPLETED)
def test_a_shell_completes(typed: str) -> None:
    code = "import sys; from warmkit.cli.app import app; app(prog_name='warmkit')"
    watched = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); {code}"
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1), "_WARMKIT_COMPLETE": "complete_bash"}
    command = [sys.executable, "-c", watched]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **words}, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == COMPLETED[typed], done.stderr
    assert done.stderr == "False\n"
