"""Walks through the code: which files a merge, an adapter merge and a WARP pipeline go through, and how often they come back.

    python -m tests.docs.walks

A walk is every first call of a function from another file, in order. Coming back is entering a file that was left before;
the return of a call is none. `common/` and errors, which every floor uses, are left out.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import warmkit
from tests.unit.layouts import lora
from tests.unit.pipelines.test_warp import recipe as warp_recipe

PACKAGE = str(Path(warmkit.__file__).parent)
EVERYWHERE = ("common", "errors.py", "words.py")


class Walk:
    """Collects the files of first calls while it is a context."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self._seen: set[Any] = set()

    def __enter__(self) -> Walk:
        threading.setprofile(self._call)
        sys.setprofile(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]

    def _call(self, frame: FrameType, event: str, _: Any) -> None:
        code, caller = frame.f_code, frame.f_back
        if event != "call" or code in self._seen or not code.co_filename.startswith(PACKAGE) or code.co_name.startswith("<"):
            return
        while caller is not None and not caller.f_code.co_filename.startswith(PACKAGE):
            caller = caller.f_back
        self._seen.add(code)
        file = code.co_filename.removeprefix(PACKAGE + "/")
        if caller is None or caller.f_code.co_filename == code.co_filename or file.startswith(EVERYWHERE):
            return
        if not self.files or self.files[-1] != file:
            self.files.append(file)

    def told(self) -> str:
        rooms = [file.partition("/")[0] for file in self.files]
        runs = [room for number, room in enumerate(rooms) if not number or rooms[number - 1] != room]
        back = Counter(self.files)
        often = ", ".join(f"{file} {count - 1}" for file, count in back.most_common(5) if count > 1)
        total, between = sum(back.values()) - len(back), len(runs) - len(set(runs))
        return f"{len(back)} files, {total} times back to one ({often}); {len(set(runs))} rooms, {between} times back to one"


def walks(folder: Path) -> dict[str, Callable[[], Any]]:
    """Make small models, and return what is walked."""
    init, *models = (lora.base(folder / name, seed=seed) for seed, name in enumerate(("sft", "a", "b")))
    adapter = lora.adapter(folder / "adapter", init)
    warmkit.merge(models, folder / "compiled", init=init)  # so that compilers are loaded before the walk
    return {
        "merge": lambda: warmkit.merge(models, folder / "merged", init=init, threads=1),
        "adapter merge": lambda: warmkit.merge([f"{init}+{adapter}", models[1]], folder / "with-adapter", init=init, threads=1),
        "warp": lambda: warmkit.run_warp(warp_recipe(folder, iterations=1, jobs=1)),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for name, work in walks(Path(place)).items():
            with Walk() as walk:
                work()
            print(f"{name}: {walk.told()}")
