"""LoRA adapters that a trainer saved in the same files as their base: the dense weights that the two stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from warmkit.common.json_files import read_object
from warmkit.errors import UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.tensors import Tensor
from warmkit.layouts.adapter_config import CONFIG, AdapterConfig, read_config
from warmkit.layouts.adapter_file import sorted_parts
from warmkit.layouts.adapters import joined

META = "lora_train_meta.json"  # of verl 0.9; older ones wrote lora_adapter/ beside the rank files
FOLDER = "lora_adapter"


def with_own_adapter(checkpoint: Checkpoint) -> Checkpoint:
    """Return the dense weights of a checkpoint that holds a base and an adapter.

    Rank and alpha are what `lora_adapter/adapter_config.json` beside its files says, else `lora_train_meta.json`.

    Raises:
        CheckpointError: If the two do not fit.
        UnsupportedError: If neither file says alpha: without it nobody knows the weights.
    """
    parts = checkpoint.adapter_parts.values()
    file = Path(str(next(iter(parts)).file))
    home = file.parent
    config = read_config(home / FOLDER) if (home / FOLDER / CONFIG).is_file() else _from_meta(home / META, list(parts))
    adapter = sorted_parts(config, file, parts)
    scales = sorted({config.scale_of(name) for name in adapter.modules})
    scale = " to ".join(dict.fromkeys(f"{each:g}" for each in (scales[0], scales[-1])))
    note = f"{home}: holds a base and a LoRA adapter; read W + {scale} B A ({config.path.relative_to(home)})"
    dense = joined(adapter, checkpoint)
    return replace(dense, files=(*dense.files, config.path), notes=(*dense.notes, note), adapter_parts={})


def _from_meta(path: Path, parts: Sequence[Tensor]) -> AdapterConfig:
    """Return the config of an adapter of which verl recorded rank and alpha; DoRA shows in the names of its tensors."""
    content = read_object(path) if path.is_file() else {}
    rank, alpha = content.get("r"), content.get("lora_alpha")
    if type(rank) is not int or not isinstance(alpha, int | float) or rank < 1 or not alpha > 0:
        said = f"{path.name} says r {rank!r:.40}, lora_alpha {alpha!r:.40}" if content else f"there is no {path.name}"
        raise UnsupportedError(
            f"{path.parent}: holds a base and a LoRA adapter, and nothing that tells by how much to scale it ({said}); write "
            f'{{"r": RANK, "lora_alpha": ALPHA}} of that run to {path}'
        )
    dora = any("lora_magnitude_vector" in each.name for each in parts)
    return AdapterConfig(path, None, rank, float(alpha), {}, {}, rslora=False, dora=dora, fan_in_fan_out=False)
