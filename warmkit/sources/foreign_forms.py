"""Forms of weights that are not read, known by the names of their files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from warmkit.errors import UnsupportedError

GATHERER = "zero_to_fp32.py"  # which DeepSpeed puts beside its steps

FORMS = {
    ".h5": "TensorFlow's form",
    ".msgpack": "Flax's form",
    ".onnx": "ONNX",
    ".npz": "numpy's form",
    ".nemo": "NeMo's form",
}
"""Forms of weights that are not read, by the ends of their names; one that becomes a container leaves this table."""


def refuse_form(names: Collection[str], place: object) -> None:
    """Refuse files that hold weights in a form that is not read, where there are no others.

    Raises:
        UnsupportedError: Naming the first.
    """
    if GATHERER in names:
        raise UnsupportedError(
            f"{place}: DeepSpeed's {GATHERER}, without the folder of a step (global_stepN) that holds the parts of a model"
        )
    for name in names:
        if form := FORMS.get(Path(name).suffix):
            what = "" if Path(str(place)).name == name else f"{name} "
            raise UnsupportedError(
                f"{place}: {what}holds weights in {form}, which is not read; save the model as safetensors "
                "(in transformers: from_pretrained, save_pretrained)"
            )
        if name.endswith(".distcp"):
            raise UnsupportedError(
                f"{place}: {name} is a part of a torch.distributed.checkpoint; give the folder with all of them and .metadata"
            )
