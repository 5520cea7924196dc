"""Weight averaging for aligning language models: merge checkpoints, train what gets merged, show the evidence."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from warmkit._version import __version__ as __version__

if TYPE_CHECKING:
    from warmkit.data.preferences import Pair as Pair
    from warmkit.data.preferences import read_pairs as read_pairs
    from warmkit.engine.result import MergeResult as MergeResult
    from warmkit.errors import WarmkitError as WarmkitError
    from warmkit.evaluation.search import search as search
    from warmkit.formats.checkpoint import Checkpoint as Checkpoint
    from warmkit.layouts.opening import open_checkpoint as open_checkpoint
    from warmkit.layouts.stacking import LayerRange as LayerRange
    from warmkit.merging.methods import METHODS as METHODS
    from warmkit.modeling.reward_model import RewardModel as RewardModel
    from warmkit.modeling.reward_model import load_reward_model as load_reward_model
    from warmkit.pipelines.warm import run_warm as run_warm
    from warmkit.pipelines.warp import run_warp as run_warp
    from warmkit.training.policy import train_policy as train_policy
    from warmkit.training.reward_modeling import train_reward_model as train_reward_model
    from warmkit.training.sft import train_sft as train_sft
    from warmkit.verbs.average import average as average
    from warmkit.verbs.compare import compare as compare
    from warmkit.verbs.extract import extract_lora as extract_lora
    from warmkit.verbs.greedy_soup import greedy_soup as greedy_soup
    from warmkit.verbs.merge import ema as ema
    from warmkit.verbs.merge import liti as liti
    from warmkit.verbs.merge import merge as merge
    from warmkit.verbs.merge import soup as soup
    from warmkit.verbs.merger import Merger as Merger
    from warmkit.verbs.merger import merged_state_dict as merged_state_dict
    from warmkit.verbs.push import push as push
    from warmkit.verbs.run_shape import RunShape as RunShape
    from warmkit.verbs.run_shape import run_shape as run_shape
    from warmkit.verbs.slices import Slice as Slice
    from warmkit.verbs.slices import merge_slices as merge_slices
    from warmkit.verbs.verify import verify as verify
    from warmkit.verbs.verify_claim import verify_claim as verify_claim

# Loaded at first use: `import warmkit` and `warmkit --help` cost nothing.
_HOMES = {
    "Checkpoint": "formats.checkpoint",
    "LayerRange": "layouts.stacking",
    "METHODS": "merging.methods",
    "MergeResult": "engine.result",
    "Merger": "verbs.merger",
    "Pair": "data.preferences",
    "RewardModel": "modeling.reward_model",
    "RunShape": "verbs.run_shape",
    "Slice": "verbs.slices",
    "WarmkitError": "errors",
    "average": "verbs.average",
    "compare": "verbs.compare",
    "ema": "verbs.merge",
    "extract_lora": "verbs.extract",
    "greedy_soup": "verbs.greedy_soup",
    "liti": "verbs.merge",
    "load_reward_model": "modeling.reward_model",
    "merge": "verbs.merge",
    "merge_slices": "verbs.slices",
    "merged_state_dict": "verbs.merger",
    "open_checkpoint": "layouts.opening",
    "push": "verbs.push",
    "read_pairs": "data.preferences",
    "run_shape": "verbs.run_shape",
    "run_warm": "pipelines.warm",
    "run_warp": "pipelines.warp",
    "search": "evaluation.search",
    "soup": "verbs.merge",
    "train_policy": "training.policy",
    "train_reward_model": "training.reward_modeling",
    "train_sft": "training.sft",
    "verify": "verbs.verify",
    "verify_claim": "verbs.verify_claim",
}
__all__ = [
    "METHODS",
    "Checkpoint",
    "LayerRange",
    "MergeResult",
    "Merger",
    "Pair",
    "RewardModel",
    "RunShape",
    "Slice",
    "WarmkitError",
    "__version__",
    "average",
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
    "run_shape",
    "run_warm",
    "run_warp",
    "search",
    "soup",
    "train_policy",
    "train_reward_model",
    "train_sft",
    "verify",
    "verify_claim",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'warmkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"warmkit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__  # what completion offers: neither modules nor what this file imports
