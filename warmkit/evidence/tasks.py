"""Tasks that wait for each other, several at a time, in processes; what they have done is seen while they work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

from warmkit.errors import TrainingError
from warmkit.evidence.workers import ENDED, workers

Advance = Callable[[float, float], None]
"""Called by a task with what it did since the last call, and with all there is to do, in any unit."""
POLL = 0.25  # seconds
_done: Any = None
"""What part of every task is done, in memory that the processes share."""


@dataclass(frozen=True)
class Task:
    """Something to do.

    Attributes:
        name: Of its own.
        part: Of the whole, for whoever watches.
        cost: Its share of the work, in any unit.
        work: Does it, or finds it done; called with a progress callback, in a process that must know it by its name.
        after: Names of the tasks whose results it needs.
    """

    name: str
    part: str
    cost: float
    work: Callable[[Advance], None]
    after: Sequence[str] = ()


def carry_out(
    tasks: Sequence[Task],
    jobs: int,
    context: BaseContext,
    advance: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Do all tasks, at most `jobs` at a time; of those that are ready the first in the list comes first.

    Args:
        tasks: What to do; a task comes after those that it needs.
        jobs: Processes; 0 does everything in this one, in the order of the list.
        context: That starts them.
        advance: Called with the cost that was done since the last call, and that of all.
        tell: Called with the part of the first task that is not done, whenever that is another one.

    Returns:
        Seconds of a processor that each task took, by name.

    Raises:
        TrainingError: If a process ended without a result; what is finished stays.
    """
    done: Any = context.Array("d", len(tasks), lock=False) if jobs else [0.0] * len(tasks)  # pyright: ignore[reportAttributeAccessIssue]
    watch, seconds = _Watch(tasks, done, advance, tell), dict[str, float]()
    if not jobs:
        _share(done)
        for place, task in enumerate(tasks):
            watch.look(seconds)
            seconds[task.name] = _perform(task.work, place)
    elif tasks:
        with workers(jobs, context, _share, done) as pool:
            _divide(tasks, jobs, pool, seconds, watch)
    watch.look(seconds)
    return seconds


def _divide(tasks: Sequence[Task], jobs: int, pool: ProcessPoolExecutor, seconds: dict[str, float], watch: _Watch) -> None:
    running: dict[Future[float], str] = {}
    places = {task.name: place for place, task in enumerate(tasks)}
    while len(seconds) < len(tasks):
        started = {*seconds, *running.values()}
        ready = [task for task in tasks if task.name not in started and seconds.keys() >= {*task.after}]
        for task in ready[: jobs - len(running)]:
            running[pool.submit(_perform, task.work, places[task.name])] = task.name
        watch.look(seconds)
        for future in wait(running, POLL, FIRST_COMPLETED).done:
            seconds[running.pop(future)] = _result(future)


class _Watch:
    """Tells how far tasks are.

    Args:
        tasks: All of them.
        done: The part of each that is done.
        advance: See `carry_out`.
        tell: See `carry_out`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        done: Sequence[float],
        advance: Callable[[int, int], None] | None,
        tell: Callable[[str], None] | None,
    ) -> None:
        self.tasks, self.done, self.shown, self.part = tasks, done, 0, ""
        self.total = round(sum(task.cost for task in tasks))
        self.advance, self.tell = advance or (lambda done, total: None), tell or (lambda part: None)

    def look(self, finished: Mapping[str, float]) -> None:
        left = [task.part for task in self.tasks if task.name not in finished]
        if left and left[0] != self.part:
            self.part = left[0]
            self.tell(self.part)
        costs = [task.cost * (1 if task.name in finished else min(1, part)) for task, part in zip(self.tasks, self.done)]
        new = (round(sum(costs)) if left else self.total) - self.shown
        if new or not self.shown:
            self.advance(new, self.total)
        self.shown += new


def _result(future: Future[float]) -> float:
    try:
        return future.result()
    except BrokenProcessPool:
        raise TrainingError(ENDED) from None


def _share(done: Any) -> None:
    global _done  # noqa: PLW0603 - a process has one
    _done = done


def _perform(work: Callable[[Advance], None], place: int) -> float:
    began = time.process_time()

    def advance(new: float, total: float) -> None:
        _done[place] += new / total

    work(advance)
    return time.process_time() - began
