"""The one training loop: SFT and reward models differ in their loss alone.

What is random in a step follows from the seed and the step's number, and the order of the data from its own seed and the
epoch. So the state is weights, optimiser and a number, and a killed run resumes to the same bytes.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from warmkit.common.random_streams import generator, seed_torch
from warmkit.errors import TrainingError, UsageError, out_of_memory
from warmkit.modeling.precision import autocast
from warmkit.training.distributed import agreed, group, said_once, sum_gradients, summed
from warmkit.training.optimizers import build_optimizer, check_warmup, rate
from warmkit.training.recipe_sections import Optimization
from warmkit.training.run import RunDirectory
from warmkit.training.sharding import clip_gradients, load_states, whole

Advance = Callable[[int, int], None]
"""Called with the steps done since the last call and the total to do."""


class Task(Protocol):
    """What is learned.

    Attributes:
        model: The module whose parameters learn.
        examples: How many examples there are.
        section: The recipe's section, for advice.
    """

    model: Any
    examples: int
    section: str

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean loss of some examples, and numbers to log, sums over the examples."""
        ...

    def weight(self, rows: Sequence[int]) -> float:
        """Return what the mean in `loss` counts: examples, or their tokens."""
        ...

    def places(self, rows: Sequence[int]) -> str:
        """Say where examples stand, for messages."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Return numbers about held-out data."""
        ...

    def save(self, run: RunDirectory, name: str) -> None:
        """Write the model to a directory of the run."""
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


def train(task: Task, how: Optimization, run: RunDirectory, advance: Advance | None = None) -> Outcome:
    """Train a task to its last step, or go on where a killed run stopped.

    Raises:
        TrainingError: If the loss is not finite, or memory runs out; the last state stays.
        UsageError: If a step to keep is none of the run's, or the warm-up is longer than the run.
    """
    steps = how.steps_for(task.examples)
    if late := [step for step in how.keep if not 1 <= step <= steps]:
        raise UsageError(f"{task.section}.keep: expected steps between 1 and {steps}, found {late}")
    check_warmup(how, steps, task.section)
    group().check_parts(_parts(range(how.batch_size), how.accumulation), task.section)
    optimizer = build_optimizer(task.model, how)
    with agreed():
        first = _resume(task.model, optimizer, run)
    run.open_metrics(first)
    tick = advance or (lambda done, total: None)
    tick(first, steps)
    began = time.perf_counter()
    values: dict[str, Any] = {}
    task.model.train()
    try:
        for step in range(first, steps):
            values = _step(task, how, optimizer, step, steps, run)
            if how.evaluate_every and (step + 1) % how.evaluate_every == 0:
                values |= task.evaluate()
            run.log(values)
            if step + 1 in how.keep:
                task.save(run, run.kept(step + 1).name)
            if (step + 1) % how.save_every == 0 and step + 1 < steps:
                run.save_state(_state(task.model, optimizer, step + 1))
            tick(1, steps)
    finally:
        run.close()
    return Outcome(steps, first, time.perf_counter() - began, values or run.metrics()[-1])


def _step(
    task: Task, how: Optimization, optimizer: torch.optim.Optimizer, step: int, steps: int, run: RunDirectory
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


def _state(model: Any, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Any]:
    return {"step": step, "model": whole(model.state_dict()), "optimizer": whole(optimizer.state_dict())}


def _resume(model: Any, optimizer: torch.optim.Optimizer, run: RunDirectory) -> int:
    state = run.load_state()
    if state is None:
        return 0
    with run.restoring():
        load_states(model, optimizer, state)
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
