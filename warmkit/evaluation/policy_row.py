"""Row of one policy in `warmkit eval policy`, a number a prompt, so that intervals and differences are paired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warmkit.common.display import Displayed
from warmkit.evaluation.accuracy import Estimate, interval
from warmkit.evaluation.answers import Answers
from warmkit.evaluation.best_of_n import best_of_n
from warmkit.evaluation.diversity import Embed, has_sacrebleu, semantic_similarity, similarity
from warmkit.evaluation.win_rates import match_by_scores

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class PolicyRow(Displayed):
    """One policy.

    Attributes:
        path: Of its checkpoint.
        values: Numbers a prompt, [N] each, by name; their means are what is reported.
    """

    path: str
    values: Mapping[str, Array]

    def estimates(self) -> dict[str, Estimate]:
        """Return the mean of every number and its bootstrap interval over prompts."""
        return {name: interval(each) for name, each in self.values.items()}

    def less(self, other: PolicyRow) -> dict[str, Estimate]:
        """Return the differences to another policy on the same prompts, with their paired intervals."""
        return {name: interval(each - other.values[name]) for name, each in self.values.items() if name in other.values}


def policy_row(
    path: str,
    answers: Answers,
    reference: Answers | None = None,
    best_of: int | None = None,
    embed: Embed | None = None,
) -> PolicyRow:
    """Reduce the answers of one policy to numbers a prompt.

    Rewards, controls, KLs, length and `without_eos` are means over the K samples. `entropy` is in nats a token. `best_of_N` and
    `best_of_N_control_LABEL` are of the answer with the best reward among N. `win_rate` is of sample k against the reference's
    sample k, by reward, ties half. `similarity` is there if there are two samples and sacrebleu is installed,
    `semantic_similarity` if there is an encoder. Rates and similarities are shares from 0 to 1.

    Args:
        path: Of the policy.
        answers: Of the policy.
        reference: Of whom the win rate is against, to the same prompts, as many samples.
        best_of: N, at most K.
        embed: A sentence encoder: see `diversity.open_encoder`.

    Raises:
        UsageError: If N is more than K, the reference has other prompts or samples, or an encoder gets one sample.
    """
    means = {name: each.mean(1) for name, each in answers.values.items()}
    values = {**means, "entropy": ratio(means["entropy"], means["length"])}
    if best_of is not None:
        values |= _best(answers, best_of)
    if reference is not None:
        values["win_rate"] = match_by_scores(answers.values["reward"], reference.values["reward"]).outcomes.mean(1)
    if answers.samples > 1 and has_sacrebleu():
        values["similarity"] = similarity(answers.texts) / 100
    if embed is not None:
        values["semantic_similarity"] = semantic_similarity(answers.texts, embed) / 100
    return PolicyRow(path, values)


def ratio(above: Array, below: Array) -> Array:
    """Return numbers a prompt whose mean is sum(above) / sum(below) and whose spread is that of the ratio.

    z_n = R + (a_n - R b_n) / mean(b), the linearised ratio: a long answer counts as much as it has tokens.

    Args:
        above: [N].
        below: [N], positive.

    Source: Cochran (1977), section 6.4.

    Examples:
        >>> ratio(np.array([2.0, 1.0]), np.array([1.0, 2.0])).mean().item()
        1.0
    """
    whole = above.mean() / below.mean()
    return whole + (above - whole * below) / below.mean()


def _best(answers: Answers, n: int) -> dict[str, Array]:
    reward = answers.values["reward"]
    controls = {name: each for name, each in answers.values.items() if name.startswith("control_")}
    best = {f"best_of_{n}_{name}": best_of_n(reward, each, n) for name, each in controls.items()}
    return {f"best_of_{n}": best_of_n(reward, reward, n), **best}
