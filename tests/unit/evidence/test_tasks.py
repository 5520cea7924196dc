"""Tasks are done after those that they need, in processes or in this one, and are seen while they work."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from warmkit.errors import DataError, TrainingError
from warmkit.evidence.tasks import Advance, Task, carry_out
from warmkit.evidence.workers import forking


@dataclass(frozen=True)
class Note:
    """Notes that a task was done, and by whom, if what it needs has been."""

    folder: Path
    name: str
    needs: tuple[str, ...] = ()

    def __call__(self, advance: Advance) -> None:
        assert all((self.folder / each).exists() for each in self.needs)
        advance(1, 2)
        (self.folder / self.name).write_text(str(os.getpid()))
        advance(1, 2)


def tasks_in(folder: Path) -> list[Task]:
    needs: dict[str, tuple[str, ...]] = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    parts = {"a": "first", "b": "second", "c": "second", "d": "third"}
    return [Task(name, parts[name], 10, Note(folder, name, each), each) for name, each in needs.items()]


@pytest.mark.parametrize("jobs", [0, 2])
def test_all_tasks_are_done_and_seen(tmp_path: Path, jobs: int) -> None:
    calls: list[tuple[int, int]] = []
    parts: list[str] = []
    seconds = carry_out(tasks_in(tmp_path), jobs, forking([]), lambda *call: calls.append(call), parts.append)
    assert sorted(seconds) == sorted(each.name for each in tmp_path.iterdir()) == ["a", "b", "c", "d"]
    assert all(each >= 0 for each in seconds.values())
    assert parts == ["first", "second", "third"]
    assert {total for _, total in calls} == {40}
    assert sum(done for done, _ in calls) == 40
    here = {each.read_text() for each in tmp_path.iterdir()} == {str(os.getpid())}
    assert here == (jobs == 0)


def wait_for(advance: Advance) -> None:
    for _ in range(60):
        time.sleep(0.05)
        advance(1, 60)


def refuse(advance: Advance) -> None:
    raise DataError("row 3: no prompt")


def end(advance: Advance) -> None:
    os._exit(9)


def test_progress_is_seen_inside_a_task_and_an_error_ends_the_others() -> None:
    calls: list[int] = []
    began = time.monotonic()
    tasks = [Task("long", "work", 100, wait_for), Task("quick", "work", 1, _Later())]
    with pytest.raises(DataError, match="row 3: no prompt"):
        carry_out(tasks, 2, forking([]), lambda done, total: calls.append(done))
    assert time.monotonic() - began < 60
    assert 0 < sum(calls) < 100


class _Later:
    def __call__(self, advance: Advance) -> None:
        time.sleep(1.2)
        refuse(advance)


def test_a_process_that_ends_says_that_the_same_command_goes_on() -> None:
    with pytest.raises(TrainingError, match="a process ended without a result"):
        carry_out([Task("end", "work", 1, end)], 1, forking([]))


def test_nothing_to_do_is_done(tmp_path: Path) -> None:
    assert carry_out([], 2, forking([])) == {}
