"""The table of containers: every way in which the weights of one model may lie on a disk.

A container is one file of this folder and one row here, with its test, its row on the page of inputs and its damaged files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from warmkit.errors import StateDictError, UnsupportedError
from warmkit.formats import gguf_file, hf_shards, megatron, rank_files, safetensors_model, torch_distributed, torch_model, zero
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.quantised import dequantised
from warmkit.formats.refused import refuse
from warmkit.formats.safetensors_model import with_files_beside
from warmkit.formats.schedule_free import noted_beside
from warmkit.sources.hub import pickle_message


@dataclass(frozen=True)
class Container:
    """A way in which weights lie on a disk.

    Attributes:
        name: What the library that writes it calls it; its row on `docs/inputs.md` says the same.
        files: The names of what at a path may be such weights; none where they are something else.
        open: Opens them, from what the user wrote and the path. It checks what the files say of themselves; what no model may
            hold (quantised weights, for instance) is refused here, for all containers.
        pickled: Whether it is a pickle, which is read on request alone.
        several: Whether there may be several state dicts in it: `open` then takes the name of the one to read, too.
        foreign: Whether its names of tensors are no model's, so that a merge is written as such a container alone.
        check_copy: Refuses a checkpoint into a copy of which merged weights cannot be written.
    """

    name: str
    files: Callable[[Path], list[str]]
    open: Callable[..., Checkpoint]
    pickled: bool
    several: bool = False
    foreign: bool = False
    check_copy: Callable[[Checkpoint], None] = lambda _: None


SAFETENSORS = Container("safetensors", safetensors_model.files_at, safetensors_model.open_model, pickled=False, several=True)
CONTAINERS = (
    Container("HuggingFaceStorageWriter", hf_shards.files_at, hf_shards.open_model, pickled=False, several=True),
    SAFETENSORS,
    Container("FSDP rank files", rank_files.files_at, rank_files.open_model, pickled=True),
    Container(
        "Megatron-Core torch_dist",
        megatron.files_at,
        megatron.open_model,
        pickled=True,
        foreign=True,
        check_copy=megatron.refuse_hidden_weights,
    ),
    Container(
        "torch.distributed.checkpoint", torch_distributed.files_at, torch_distributed.open_model, pickled=True, several=True
    ),
    Container("DeepSpeed ZeRO", zero.files_at, zero.open_model, pickled=True),
    Container("torch.save", torch_model.files_at, torch_model.open_model, pickled=True, several=True),
    Container("GGUF", gguf_file.files_at, gguf_file.open_model, pickled=False),
)
"""The first that has files at a path is what lies there."""


def container_at(path: Path) -> Container:
    """Return the container of what lies at a path; safetensors, which say what is missing, where nothing does."""
    return next((each for each in CONTAINERS if each.files(path)), SAFETENSORS)


def open_weights(source: str, path: Path, allow_pickle: bool, state_dict: str | None = None) -> Checkpoint:
    """Open the weights at a path, with those that lie beside them.

    Raises:
        CheckpointError: If there are none, they are malformed, or of a kind that is refused.
        StateDictError: If `state_dict` is not in them.
        UnsupportedError: If they are a pickle, and none is allowed.
    """
    container = container_at(path)
    if container.pickled and not allow_pickle:
        raise UnsupportedError(pickle_message(path, container.files(path)))
    if state_dict is None:
        checkpoint = container.open(source, path)
    elif container.several:
        checkpoint = replace(container.open(source, path, state_dict), state_dict=state_dict)
    else:
        raise StateDictError(f"{source}: {container.name} holds one model, and no state dict {state_dict!r}", alone=True)
    checkpoint = dequantised(checkpoint)
    refuse(checkpoint)
    checkpoint = replace(checkpoint, notes=(*checkpoint.notes, *noted_beside(path)), container=(container.name, path))
    return with_files_beside(checkpoint)
