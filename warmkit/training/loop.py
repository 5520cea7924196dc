"""The one training loop: SFT and reward models differ in their loss alone, policies in the whole step.

What is random in a step follows from the seed and the step's number, and the order of the data from its own seed and the
epoch. So the state is weights, optimiser and a number, and a killed run resumes to the same bytes.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from warmkit.common.progress import Advance
from warmkit.common.random_streams import generator, seed_torch
from warmkit.common.records import Form
from warmkit.errors import TrainingError, UsageError, out_of_memory
from warmkit.modeling.precision import autocast
from warmkit.modeling.saving import check_savable
from warmkit.training.distributed import agreed, group, said_once, sum_gradients, summed
from warmkit.training.optimizers import build_optimizer, check_warmup, rate
from warmkit.training.recipe_sections import Optimization
from warmkit.training.run import RunDirectory, open_run
from warmkit.training.sharding import clip_gradients, load_states, whole
from warmkit.training.trackers import Trackers
from warmkit.training.trained_precision import with_precision

Recipe = TypeVar("Recipe")


class Learner(Protocol):
    """What learns, step by step.

    Attributes:
        model: The module whose parameters learn.
        examples: How many examples there are.
        section: The recipe's section, for advice.
    """

    model: Any
    examples: int
    section: str

    def evaluate(self) -> dict[str, float]:
        """Return numbers about held-out data."""
        ...

    def save(self, run: RunDirectory, name: str) -> None:
        """Write the model to a directory of the run."""
        ...


class Task(Learner, Protocol):
    """What is learned by the gradient of a loss over examples."""

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean loss of some examples, and numbers to log, sums over the examples."""
        ...

    def weight(self, rows: Sequence[int]) -> float:
        """Return what the mean in `loss` counts: examples, or their tokens."""
        ...

    def places(self, rows: Sequence[int]) -> str:
        """Say where examples stand, for messages."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a loop did.

    Attributes:
        steps: Updates in all.
        resumed: Updates that an earlier, killed run had done.
        seconds: Of this process.
        last: The last line of the metrics.
    """

    steps: int
    resumed: int
    seconds: float
    last: dict[str, Any]


def begin(
    recipe: Recipe, section: str, keys: Mapping[str, Form], force: bool
) -> tuple[Recipe, RunDirectory, dict[str, Any] | None]:
    """Open the run of a recipe; return the recipe with its precision, the run, and the summary of one that is finished."""
    with agreed():
        recipe = with_precision(recipe, section)
        run = open_run(recipe, force)
    with agreed():  # when the first process has cleared away what was there
        summary = run.summary(keys)
    if summary is None:
        source: Any = recipe
        with agreed():
            run.trackers = Trackers(recipe)
            check_savable(source.model.path)
    return recipe, run, summary


def train(task: Task, how: Optimization, run: RunDirectory, advance: Advance | None = None) -> Outcome:
    """Train a task to its last step, or go on where a killed run stopped.

    Raises:
        TrainingError: If the loss is not finite, or memory runs out; the last state stays.
        UsageError: If a step to keep is none of the run's, or the warm-up is longer than the run.
    """
    group().check_parts(_parts(range(how.batch_size), how.accumulation), task.section)
    task.model.train()
    return take_steps(task, how, run, functools.partial(_step, task, how, run), advance)


def take_steps(
    learner: Learner,
    how: Optimization,
    run: RunDirectory,
    step: Callable[[torch.optim.Optimizer, int, int], dict[str, Any]],
    advance: Advance | None = None,
    *,
    before: int = 0,
    others: Mapping[str, Any] | None = None,
    look: Callable[[dict[str, Any]], bool] = lambda values: False,
) -> Outcome:
    """Take every step that is left of a run; evaluate, log, keep models and save states on the way.

    Args:
        learner: What learns.
        how: Its optimisation.
        run: Where a killed run has left its state.
        step: Takes the step of a number, counted from 0, of so many, and returns its metrics.
        advance: Progress callback.
        before: Steps at the start in which the model does not learn (`value.warmup`).
        others: What else is part of the state, by name; None where there is no such thing.
        look: Called with the metrics before they are logged; may add to them, and says whether this was the last step.

    Raises:
        UsageError: If a step to keep is none of the run's, or the warm-up is longer than the run.
    """
    steps = how.steps_for(learner.examples)
    if late := [each for each in how.keep if not 1 <= each <= steps]:
        raise UsageError(f"{learner.section}.keep: expected steps between 1 and {steps}, found {late}")
    check_warmup(how, steps, learner.section, before)
    optimizer = build_optimizer(learner.model, how)
    with agreed():
        first = last = _resume(learner.model, optimizer, others or {}, run)
    run.open_metrics(first)
    tick = advance or (lambda done, total: None)
    tick(first, steps)
    began = time.perf_counter()
    values: dict[str, Any] = {}
    try:
        for number in range(first, steps):
            values, last = step(optimizer, number, steps), number + 1
            if how.evaluate_every and last % how.evaluate_every == 0:
                values |= learner.evaluate()
            stopping = look(values)
            run.log(values)
            if last in how.keep:
                learner.save(run, run.kept(last).name)
            if last % how.save_every == 0 and last < steps and not stopping:
                run.save_state(_state(learner.model, optimizer, others or {}, last))
            tick(1, steps)
            if stopping:
                break
    finally:
        run.close()
    return Outcome(last, first, time.perf_counter() - began, values or run.metrics()[-1])


def _step(
    task: Task, how: Optimization, run: RunDirectory, optimizer: torch.optim.Optimizer, step: int, steps: int
) -> dict[str, Any]:
    began = time.perf_counter()
    rows = batch_rows(task.examples, how.batch_size, how.order, step)
    seed_torch("dropout", how.seed, step, *group().draw)
    for each in optimizer.param_groups:
        each["lr"] = rate(how, step, steps)
    loss, logged, weight = 0.0, dict[str, float](), task.weight(rows)
    try:
        for part in map(group().mine, _parts(rows, how.accumulation)):
            with autocast(how.precision, _device(task.model)):
                mean, numbers = task.loss(part)
            share = task.weight(part) / weight
            (mean * share * group().scale).backward()
            loss += float(mean.detach()) * share
            for name, value in numbers.items():
                logged[name] = logged.get(name, 0.0) + value / len(rows)
        learned = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
        sum_gradients(learned)
        norm = clip_gradients(learned, how.clip or math.inf)
        loss, *sums = summed({"loss": loss, **logged}).values()
        logged = dict(zip(logged, sums))
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise said_once(_not_finite(task, how, rows, step, loss, run))
        optimizer.step()
    except (MemoryError, RuntimeError) as error:
        raise with_advice(error, task.section, step) from None
    optimizer.zero_grad()
    seconds = time.perf_counter() - began
    return {
        "step": step + 1,
        "loss": loss,
        **logged,
        "lr": optimizer.param_groups[0]["lr"],
        "grad_norm": norm,
        "examples_per_second": len(rows) / seconds,
    }


def batch_rows(examples: int, size: int, order: int, step: int) -> list[int]:
    """Return the examples of a step: every epoch is a permutation that follows from the seed and the epoch's number.

    Batches run over the end of an epoch, so that every example is seen equally often.

    Examples:
        >>> sorted(batch_rows(6, 3, order=0, step=0) + batch_rows(6, 3, order=0, step=1))
        [0, 1, 2, 3, 4, 5]
    """
    rows: list[int] = []
    place = step * size
    while len(rows) < size:
        epoch, inside = divmod(place + len(rows), examples)
        rows += _permutation(examples, order, epoch)[inside : inside + size - len(rows)].tolist()
    return rows


@functools.lru_cache(maxsize=2)  # a batch lies in one epoch or two
def _permutation(examples: int, order: int, epoch: int) -> NDArray[np.int64]:
    return generator("data order", order, epoch).permutation(examples)


def _parts(rows: Sequence[int], count: int) -> list[Sequence[int]]:
    size = -(-len(rows) // count)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device


def _state(model: Any, optimizer: torch.optim.Optimizer, others: Mapping[str, Any], step: int) -> dict[str, Any]:
    more = {name: {} if each is None else each.state_dict() for name, each in others.items()}
    return {"step": step, "model": whole(model.state_dict()), "optimizer": whole(optimizer.state_dict()), **more}


def _resume(model: Any, optimizer: torch.optim.Optimizer, others: Mapping[str, Any], run: RunDirectory) -> int:
    state = run.load_state()
    if state is None:
        return 0
    with run.restoring():
        load_states(model, optimizer, state)
        for name, each in others.items():
            if each is not None:
                each.load_state_dict(state[name])
    return state["step"]


def _not_finite(task: Task, how: Optimization, rows: Sequence[int], step: int, loss: float, run: RunDirectory) -> TrainingError:
    saved = step // how.save_every * how.save_every
    kept = f"; the state of step {saved} is kept in {run.path}" if saved else ""
    what = "the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
    return TrainingError(
        f"step {step + 1}: {what} in the batch of "
        f"{task.places(rows)}{kept}. Lower {task.section}.lr, raise {task.section}.warmup, or look at these rows"
    )


def with_advice(error: Exception, section: str, step: int) -> Exception:
    """Return the error to raise: what to change where memory ran out, else the error itself."""
    if out_of_memory(error):
        return TrainingError(
            f"step {step + 1}: out of memory; raise {section}.accumulation (the same result in smaller parts), set "
            f"{section}.gradient_checkpointing: true, or lower model.max_length or {section}.batch_size"
        )
    return error
