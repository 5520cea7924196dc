"""Our side of `tests.benchmarks.policy`: prints what `trl_policy.py` prints.

python -m tests.benchmarks.warmkit_policy plans.json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import warmkit
from warmkit.evaluation import policy_evaluator
from warmkit.evaluation.policy_evaluator import Completion, PolicyEvaluator, Term
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.training.anchor import Anchor
from warmkit.training.policy import train_policy
from warmkit.training.policy_recipe import PolicyModelSection, PolicyRecipe, PolicySection, PromptsSection
from warmkit.training.recipe_sections import RunOutput


@contextmanager
def timed(owner: Any, name: str, now: Callable[[], float]) -> Iterator[list[float]]:
    """Let a method note its seconds."""
    seconds: list[float] = []
    function = getattr(owner, name)

    def call(*arguments: Any, **more: Any) -> Any:
        began = now()
        result = function(*arguments, **more)
        seconds.append(now() - began)
        return result

    with patch.object(owner, name, call):
        yield seconds


def replay(steps: Sequence[Sequence[list[int]]]) -> Callable[..., list[Completion]]:
    """Return a sampler that hands out given completions."""
    left = iter(steps)

    def sample(model: Any, prompts: Any, how: Any, generator: Any = None) -> list[Completion]:
        return [Completion(ids, ids[-1] in how.ends) for ids in next(left)]

    return sample


def recipe(plan: dict[str, Any]) -> PolicyRecipe:
    how = PolicySection(
        lr=plan["lr"],
        precision="float32",  # as TRL's side
        steps=plan["steps"],
        warmup=0,
        batch_size=plan["batch"],
        samples=plan["samples"],
        baseline="leave-one-out",
        beta=plan["beta"],
        anchor=plan["anchor"],
        temperature=plan["temperature"],
        max_new_tokens=plan["max_new_tokens"],
        save_every=plan["steps"] + 1,
    )
    reward = RewardTerm(function="tests.benchmarks.policy:share")
    return PolicyRecipe(
        PolicyModelSection(plan["model"], plan["model"] if plan["apart"] else None),
        PromptsSection(plan["train"]),
        [reward],
        RunOutput(plan["output"]),
        how,
    )


def run(plan: dict[str, Any]) -> dict[str, Any]:
    now = time.process_time if plan["cpu"] else time.perf_counter
    times: list[float] = []
    with (
        timed(PolicyEvaluator, "roll_out", now) as sampling,
        timed(Term, "__call__", now) as scoring,
        timed(Anchor, "update", now) as anchor,
        patch.object(policy_evaluator, "sample", replay(plan["sampled"]) if plan["sampled"] else policy_evaluator.sample),
    ):
        train_policy(recipe(plan), advance=lambda done, total: times.append(now()))
    lines = [json.loads(line) for line in (Path(plan["output"]) / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {
        "version": f"warmkit {warmkit.__version__}",
        "times": times,
        "generation": [whole - part for whole, part in zip(sampling, scoring, strict=True)],
        "scoring": scoring,
        "anchor": anchor or [0.0] * len(lines),
        "lengths": [line["length"] for line in lines],
        "metrics": lines,
    }


def main() -> None:
    for plan in json.loads(Path(sys.argv[1]).read_text("utf-8")):
        print(json.dumps(run(plan)))


if __name__ == "__main__":
    main()
