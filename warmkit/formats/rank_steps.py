"""Steps at which ranks saved: the schedules that lie beside their weights tell files of two saves apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warmkit.errors import CheckpointError, FormatError
from warmkit.formats.pickle_reader import Inert, Names
from warmkit.formats.torch_zip import read_torch_zip

_STATES: Names = {  # of random generators, which are passed over
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Inert for core in ("_core", "core")},
    ("numpy", "ndarray"): Inert,
    ("numpy", "dtype"): Inert,
}


def check_steps(files: Sequence[Path]) -> None:
    """Compare the steps of the schedules beside rank files (`extra_state_world_size_W_rank_R.pt`), where there are some.

    Raises:
        FormatError: If two ranks saved after different steps.
    """
    known = {file: step for file in files if (step := _step(file)) is not None}
    for file, step in known.items():
        first = next(iter(known))
        if step != known[first]:
            raise FormatError(
                f"{file}: was saved at step {step}, {first.name} at step {known[first]}, as the extra_state files beside them "
                "say; files of two saves"
            )


def _step(file: Path) -> int | None:
    beside = file.with_name(file.name.replace("model_", "extra_state_", 1))
    if not beside.is_file():
        return None
    try:
        tree: Any = read_torch_zip(beside, more=_STATES)
    except CheckpointError:  # what is not needed may be anything
        return None
    if not isinstance(tree, Mapping):
        return None
    schedule = tree.get("lr_scheduler")
    counted = schedule.get("last_epoch") if isinstance(schedule, Mapping) else None
    return next((step for step in (tree.get("global_step"), counted) if type(step) is int), None)  # SkyRL's, verl's
