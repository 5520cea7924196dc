"""The names that `import warmkit` offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import warmkit

ROOT = Path(__file__).parents[2]


def test_dir_lists_what_is_public_and_all_of_it_is_there() -> None:
    assert dir(warmkit) == sorted(warmkit.__all__)
    assert all(getattr(warmkit, name) is not None for name in dir(warmkit))
    assert set(warmkit._HOMES) == {*warmkit.__all__} - {"__version__"}


def test_dir_is_the_same_after_modules_were_imported() -> None:
    code = "import warmkit; before = dir(warmkit); warmkit.merge, warmkit.Pair; print(dir(warmkit) == before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "True"


def test_dir_loads_nothing() -> None:
    code = "import sys, warmkit; dir(warmkit); print({'torch', 'numpy', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
