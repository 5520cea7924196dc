"""Made-up documents of the demo."""

from __future__ import annotations

from typing import Any

ACCURACIES = {
    "probe only": 0.822, "run-1": 0.801, "run-2": 0.803, "run-3": 0.800, "run-4": 0.802, "run-5": 0.813, "run-6": 0.802,
    "best single": 0.800, "mean of the members": 0.804, "WARM": 0.820, "ensemble": 0.816, "ensemble of all": 0.830,
}  # fmt: skip
COSTS = {"ensemble": 3, "ensemble of all": 6}
MEMORISED = {
    "run-1": (0.85, 0.64),
    "run-2": (0.88, 0.65),
    "mean of the members": (0.865, 0.645),
    "WARM": (0.54, 0.73),
    "ensemble": (0.97, 0.696),
}
SPREAD = (-0.02, 0.0, 0.02)
"""What prompts differ by."""
FRONT = {0.0: (0.0, 0.3), 0.3: (0.6, 0.8), 0.8: (2.5, 1.1), 1.0: (3.0, 1.3), 1.2: (4.0, 1.25)}
POLICIES = {
    "SFT": (0.0, 0.3, 0.0), "policy 1": (2.8, 1.1, 1.11), "policy 2": (2.7, 1.1, 1.1), "no anchor": (18.9, -1.4, 1.32),
    "SLERP": (3.0, 1.3, 1.17), "LITI 0.3": (0.6, 0.8, 0.6),
}  # fmt: skip


def demo_document(seed: int = 0) -> dict[str, Any]:
    """Return what a demo might have found: WARM as good as its ensemble, less memory, a merge that helps, a hacked reward."""
    none = {"value": 0.0, "low": -0.01, "high": 0.01}
    return {
        "seed": seed,
        "reward_models": [
            {"model": name, "models": COSTS.get(name, 1), "ranking": 0.8, "validation": each, "ood": 0.7}
            for name, each in ACCURACIES.items()
        ],
        "best": "run-3",
        "members": ["run-3", "run-1", "run-5"],
        "measured": {"ranking": 2064, "validation": 1936},
        "notes": [],
        "differences": {
            f"{first}, {second}": dict(none)
            for first, second in (
                ("WARM", "mean of the members"),
                ("WARM", "best single"),
                ("WARM", "probe only"),
                ("ensemble", "WARM"),
                ("ensemble of all", "WARM"),
            )
        },
        "memorised": [
            {"model": name, "models": 2 if name == "ensemble" else 1, "train corrupt": swapped, "validation": right}
            for name, (swapped, right) in MEMORISED.items()
        ],
        "memorised_pairs": 100,
        "memorised_differences": {"train corrupt": dict(none), "validation": dict(none)},
        "policies": [
            {"policy": name, "kl": kl, "gold": gold, "proxy": proxy, "golds": [gold] * len(SPREAD)}
            for name, (kl, gold, proxy) in POLICIES.items()
        ],
        "points": [*_front(), *_free()],
        "examples": [
            {"prompt": "sea war :", "policy": "SFT", "answer": "the wave is truly great", "gold": 0.3},
            {"prompt": "sea war :", "policy": "no anchor", "answer": "wave truly truly surely surely", "gold": -2.7},
        ],
    }  # fmt: skip


def _front() -> list[dict[str, Any]]:
    return [
        {"line": "SLERP and LITI", "at": eta, "kl": kl, "gold": gold, "proxy": gold, "golds": [gold + each for each in SPREAD]}
        for eta, (kl, gold) in FRONT.items()
    ]


def _free() -> list[dict[str, Any]]:
    lines = {
        "policy 1": ((0.0, 0.3), (2.8, 1.1)),
        "policy 2": ((0.0, 0.3), (2.7, 1.1)),
        "no anchor": ((0.0, 0.3), (3.6, 1.0), (18.9, -1.4)),
    }
    return [
        {"line": name, "at": 20.0 * place, "kl": kl, "gold": gold, "proxy": kl / 10, "golds": [gold] * len(SPREAD)}
        for name, points in lines.items()
        for place, (kl, gold) in enumerate(points)
    ]
