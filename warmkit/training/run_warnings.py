"""Warnings about runs that go nowhere, while they go."""

from __future__ import annotations

from collections.abc import Mapping

PATIENCE = 20
WARNINGS = {
    "constant": "the reward was the same for every completion of {} steps in a row, so nothing is learned; look at rewards",
    "endless": "no completion of {} steps in a row ended by itself; raise policy.max_new_tokens or policy.eos_penalty",
    "empty": "every completion of {} steps in a row was empty; raise policy.beta, lower policy.lr, or look at rewards",
}


class Watch:
    """Counts the steps in a row in which something is wrong.

    Attributes:
        counts: Steps, by the name of what is wrong.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(WARNINGS, 0)

    def look(self, values: Mapping[str, float]) -> list[str]:
        """Return the warnings that are due after a step, each once a spell.

        Args:
            values: The step's metrics: `reward_std` (not there for one completion), `without_eos`, `length`.
        """
        wrong = {
            "constant": values.get("reward_std") == 0.0,
            "endless": values["without_eos"] == 1.0,
            "empty": values["length"] == 1.0 and values["without_eos"] == 0.0,
        }
        self.counts = {name: self.counts[name] + 1 if wrong[name] else 0 for name in self.counts}
        return [text.format(PATIENCE) for name, text in WARNINGS.items() if self.counts[name] == PATIENCE]

    def state_dict(self) -> dict[str, int]:
        """Return the counts."""
        return self.counts

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on with the counts of a killed run."""
        self.counts = {name: int(state[name]) for name in self.counts}
