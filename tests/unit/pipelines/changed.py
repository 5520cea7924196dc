"""Files of a finished pipeline that a test changes, and puts back."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator
from pathlib import Path

from safetensors.torch import save_file

from tests.unit.training import tiny


@contextlib.contextmanager
def kept(*places: Path) -> Generator[None]:
    """Put back what a test changes."""
    before = [place.with_name(f".{place.name}.before") for place in places]
    for place, copy in zip(places, before):
        (shutil.copytree if place.is_dir() else shutil.copy2)(place, copy)
    try:
        yield
    finally:
        for place, copy in zip(places, before):
            shutil.rmtree(place) if place.is_dir() else place.unlink()
            copy.rename(place)


def disturb(model: Path) -> None:
    """Overwrite the weights of a model by others of the same names and size."""
    weights = {name: each + 0.01 if each.is_floating_point() else each for name, each in tiny.tensors(model).items()}
    save_file(weights, model / "model.safetensors", {"format": "pt"})
