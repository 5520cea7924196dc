"""Reward models of the demo: each alone, the best, the mean of members, WA and ENS, and how far these differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from warmkit.evaluation.accuracy import Array, interval, pairwise_accuracy
from warmkit.evaluation.averaging import ByData, Contest
from warmkit.evaluation.ranking_pairs import RANKING, VALIDATION
from warmkit.pipelines.warm_choice import Choice

HELD_OUT = (RANKING, VALIDATION, "ood")
SWAPPED = "train corrupt"
PROBE, BEST, MEAN, WARM, ENSEMBLE, ALL = (
    "probe only",
    "best single",
    "mean of the members",
    "WARM",
    "ensemble",
    "ensemble of all",
)
Row = dict[str, Any]


def of_choice(contest: Contest, choice: Choice) -> dict[str, Any]:
    """Return the rows of all models of a choice, and how accurate WARM is beside the others, on the validation pairs.

    Args:
        contest: Of all runs and the probe, on the held-out data.
        choice: Of the ranking pairs, the members of WARM among it.
    """
    names, members = sorted(choice.ranked), choice.members
    alone = {name: contest.individual(name) for name in names}
    models = {
        PROBE: ([contest.individual("probe")], 1),
        **{name: ([each], 1) for name, each in alone.items()},
        BEST: ([alone[choice.ranked[0]]], 1),
        MEAN: ([alone[name] for name in members], 1),
        WARM: ([contest.average(members)], 1),
        ENSEMBLE: ([contest.ensemble(members)], len(members)),
        ALL: ([contest.ensemble(names)], len(names)),
    }
    right = {name: _right(found, VALIDATION) for name, (found, _) in models.items()}
    return {
        "reward_models": [_row(name, found, cost, HELD_OUT) for name, (found, cost) in models.items()],
        "best": choice.ranked[0],
        "members": members,
        "measured": {name: len(contest.data[name]) for name in (RANKING, VALIDATION)},
        "notes": choice.notes,
        "differences": {
            **{f"{WARM}, {other}": _difference(right[WARM], right[other]) for other in (MEAN, BEST, PROBE)},
            **{f"{other}, {WARM}": _difference(right[other], right[WARM]) for other in (ENSEMBLE, ALL)},
        },
    }


def of_hearts(contest: Contest, names: Sequence[str]) -> dict[str, Any]:
    """Return what models that learned pairs by heart make of the swapped ones and of others, each, WA and ENS of all."""
    found = {name: contest.individual(name) for name in names}
    models = {
        **{name: ([each], 1) for name, each in found.items()},
        MEAN: (list(found.values()), 1),
        WARM: ([contest.average(names)], 1),
        ENSEMBLE: ([contest.ensemble(names)], len(names)),
    }
    data = (SWAPPED, VALIDATION)
    return {
        "memorised": [_row(name, each, cost, data) for name, (each, cost) in models.items()],
        "memorised_pairs": len(contest.data[SWAPPED]),
        "memorised_differences": {
            name: _difference(_right(models[WARM][0], name), _right(models[ENSEMBLE][0], name)) for name in data
        },
    }


def _row(name: str, models: Sequence[ByData], cost: int, data: Sequence[str]) -> Row:
    accuracies = {each: float(np.mean([pairwise_accuracy(model[each]) for model in models])) for each in data}
    return {"model": name, "models": cost, **accuracies}


def _right(models: Sequence[Mapping[str, Any]], data: str) -> Array:
    """Return how often each pair is ranked right, [n]."""
    return np.mean([model[data].correct for model in models], axis=0)


def _difference(a: Array, b: Array) -> dict[str, float]:
    """Return the mean of a - b with its 95% interval over pairs."""
    return dataclasses.asdict(interval(a - b))
