"""RL towards rewards of WARM, evaluated along its steps: what the claims about hacking share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warmkit.data.preferences import read_pairs
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.evaluation.win_rates import match_by_scores
from warmkit.evidence.claims.measurements import Line, highest, lead, over_steps
from warmkit.evidence.claims.proxies import MEASURED, proxy

if TYPE_CHECKING:
    from warmkit.evidence.claims.warm_pools import Ranking
    from warmkit.evidence.testbed.bed import Pool, Testbed

Array = NDArray[np.float64]
COMPARED = 128
"""Most completions of a prompt that a win rate looks at."""


@dataclass(frozen=True)
class Track:
    """One run of RL along its steps, from the SFT model on.

    Attributes:
        points: What was evaluated, with `at`, the step.
        gold: The gold reward of every completion at every point, [N, K] each.
    """

    points: Line
    gold: list[Array]

    @property
    def best(self) -> Array:
        """The gold rewards at the step where their mean is highest."""
        return max(self.gold, key=np.mean)


def follow(bed: Testbed, name: str, reward: RewardTerm, **how: Any) -> Track:
    """Train a policy towards a reward and evaluate what it kept on the way.

    Args:
        bed: The testbed.
        name: Of the run.
        reward: What it learns from.
        how: Other keys of `policy:`.
    """
    from safetensors.torch import load_file

    from warmkit.evidence.testbed.gold_judge import Judge, oracle

    run = bed.policy(name, [reward], bed.settings.warm_policies, **how)
    judge = Judge(bed, reward, [oracle("first_cue_words")])
    points, gold = list[dict[str, float]](), list[Array]()
    for step, path in [(0, bed.sft), *sorted(run.kept.items())]:
        judge.candidate.load_weights(load_file(path / "model.safetensors"))
        answers = judge.candidate.answers()
        points.append({"at": float(step), **judge.numbers(answers)})
        gold.append(answers.values["control_gold"])
    return Track(points, gold)


def single(bed: Testbed, pool: Pool, name: str, **how: Any) -> Track:
    """Follow RL towards one model of a pool, whose run is shared by all claims: `rl-single-1` is run 1 of `flips`."""
    return follow(bed, run_name(pool.name, name.replace("run", "single"), **how), proxy(bed, [pool.runs[name]]), **how)


def probe_only(bed: Testbed, pool: Pool) -> Track:
    """Follow RL towards the head on frozen features that the models of a pool started from."""
    return follow(bed, run_name(pool.name, "probe"), proxy(bed, [pool.probe]))


def towards_average(bed: Testbed, ranked: Ranking, m: int, **how: float) -> Track:
    """Follow RL towards WA of the M best."""
    return follow(bed, run_name(ranked.pool.name, f"wa-{m}", **how), proxy(bed, [ranked.average(bed, m)]), **how)


def run_name(pool: str, what: str, **how: float) -> str:
    """Name a run after the pool, what of it is the reward, and what is not as usual.

    Example:
        >>> run_name("clean", "wa-6", beta=0.05)
        'rl-clean-wa-6-beta-0.05'
    """
    return "-".join(["rl", *([] if pool == "flips" else [pool]), what, *(f"{key}-{how[key]:g}" for key in how)])


def oracle_proxy(bed: Testbed) -> RewardTerm:
    """Return the gold reward itself as what is learned from, in units of its deviation as `proxies.proxy` does."""
    from warmkit.evidence.testbed.gold_judge import oracle

    pairs = read_pairs(bed.validation)[:MEASURED]
    texts = [(str(pair.prompt), str(text)) for pair in pairs for text in (pair.chosen, pair.rejected)]
    gold = bed.gold([prompt for prompt, _ in texts], [text for _, text in texts])
    return oracle(bed.oracle, name="proxy", weight=1 / float(np.std(gold)))


# ---- comparisons -------------------------------------------------------------------------------------------------------


def compare(name: str, ours: Track, theirs: Sequence[Track]) -> dict[str, float]:
    """Return how much more gold one run has than the mean of others: over training, at its end, and at the KLs all reach."""
    ends = ours.points[-1]["gold"] - np.mean([each.points[-1]["gold"] for each in theirs])
    mean = over_steps(ours.points, "gold") - np.mean([over_steps(each.points, "gold") for each in theirs])
    at_kl = lead(ours.points, [each.points for each in theirs], "gold")
    return {f"{name}_mean": float(mean), f"{name}_end": float(ends), f"{name}_at_kl": at_kl}


def collapse_step(line: Line) -> float:
    """Return the first step after the peak of gold at which half of what was gained is lost; the last step where none is.

    Example:
        >>> collapse_step([{"at": 0, "gold": 1.0}, {"at": 5, "gold": 3.0}, {"at": 9, "gold": 1.5}, {"at": 12, "gold": 0.0}])
        9
    """
    peak = highest(line)
    half = (line[0]["gold"] + peak["gold"]) / 2
    return next((point["at"] for point in line if point["at"] > peak["at"] and point["gold"] < half), line[-1]["at"])


def win_rate(ours: Array, theirs: Array) -> float:
    """Return the share of completions that beat another policy's, every one against every one of the same prompt, ties half.

    Args:
        ours: Gold rewards, [N, K].
        theirs: Of the same prompts, [N, K'].

    Source: WARM (Ramé et al., 2024), section 5, figure 5, where a language model compares; here the gold reward does.

    Example:
        >>> win_rate(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]]))
        0.875
    """
    first, second = ours[:, :COMPARED], theirs[:, :COMPARED]
    pairs = np.repeat(first, second.shape[1], axis=1), np.tile(second, (1, first.shape[1]))
    return float(match_by_scores(*pairs).outcomes.mean())
