"""Scores of models by a command that prints a number, each taken once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warmkit.common.records import having, is_number
from warmkit.engine.contents import contents, digest_of, recorded_contents
from warmkit.pipelines.steps import Steps
from warmkit.training.command_line import check_template
from warmkit.training.recipe_sections import ChoiceSection
from warmkit.verbs.greedy_soup import run_score
from warmkit.verbs.merge import soup

MODEL = "model"
SCORE = having(score=is_number)


def check_evaluate(line: str | None) -> None:
    """Check that a score command says where the model goes, and nothing else.

    Raises:
        UsageError: If not.
    """
    if line is not None:
        check_template(line, [MODEL], "command.evaluate", [MODEL])


def take_score(steps: Steps, name: str, line: str, model: Path) -> float:
    """Return the score of a model, from its manifest where it is known.

    Args:
        steps: Of the pipeline.
        name: Of the step.
        line: The command.
        model: Its directory.

    Raises:
        ScoreError: If the command fails, or prints no finite number.
    """
    digest = digest_of(contents(str(model), recorded_contents(model)))

    def work() -> dict[str, Any]:
        return {"score": run_score(line, model, f"{{{MODEL}}}")}

    return steps.take(name, {"command": line, "model": digest}, work, SCORE)["score"]


class ScoredPool:
    """Models of a pool and averages of them, scored by a command.

    Args:
        models: By name.
        line: The command.
        out: Directory of the pipeline.
    """

    def __init__(self, models: Mapping[str, str], line: str, out: Path) -> None:
        self.models, self.line, self.out, self.steps = models, line, out, Steps(out / "steps")

    def score(self, names: Sequence[str]) -> float:
        """Return the score of one model, or of the average of several."""
        names = sorted(names)
        if len(names) == 1:
            return take_score(self.steps, f"score-{names[0]}", self.line, Path(self.models[names[0]]))
        digests = {name: recorded_contents(Path(self.models[name])) or {} for name in names}
        inputs = {"command": self.line, "models": {name: digest_of(each) for name, each in digests.items()}}

        def work() -> dict[str, Any]:
            candidate = self.out / "candidate"
            shutil.rmtree(candidate, ignore_errors=True)
            soup([self.models[name] for name in names], candidate)
            try:
                return {"score": run_score(self.line, candidate, f"{{{MODEL}}}")}
            finally:
                shutil.rmtree(candidate, ignore_errors=True)

        short = "+".join(name.removeprefix("run-") for name in names)
        return self.steps.take(f"score-average-{short}", inputs, work, SCORE)["score"]

    def choose(self, warm: ChoiceSection) -> dict[str, Any]:
        """Rank the models and choose what is averaged; only what the choice needs is scored.

        Returns:
            `ranked`, `individuals` (the score of each), `tried` (averages that were scored: `members` and `score`), `members`
            of the final model, and its `score`.
        """
        alone = {name: self.score([name]) for name in self.models}
        ranked = sorted(alone, key=lambda name: -alone[name])
        tried: list[dict[str, Any]] = []

        def scored(names: list[str]) -> float:
            found = self.score(names)
            tried.append({"members": names, "score": found})
            return found

        members = ranked[: warm.top(len(ranked))] if warm.final == "top" else ranked
        if warm.final == "best":
            members = max((ranked[:m] for m in range(1, len(ranked) + 1)), key=scored)
        if warm.final == "greedy":
            members = self._greedy(ranked, alone[ranked[0]], scored)
        score = self.score(members)
        return {"ranked": ranked, "individuals": alone, "tried": tried, "members": members, "score": score}

    def _greedy(self, ranked: list[str], best: float, scored: Any) -> list[str]:
        members = ranked[:1]
        for name in ranked[1:]:
            if (found := scored([*members, name])) >= best:
                members, best = [*members, name], found
        return members
