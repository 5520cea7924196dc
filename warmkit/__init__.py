"""Weight averaging for aligning language models: merge checkpoints, train what gets merged, show the evidence."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from warmkit._version import __version__ as __version__

if TYPE_CHECKING:
    from warmkit.checkpoints.checkpoint import Checkpoint as Checkpoint
    from warmkit.checkpoints.checkpoint import open_checkpoint as open_checkpoint
    from warmkit.checkpoints.compare import compare as compare
    from warmkit.checkpoints.extract import extract_lora as extract_lora
    from warmkit.checkpoints.greedy_soup import greedy_soup as greedy_soup
    from warmkit.checkpoints.merge import ema as ema
    from warmkit.checkpoints.merge import liti as liti
    from warmkit.checkpoints.merge import merge as merge
    from warmkit.checkpoints.merge import soup as soup
    from warmkit.checkpoints.merger import Merger as Merger
    from warmkit.checkpoints.merger import merged_state_dict as merged_state_dict
    from warmkit.checkpoints.push import push as push
    from warmkit.checkpoints.slices import Slice as Slice
    from warmkit.checkpoints.slices import merge_slices as merge_slices
    from warmkit.checkpoints.stacking import LayerRange as LayerRange
    from warmkit.checkpoints.verify import verify as verify
    from warmkit.checkpoints.write import MergeResult as MergeResult
    from warmkit.data.preferences import Pair as Pair
    from warmkit.data.preferences import read_pairs as read_pairs
    from warmkit.errors import WarmkitError as WarmkitError
    from warmkit.merging.methods import METHODS as METHODS
    from warmkit.modeling.reward_model import RewardModel as RewardModel
    from warmkit.modeling.reward_model import load_reward_model as load_reward_model
    from warmkit.pipelines.warm import run_warm as run_warm
    from warmkit.pipelines.warp import run_warp as run_warp
    from warmkit.training.policy import train_policy as train_policy
    from warmkit.training.reward_modeling import train_reward_model as train_reward_model
    from warmkit.training.sft import train_sft as train_sft

# Loaded at first use: `import warmkit` and `warmkit --help` cost nothing.
_HOMES = {
    "Checkpoint": "checkpoints.checkpoint",
    "LayerRange": "checkpoints.stacking",
    "METHODS": "merging.methods",
    "MergeResult": "checkpoints.write",
    "Merger": "checkpoints.merger",
    "Pair": "data.preferences",
    "RewardModel": "modeling.reward_model",
    "Slice": "checkpoints.slices",
    "WarmkitError": "errors",
    "compare": "checkpoints.compare",
    "ema": "checkpoints.merge",
    "extract_lora": "checkpoints.extract",
    "greedy_soup": "checkpoints.greedy_soup",
    "liti": "checkpoints.merge",
    "load_reward_model": "modeling.reward_model",
    "merge": "checkpoints.merge",
    "merge_slices": "checkpoints.slices",
    "merged_state_dict": "checkpoints.merger",
    "open_checkpoint": "checkpoints.checkpoint",
    "push": "checkpoints.push",
    "read_pairs": "data.preferences",
    "run_warm": "pipelines.warm",
    "run_warp": "pipelines.warp",
    "soup": "checkpoints.merge",
    "train_policy": "training.policy",
    "train_reward_model": "training.reward_modeling",
    "train_sft": "training.sft",
    "verify": "checkpoints.verify",
}
__all__ = [
    "METHODS",
    "Checkpoint",
    "LayerRange",
    "MergeResult",
    "Merger",
    "Pair",
    "RewardModel",
    "Slice",
    "WarmkitError",
    "__version__",
    "compare",
    "ema",
    "extract_lora",
    "greedy_soup",
    "liti",
    "load_reward_model",
    "merge",
    "merge_slices",
    "merged_state_dict",
    "open_checkpoint",
    "push",
    "read_pairs",
    "run_warm",
    "run_warp",
    "soup",
    "train_policy",
    "train_reward_model",
    "train_sft",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'warmkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"warmkit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__  # what completion offers: neither modules nor what this file imports
