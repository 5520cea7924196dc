"""Files of a checkpoint as a trainer left it: which hold the optimizer's state, and which others belong to the same save."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from warmkit.formats import optimizer_states, torch_distributed
from warmkit.formats.checkpoint import Checkpoint
from warmkit.layouts.companions import refuse_link_out
from warmkit.sources.small_files import KEPT

STATE = (
    *("extra_state_world_size_*_rank_*.pt", "fsdp_config.json", "lora_train_meta.json", "data.pt"),  # verl
    *("random_states_*.pkl", "rng_state*.pth", "scheduler.*", "scaler.pt", "training_args.bin"),  # transformers, accelerate
    *("latest", "zero_to_fp32.py", "sampler*.bin", "dl_state_dict*.bin"),  # DeepSpeed, accelerate
    *("common.pt", "rng.pt"),  # Megatron, slime
)
STATE_FOLDERS = ("lr_scheduler",)  # slime's, a distributed checkpoint
"""What trainers keep beside weights and optimizers."""
WRITTEN_BESIDE = ("README.md", "warmkit.json")


def files_in(root: Path) -> list[Path]:
    """Return every file of a checkpoint, sorted; none where it is one file."""
    return sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else []


def is_optimizer(file: Path, root: Path) -> bool:
    """Say whether a file holds an optimizer's state, by its name or its folder's."""
    folders = file.relative_to(root).parts[:-1]
    named = any(fnmatchcase(file.name, each) for each in optimizer_states.FILES)
    return named or any(fnmatchcase(folder, each) for folder in folders for each in optimizer_states.FOLDERS)


def belongs(file: Path, template: Checkpoint, root: Path) -> bool:
    """Say whether a file is of the same save: state of the trainer, config, tokenizer; what is no optimizer's nor weights."""
    homes = {each.parent for each in template.files if isinstance(each, Path)}
    homes |= {root, template.path, *(above for home in homes for above in home.parents if above.is_relative_to(root))}
    if file.parent not in homes and file.parent.name not in STATE_FOLDERS and not _plain(file.parent):
        return False
    if file.name.endswith(torch_distributed.SHARD) or file.name == torch_distributed.METADATA:
        return not is_optimizer(file, root)
    small = file.suffix in KEPT and file.name not in WRITTEN_BESIDE
    if small or any(fnmatchcase(file.name, each) for each in STATE):
        refuse_link_out(file, root)
        return True
    return False


def _plain(folder: Path) -> bool:
    return all(path.is_file() and path.suffix in KEPT for path in folder.iterdir())
