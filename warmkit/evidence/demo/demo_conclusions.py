"""Conclusions of the demo: a sentence or two under each table, whichever way its numbers fall.

A difference is told as one where its 95% interval, over pairs or over prompts, lies on one side of zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warmkit.evaluation.few_values import Estimate, student_interval

Document = Mapping[str, Any]
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


def of_reward_models(document: Document) -> str:
    """Say what averaging brought: over its members, the best of all, the ensembles, and the probe."""
    rows = {row["model"]: row for row in document["reward_models"]}
    accuracy = {name: f"{row['validation']:.3f}" for name, row in rows.items()}
    differences, members = document["differences"], len(document["members"])
    pairs, warm = f"{document['measured']['validation']} pairs", accuracy["WARM"]
    gain = _read(
        differences["WARM, mean of the members"],
        "Averaging gained {} over the mean of its members",
        "Averaging lost {} against the mean of its members",
        f"Averaging made no difference to the mean of its members that {pairs} can show",
    )
    best = _read(
        differences["WARM, best single"],
        "WARM is {} above the best single model",
        "WARM is {} below the best single model",
        "WARM is not told apart from the best single model",
    )
    parts = [
        f"{gain} ({warm} against {accuracy['mean of the members']}).",
        f"{best} ({document['best']}, chosen on other pairs, {accuracy['best single']}).",
        *(
            _ensemble(differences[f"{name}, WARM"], rows[name]["models"], whose, accuracy[name])
            for name, whose in (
                ("ensemble", f"The ensemble of the same {number(members)}"),
                ("ensemble of all", f"The ensemble of all {number(rows['ensemble of all']['models'])}"),
            )
        ),
        _probe(differences["WARM, probe only"], accuracy["probe only"]),
    ]
    return " ".join(parts)


def _ensemble(difference: Mapping[str, float], cost: int, whose: str, accuracy: str) -> str:
    times = f"{number(cost)} times the cost"
    return _read(
        difference,
        f"{whose} is {{}} above WARM ({accuracy}), at {times}.",
        f"{whose} is {{}} below WARM ({accuracy}), at {times}.",
        f"{whose} is not told apart from WARM ({accuracy}), at {times}.",
    )


def _probe(difference: Mapping[str, float], accuracy: str) -> str:
    return _read(
        difference,
        f"WARM is {{}} above the probe ({accuracy}): fine-tuning taught what the frozen SFT model does not say.",
        f"WARM is {{}} below the probe ({accuracy}), which was never fine-tuned: here fine-tuning did harm.",
        f"WARM is no better than the probe ({accuracy}), which was never fine-tuned: at this size fine-tuning adds nothing "
        "that these pairs can show.",
    )


def of_memory(document: Document) -> str:
    """Say how much of the swapped labels WARM and the ensemble keep, and what that means for other pairs."""
    rows = {row["model"]: row for row in document["memorised"]}
    fit = {name: f"{row['train corrupt']:.3f}" for name, row in rows.items()}
    right = {name: f"{row['validation']:.3f}" for name, row in rows.items()}
    differences, pairs = document["memorised_differences"], document["memorised_pairs"]
    kept = _read(
        differences["train corrupt"],
        "WARM keeps {} more of what was learned by heart than the ensemble does",
        "WARM keeps {} less of what was learned by heart than the ensemble does",
        f"how much of it WARM and the ensemble keep is not told apart on {pairs} swapped pairs",
    )
    else_ = _read(
        differences["validation"],
        "On other pairs WARM is {} more accurate than the ensemble",
        "On other pairs WARM is {} less accurate than the ensemble",
        "On other pairs WARM and the ensemble are not told apart",
    )
    return (
        f"The models repeat {fit['mean of the members']} of the swapped labels in the mean, their ensemble {fit['ensemble']} "
        f"and WARM {fit['WARM']}: {kept}. {else_} ({right['WARM']} and {right['ensemble']})."
    )


def of_policies(document: Document) -> str:
    """Say what the merge is worth at the KL of what was merged, what LITI keeps of it, and what became of the free policy."""
    rows = {row["policy"]: row for row in document["policies"]}
    return " ".join([_merge(merge_gain(document), rows), _liti(rows), _free(rows, document["points"])])


@dataclass(frozen=True)
class MergeGain:
    """Gold rewards of a merge and of the mean of its two policies.

    Attributes:
        kl: Of the two policies, in the mean.
        gold: Of the front at that KL, or of SLERP where the front does not pass it.
        at_kl: Whether the front passes that KL.
        difference: To the mean of the two policies, with its interval over prompts.
    """

    kl: float
    gold: float
    at_kl: bool
    difference: Estimate


def merge_gain(document: Document) -> MergeGain:
    """Compare gold rewards prompt by prompt; along the front they are read between the two etas that the KL lies between."""
    rows = {row["policy"]: row for row in document["policies"]}
    pair = [rows["policy 1"], rows["policy 2"]]
    kl = _mean([each["kl"] for each in pair])
    front = [point for point in document["points"] if point["line"] == "SLERP and LITI"]
    found = next((_between(a, b, kl) for a, b in itertools.pairwise(front) if a["kl"] <= kl <= b["kl"]), None)
    golds = found or rows["SLERP"]["golds"]
    gains = [here - _mean(both) for here, both in zip(golds, zip(*(each["golds"] for each in pair)))]
    return MergeGain(kl, _mean(golds), found is not None, student_interval(gains))


def _merge(gain: MergeGain, rows: Mapping[str, Any]) -> str:
    gold, difference = f"a gold reward of {gain.gold:.2f}", gain.difference
    where = (
        f"At the KL of the two policies ({gain.kl:.1f} nats in the mean) the front has {gold}"
        if gain.at_kl
        else f"SLERP has {gold} at {rows['SLERP']['kl']:.1f} nats, its two policies are at {gain.kl:.1f}"
    )
    told = _side(difference, "{:.2f} above their mean", "{:.2f} below their mean", "not told apart from their mean")
    return f"{where}: {told} ({gain.gold - difference.value:.2f}; 95% over prompts: {_ends(difference)})."


def _liti(rows: Mapping[str, Any]) -> str:
    name = next(each for each in rows if each.startswith("LITI"))
    start, merge, back = rows["SFT"], rows["SLERP"], rows[name]
    kl = f"{100 * back['kl'] / merge['kl']:.0f}% of its KL" if merge["kl"] > 0 else "no KL"
    gain = student_interval([after - before for after, before in zip(merge["golds"], start["golds"])])
    if gain.low <= 0:  # a share of nothing
        said = f"SLERP's gold reward is {'below' if gain.high < 0 else 'not told apart from'} the SFT model's"
        return f"{said} ({merge['gold']:.2f} and {start['gold']:.2f}); {name} has {back['gold']:.2f}, at {kl}."
    return f"{name} keeps {100 * (back['gold'] - start['gold']) / gain.value:.0f}% of what SLERP gained, at {kl}."


def _free(rows: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> str:
    free, held, start = rows["no anchor"], rows["policy 1"], rows["SFT"]
    peak = max((point for point in points if point["line"] == "no anchor"), key=lambda point: point["gold"])
    best = f" (its best was {peak['gold']:.2f}, at step {peak['at']:.0f})" if peak["gold"] > free["gold"] else ""
    moved = f"Without its anchor policy 1 goes {free['kl']:.1f} nats away instead of {held['kl']:.1f}"
    if free["gold"] < start["gold"]:
        rewards = (
            f"its reward rises by {free['proxy']:.2f}, its gold reward falls from {start['gold']:.2f} to {free['gold']:.2f}"
        )
        return f"{moved}: {rewards}{best}. It hacked the reward."
    instead = f"for a gold reward of {free['gold']:.2f} instead of {held['gold']:.2f}"
    return f"{moved}, {instead}{best}." if free["gold"] < held["gold"] else f"{moved}, {instead}: nothing was hacked here."


# ---- words for numbers --------------------------------------------------------------------------------------------------


def _read(difference: Mapping[str, float], above: str, below: str, same: str) -> str:
    """Choose the words for a difference of shares, which is told in points."""
    points = Estimate(*(100 * difference[end] for end in ("value", "low", "high")))
    return _side(points, above.replace("{}", "{:.1f} points"), below.replace("{}", "{:.1f} points"), same)


def _side(difference: Estimate, above: str, below: str, same: str) -> str:
    if difference.low > 0:
        return above.format(difference.value)
    return below.format(-difference.value) if difference.high < 0 else same


def _between(a: Mapping[str, Any], b: Mapping[str, Any], kl: float) -> list[float]:
    share = (kl - a["kl"]) / (b["kl"] - a["kl"]) if b["kl"] > a["kl"] else 0.0
    return [(1 - share) * first + share * second for first, second in zip(a["golds"], b["golds"])]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _ends(difference: Estimate) -> str:
    return f"{difference.low:+.2f} to {difference.high:+.2f}"


def number(count: int) -> str:
    """Write a small number as a word."""
    return NUMBERS[count] if count < len(NUMBERS) else str(count)
