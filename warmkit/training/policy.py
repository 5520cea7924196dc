"""Train a policy: REINFORCE on rewards, with a KL to an anchor that may follow the policy.

What is random in a step follows from the seed and the step's number, and the order of the prompts from its own seed and the
epoch. So the state is weights, optimisers, anchor and a number, and a killed run resumes to the same bytes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from warmkit.common.display import Displayed
from warmkit.common.progress import Advance, progress
from warmkit.common.records import dict_of, either, having, is_anything, is_natural, is_number, is_text, list_of, maybe
from warmkit.errors import UsageError
from warmkit.modeling.generation_config import not_followed
from warmkit.modeling.saving import check_savable
from warmkit.training.distributed import agreed, group
from warmkit.training.loop import Outcome
from warmkit.training.optimizers import build_optimizer, check_warmup
from warmkit.training.policy_opening import open_policy
from warmkit.training.policy_recipe import PolicyRecipe
from warmkit.training.policy_step import take_step
from warmkit.training.policy_task import PolicyTask
from warmkit.training.run import RunDirectory, open_run
from warmkit.training.run_warnings import Watch
from warmkit.training.sharding import load_states, whole
from warmkit.training.telling import Tell
from warmkit.training.trackers import Trackers
from warmkit.training.trained_precision import with_precision

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
    with agreed():
        recipe = with_precision(recipe, "policy")
        run = open_run(recipe, force)
    with agreed():  # when the first process has cleared away what was there
        summary = run.summary(SUMMARY)
    if summary is None:
        with agreed():
            run.trackers = Trackers(recipe)
            check_savable(recipe.model.path)
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
    how = task.how
    steps = how.steps_for(len(task.data["train"]))
    if late := [step for step in how.keep if not 1 <= step <= steps]:
        raise UsageError(f"policy.keep: expected steps between 1 and {steps}, found {late}")
    check_warmup(how, steps, "policy", 0 if task.value is None else task.value.warmup)
    group().check_parts([range(how.batch_size)], "policy", how.accumulation if group().sharded else 1)
    optimizer, watch = build_optimizer(task.model, how), Watch()
    with agreed():
        first = last = _resume(task, optimizer, watch, run)
    run.open_metrics(first)
    tick = advance or (lambda done, total: None)
    tick(first, steps)
    began = time.perf_counter()
    values: dict[str, Any] = {}
    try:
        for step in range(first, steps):
            values, last = take_step(task, optimizer, step, steps), step + 1
            stopping = how.kl_ceiling is not None and values["kl_sft"] > how.kl_ceiling
            if how.evaluate_every and last % how.evaluate_every == 0:
                values |= task.evaluate()
            if warnings := watch.look(values):
                values["warnings"] = warnings
            run.log(values)
            if last in how.keep:
                task.save(run, run.kept(last).name)
            if last % how.save_every == 0 and last < steps and not stopping:
                run.save_state(_state(task, optimizer, watch, last))
            tick(1, steps)
            if stopping:
                break
    finally:
        run.close()
    return Outcome(last, first, time.perf_counter() - began, values or run.metrics()[-1])


def _state(task: PolicyTask, optimizer: torch.optim.Optimizer, watch: Watch, step: int) -> dict[str, Any]:
    return {
        "step": step,
        "model": whole(task.model.state_dict()),
        "optimizer": whole(optimizer.state_dict()),
        "watch": watch.counts,
        "anchor": {} if task.anchor is None else task.anchor.state_dict(),
        "value": {} if task.value is None else task.value.state_dict(),
    }


def _resume(task: PolicyTask, optimizer: torch.optim.Optimizer, watch: Watch, run: RunDirectory) -> int:
    state = run.load_state()
    if state is None:
        return 0
    with run.restoring():
        load_states(task.model, optimizer, state)
        watch.load(state["watch"])
        if task.anchor is not None:
            task.anchor.load_state_dict(state["anchor"])
        if task.value is not None:
            task.value.load_state_dict(state["value"])
    return state["step"]


def _summary(task: PolicyTask, run: RunDirectory, outcome: Outcome) -> dict[str, Any]:
    """Return what a run did, the final evaluation and every warning with its step."""
    planned = task.how.steps_for(len(task.data["train"]))
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
