"""The policies that all claims of WARP share: several runs towards one proxy, different in the order of their prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from warmkit.evaluation.reward_term import RewardTerm
from warmkit.evidence.claims.proxies import proxy
from warmkit.evidence.testbed.bed import Testbed
from warmkit.evidence.testbed.gold_judge import Judge
from warmkit.training.policy import PolicyResult


@dataclass(frozen=True)
class Family:
    """Policies of one init.

    Attributes:
        proxy: What they learned from.
        judge: Evaluates them and their merges.
        runs: In order; the first is the run of the EMA anchor in `warp-anchor`.
        init: Where they started.
    """

    proxy: RewardTerm
    judge: Judge
    runs: list[PolicyResult]
    init: Path

    @property
    def models(self) -> list[Path]:
        return [run.path for run in self.runs]


def policies(bed: Testbed, count: int) -> Family:
    """Train M policies, each with its own EMA anchor, or take those that are there."""
    reward = warp_proxy(bed)
    shared = bed.settings.warp_policies
    runs = [bed.policy(f"warp-{order}", [reward], shared, order=order) for order in range(1, count + 1)]
    return Family(reward, Judge(bed, reward), runs, bed.sft)


def iteration(bed: Testbed, number: int, eta: float = 0.3, count: int = 2) -> Family:
    """Train the policies of an iteration of WARP, or take those that are there; every policy has an order of its own.

        theta_init of an iteration = (1 - eta) theta_init + eta slerpm(theta^1, ..., theta^M)    of the one before

    Args:
        bed: The testbed.
        number: 1 is `policies(bed, count)`, from the SFT model.
        eta: Of LITI, between iterations.
        count: Policies of every iteration, M.

    Source: WARP (Ramé et al., 2024), section 3.4 and algorithm 1.
    """
    if number == 1:
        return policies(bed, count)
    before, name = iteration(bed, number - 1, eta, count), f"warp-it{number}-eta{eta:g}-m{count}"
    init = bed.average(f"{name}-init", before.models, init=str(before.init), method="slerp", eta=eta)
    shared, rewards = bed.settings.warp_policies, [before.proxy]
    runs = [
        bed.policy(f"{name}-{run}", rewards, shared, init=init, order=10 * (number - 1) + run) for run in range(1, count + 1)
    ]
    return Family(before.proxy, before.judge, runs, init)


def warp_proxy(bed: Testbed) -> RewardTerm:
    """Return the reward model of all claims of WARP: the first run of the WARM pool with swapped labels."""
    return proxy(bed, bed.pool("flips", 1).paths)
