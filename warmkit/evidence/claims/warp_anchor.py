"""The anchor of the KL: the policy's moving average (EMA), the SFT model at several beta, or none.

Source: WARP (Ramé et al., 2024), sections 3.1 and 4.1, appendix D.2, figures 3a, 3b, 12 and 14-16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file

from warmkit.evidence.claims.measurements import Line, Measurements, at, highest, lead
from warmkit.evidence.claims.warp_policies import Family, policies
from warmkit.evidence.testbed.gold_judge import Weights
from warmkit.training.policy import PolicyResult

if TYPE_CHECKING:
    from warmkit.evidence.testbed.bed import Testbed


@dataclass(frozen=True)
class Settings:
    """What is compared with the EMA anchor of the testbed's own beta and mu.

    Attributes:
        ema: Other strengths of the KL to the moving average.
        static: Strengths of the KL to the SFT model; the testbed's own beta is always one more.
        mu: Other update rates of the moving average.
        averaged: Static strengths, 0 for no KL, of which the moving average is a policy too.
        spacing: Steps between the checkpoints of such an average.
    """

    ema: list[float] = field(default_factory=lambda: [0.3, 3.0])
    static: list[float] = field(default_factory=lambda: [0.1, 0.3])
    mu: list[float] = field(default_factory=lambda: [0.01, 0.2])
    averaged: list[float] = field(default_factory=lambda: [0.0, 0.3])
    spacing: int = 10


class Runs:
    """Runs towards one proxy, prompts in the same order, that differ in their anchor.

    Args:
        bed: The testbed.
        how: What is compared.
    """

    def __init__(self, bed: Testbed, how: Settings) -> None:
        self.bed, self.how, self.shared = bed, how, bed.settings.warp_policies
        self.family: Family = policies(bed, 1)
        self.watched = self.shared.steps_to_watch()

    def ema(self, **changed: float) -> Line:
        """Return the trajectory with an EMA anchor of another beta or mu; the testbed's own where nothing is changed."""
        name = "".join(f"anchor-{key}-{value:g}" for key, value in changed.items())
        return self.trajectory(self._run(name, **changed) if changed else self.family.runs[0])

    def static(self, beta: float) -> PolicyResult:
        """Return the run with the SFT model as the anchor, without a KL where beta is 0."""
        name, anchor = (f"anchor-static-{beta:g}", "init") if beta else ("anchor-none", "none")
        spacing = self.how.spacing if beta in self.how.averaged else self.shared.steps
        keep = sorted({*self.watched, *range(spacing, self.shared.steps + 1, spacing)})
        return self._run(name, anchor=anchor, beta=beta, keep=keep)

    def trajectory(self, run: PolicyResult) -> Line:
        """Evaluate the watched policies of a run."""
        return self.family.judge.trajectory(dataclasses.replace(run, kept={step: run.kept[step] for step in self.watched}))

    def average(self, run: PolicyResult) -> Line:
        """Evaluate the moving average of a run's weights at the same steps."""
        judge, sft = self.family.judge, load_file(self.bed.sft / "model.safetensors")
        averages = moving_averages(sft, run.kept, self.shared.mu)
        return [{"at": 0.0, **judge.sft}, *({"at": float(step), **judge.measure(averages[step])} for step in self.watched)]

    def _run(self, name: str, **how: Any) -> PolicyResult:
        return self.bed.policy(name, [self.family.proxy], self.shared, **how)


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Train with every anchor; the EMA anchor of the testbed's own beta and mu is what the others are compared with."""
    found, runs = Measurements(), Runs(bed, how)
    shared, ema = runs.shared, runs.ema()
    statics = {beta: runs.static(beta) for beta in sorted({0.0, *how.static, *how.averaged, shared.beta})}
    lines = {beta: runs.trajectory(run) for beta, run in statics.items()}
    found.draw("anchors", f"EMA {shared.beta:g}", ema)
    for beta, line in lines.items():
        found.draw("anchors", _name(beta), line)
    averages = {beta: runs.average(statics[beta]) for beta in how.averaged}
    for beta, line in averages.items():
        found.draw("averages", _name(beta), lines[beta])
        found.draw("averages", f"average of {_name(beta)}", line)
    rates = {shared.mu: ema, **{mu: runs.ema(mu=mu) for mu in how.mu}}
    for mu in sorted(rates):
        found.draw("mu", f"mu {mu:g}", rates[mu])
    strengths = {shared.beta: ema, **{beta: runs.ema(beta=beta) for beta in how.ema}}
    for beta in sorted(strengths):
        found.draw("beta", f"EMA {beta:g}", strengths[beta])
    found.state(
        **anchor_numbers(ema, lines, lines[shared.beta], shared.steps),
        average_minus_base_proxy=fmean([lead(line, lines[beta], "proxy") for beta, line in averages.items()]),
        mu_larger_minus_smaller_kl=rates[max(rates)][-1]["kl"] - rates[min(rates)][-1]["kl"],
        other_mu_minus_main_proxy=fmean([lead(rates[mu], ema, "proxy") for mu in how.mu]),
        other_beta_minus_main_proxy=fmean([lead(strengths[beta], ema, "proxy") for beta in how.ema]),
    )
    return found


def anchor_numbers(ema: Line, statics: Mapping[float, Line], strong: Line, steps: int) -> dict[str, float]:
    """Compare anchors: fronts at matched KL, and how far they go on in the second half of a run.

    Args:
        ema: Trajectory with the EMA anchor.
        statics: With the SFT model as the anchor, by beta; 0 is without a KL.
        strong: The one of these with the beta of `ema`.
        steps: T.
    """
    none, leads = statics[0.0], {beta: lead(ema, line, "proxy") for beta, line in statics.items() if beta}
    return {
        "ema_minus_none_proxy": lead(ema, none, "proxy"),
        "ema_minus_none_gold": lead(ema, none, "gold"),
        "ema_minus_weak_static_proxy": leads[min(leads)],
        "ema_minus_tuned_static_proxy": float(np.nanmin(list(leads.values()))),
        "ema_minus_static_of_its_beta_proxy_at_end": ema[-1]["proxy"] - strong[-1]["proxy"],
        "static_kl_gained_late": second_half(strong, steps) / highest(strong, "kl")["kl"],
        "ema_minus_static_kl_gained_late": second_half(ema, steps) - second_half(strong, steps),
        "none_kl_over_ema_kl": none[-1]["kl"] / ema[-1]["kl"],
        "none_gold_lost": highest(none)["gold"] - none[-1]["gold"],
        "none_minus_ema_gold_lost": (highest(none)["gold"] - none[-1]["gold"]) - (highest(ema)["gold"] - ema[-1]["gold"]),
    }


def second_half(line: Line, steps: int) -> float:
    """Return the KL gained after half of the steps, in nats."""
    middle, end = at(line, "kl", [steps / 2, steps], along="at")
    return float(end - middle)


def moving_averages(init: Weights, kept: Mapping[int, Path], mu: float) -> dict[int, dict[str, torch.Tensor]]:
    """Return the moving average of a run's weights at every step that was kept, from checkpoints alone.

        theta_ema <- (1 - mu)^n theta_ema + (1 - (1 - mu)^n) theta    at a checkpoint n steps after the last one

    With a checkpoint at every step that is the EMA itself.

    Source: WARP (Ramé et al., 2024), equation (EMA); figure 14.
    """
    average, before, found = {name: each.clone() for name, each in init.items()}, 0, dict[int, dict[str, torch.Tensor]]()
    for step, path in sorted(kept.items()):
        weights = load_file(path / "model.safetensors")
        share = 1 - (1 - mu) ** (step - before)
        average = {name: torch.lerp(each, weights[name], share) for name, each in average.items()}
        found[step], before = average, step
    return found


def _name(beta: float) -> str:
    return f"SFT {beta:g}" if beta else "no KL"
