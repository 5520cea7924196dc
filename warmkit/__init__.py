"""Weight averaging for aligning language models: merge checkpoints, train what gets merged, show the evidence."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from warmkit._version import __version__ as __version__

if TYPE_CHECKING:
    from warmkit.checkpoints.checkpoint import Checkpoint as Checkpoint
    from warmkit.checkpoints.checkpoint import open_checkpoint as open_checkpoint
    from warmkit.checkpoints.compare import compare as compare
    from warmkit.checkpoints.greedy_soup import greedy_soup as greedy_soup
    from warmkit.checkpoints.merge import Merger as Merger
    from warmkit.checkpoints.merge import MergeResult as MergeResult
    from warmkit.checkpoints.merge import ema as ema
    from warmkit.checkpoints.merge import liti as liti
    from warmkit.checkpoints.merge import merge as merge
    from warmkit.checkpoints.merge import merged_state_dict as merged_state_dict
    from warmkit.checkpoints.merge import soup as soup
    from warmkit.checkpoints.verify import verify as verify
    from warmkit.errors import WarmkitError as WarmkitError
    from warmkit.merging.methods import METHODS as METHODS

# Loaded at first use: `import warmkit` and `warmkit --help` cost nothing.
_HOMES = {
    "Checkpoint": "checkpoints.checkpoint",
    "METHODS": "merging.methods",
    "MergeResult": "checkpoints.merge",
    "Merger": "checkpoints.merge",
    "WarmkitError": "errors",
    "compare": "checkpoints.compare",
    "ema": "checkpoints.merge",
    "greedy_soup": "checkpoints.greedy_soup",
    "liti": "checkpoints.merge",
    "merge": "checkpoints.merge",
    "merged_state_dict": "checkpoints.merge",
    "open_checkpoint": "checkpoints.checkpoint",
    "soup": "checkpoints.merge",
    "verify": "checkpoints.verify",
}
__all__ = [
    "METHODS",
    "Checkpoint",
    "MergeResult",
    "Merger",
    "WarmkitError",
    "__version__",
    "compare",
    "ema",
    "greedy_soup",
    "liti",
    "merge",
    "merged_state_dict",
    "open_checkpoint",
    "soup",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'warmkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"warmkit.{_HOMES[name]}"), name)
