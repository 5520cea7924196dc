"""Parts of WARM and WARP for other trainers: callbacks and a reward for TRL and transformers."""

from __future__ import annotations

from warmkit.trl.average_checkpoints import AverageCheckpoints as AverageCheckpoints
from warmkit.trl.averaged_reward import WeightAveragedReward as WeightAveragedReward
from warmkit.trl.ema_anchor import EMAAnchor as EMAAnchor

__all__ = ["AverageCheckpoints", "EMAAnchor", "WeightAveragedReward"]
