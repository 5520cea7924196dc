"""Train a policy: REINFORCE on rewards, with a KL to an anchor that may follow the policy.

What is random in a step follows from the seed and the step's number, and the order of the prompts from its own seed and the
epoch. So the state is weights, optimisers, anchor and a number, and a killed run resumes to the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from warmkit.common.display import Displayed
from warmkit.common.progress import Advance, progress
from warmkit.common.records import dict_of, either, having, is_anything, is_natural, is_number, is_text, list_of, maybe
from warmkit.modeling.generation_config import not_followed
from warmkit.training.distributed import agreed, group
from warmkit.training.loop import Outcome, begin, take_steps
from warmkit.training.policy_opening import open_policy
from warmkit.training.policy_recipe import PolicyRecipe
from warmkit.training.policy_step import take_step
from warmkit.training.policy_task import PolicyTask
from warmkit.training.run import RunDirectory
from warmkit.training.run_warnings import Watch
from warmkit.training.telling import Tell

SUMMARY = {
    "steps": is_natural,
    "stopped": maybe(is_text),
    "data": dict_of(having(prompts=is_natural, truncated=is_natural)),
    "not_followed": maybe(dict_of(is_anything)),
    "warnings": list_of(is_text),
    "last": dict_of(either(is_number, list_of(is_text))),
}
"""What `summary.json` holds at least."""


@dataclass(frozen=True, repr=False)
class PolicyResult(Displayed):
    """Result of training a policy.

    Attributes:
        path: The policy's directory.
        kept: Directories of the policies kept on the way, by step.
        summary: What `summary.json` holds.
        resumed: Steps that an earlier, killed run had done; all of them where it was finished before.
    """

    path: Path
    kept: dict[int, Path]
    summary: dict[str, Any]
    resumed: int


def train_policy(
    recipe: PolicyRecipe, *, force: bool = False, advance: Advance | bool | None = None, tell: Tell | None = None
) -> PolicyResult:
    """Train a policy, or go on where a killed run stopped; a finished run is returned as it is.

    Args:
        recipe: Of the run.
        force: Delete a run of another recipe that lies there.
        advance: Called with the steps since the last call and the total; True draws a bar, False none; by default there is
            one in a notebook.
        tell: Called with a line about prompts that may be meant otherwise.

    Raises:
        DataError: If a prompt cannot be used.
        ScoreError: If a reward fails, or gives numbers that cannot be used.
        TrainingError: If the gradient is not finite, or memory runs out; the last state stays.
        ChangedError: If the directory holds a run that began with other weights.
        FormatError: If a file of it is of another form.
        OutputError: If it holds something else.
        UsageError: If a tracker is not installed.

    Source: WARP (Ramé et al., 2024), algorithm 1, lines 4-10; WARM (Ramé et al., 2024), appendix C.4 (the value baseline).
    """
    recipe, run, summary = begin(recipe, "policy", SUMMARY, force)
    if summary is None:
        with agreed():
            task = open_policy(recipe, tell)
        with progress(advance, "training", "steps") as tick:
            outcome = train(task, run, tick)
        task.save(run, run.model.name)
        summary = run.finish(_summary(task, run, outcome))
        resumed = outcome.resumed
    else:
        resumed = int(summary["steps"])
    kept = {step: run.kept(step) for step in recipe.policy.keep if step <= int(summary["steps"])}
    return PolicyResult(run.model, kept, summary, resumed)


def train(task: PolicyTask, run: RunDirectory, advance: Advance | None = None) -> Outcome:
    """Take every step of the policy gradient that is left, or fewer if the KL reaches its ceiling."""
    how, watch = task.how, Watch()
    group().check_parts([range(how.batch_size)], task.section, how.accumulation if group().sharded else 1)

    def look(values: dict[str, Any]) -> bool:
        if warnings := watch.look(values):
            values["warnings"] = warnings
        return how.kl_ceiling is not None and values["kl_sft"] > how.kl_ceiling

    others = {"watch": watch, "anchor": task.anchor, "value": task.value}
    before = 0 if task.value is None else task.value.warmup
    return take_steps(task, how, run, partial(take_step, task), advance, before=before, others=others, look=look)


def _summary(task: PolicyTask, run: RunDirectory, outcome: Outcome) -> dict[str, Any]:
    """Return what a run did, the final evaluation and every warning with its step."""
    planned = task.how.steps_for(task.examples)
    return {
        "steps": outcome.steps,
        "stopped": "kl_ceiling" if outcome.steps < planned else None,
        "seconds": outcome.seconds,
        "data": {name: {"prompts": len(each), "truncated": each.truncated} for name, each in task.data.items()},
        "ends": task.evaluator.encoder.tokenizer.convert_ids_to_tokens(list(task.evaluator.sampling.ends)),
        "not_followed": not_followed(task.model),
        "warnings": [f"step {line['step']}: {text}" for line in run.metrics() for text in line.get("warnings", [])],
        **task.evaluate(),
        "last": outcome.last,
    }
