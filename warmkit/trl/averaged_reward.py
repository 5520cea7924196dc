"""A reward for trainers of TRL: one model whose weights are the average of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from warmkit.errors import UsageError
from warmkit.modeling.reward_model import load_scorer, refuse_headless
from warmkit.modeling.tokens import Text
from warmkit.verbs.merger import merged_state_dict


class WeightAveragedReward:
    """Reward function of one model with averaged weights (WARM), for `reward_funcs` of TRL.

        r(x, y) = r_phi(x, y),  phi = sum_m c_m phi_m,  c_m = 1/M

    The average is made in memory. Texts are read by the first model's own tokenizer and chat template, as `load_reward_model`
    reads them: a plain completion gets EOS behind it, a chat what its template writes.

    Args:
        models: Reward models of one architecture: directories, adapters or Hub repositories, as everywhere.
        coefficients: One per model; by default the mean.
        max_length: Tokens a text may have, see `warmkit.load_reward_model`.
        device: `cpu` or `cuda`; by default the process's GPU where there is one.

    Raises:
        UnsupportedError: If one has no scalar head.
        MismatchError: If they cannot be averaged.

    Source: WARM (Ramé et al., 2024), section 3.
    """

    __name__ = "weight_averaged_reward"  # TRL's column of it

    def __init__(
        self,
        models: Sequence[str | Path],
        *,
        coefficients: Sequence[float] | None = None,
        max_length: int | None = None,
        device: str | None = None,
    ) -> None:
        if not models:
            raise UsageError("expected reward models to average, found none")
        paths = [str(each) for each in models]
        self.model = load_scorer(paths[0], max_length, "cpu")
        self.device = device
        for path in paths[1:]:
            refuse_headless(path)
        rows = paths if len(paths) > 1 else paths * 2  # the mean of a model with itself is that model, bit for bit
        method = "uniform" if coefficients is None else "lerp"
        self.model.load_weights(merged_state_dict(rows, method=method, coefficients=coefficients))

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **_: Any) -> list[float]:
        """Score completions.

        Args:
            prompts: Texts, or messages.
            completions: Texts, or messages, one per prompt.
            **_: What TRL passes besides, other columns of the data among it.

        Returns:
            One number per completion, in order; higher is better.
        """
        self.model.model.to(
            self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        )  # the process's own, once it is set
        return self.model.score(list(zip(prompts, completions, strict=True)))
