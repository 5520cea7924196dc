"""Jobs run side by side; one that fails says why and stops no other."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training import tiny
from warmkit.pipelines import processes
from warmkit.pipelines.processes import Job, run_jobs
from warmkit.recipes.recipe import recipe_text

pytestmark = pytest.mark.usefixtures("children_are_forks")


def test_a_job_that_fails_is_reported_with_its_last_words_and_the_others_are_done(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.jsonl").write_text("{}\n" * 3)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe_text(tiny.recipe(tmp_path, "bert")))
    jobs = [
        Job("good", ["reward-model", str(recipe)], tmp_path / "0.jsonl"),
        Job("bad", ["policy", str(tmp_path / "nowhere.yaml")], tmp_path / "1.jsonl"),
    ]
    told = list[tuple[int, int]]()
    failed = run_jobs(jobs, 2, 3, lambda *each: told.append(each))
    assert set(failed) == {"bad"}
    assert failed["bad"].endswith("(exit 2)")
    assert "nowhere" in failed["bad"]
    assert not failed["bad"].startswith("error")
    assert sum(done for done, _ in told) == 6
    assert {total for _, total in told} == {6}


def test_no_jobs_are_nothing_to_wait_for() -> None:
    assert run_jobs([], 2, 3) == {}


def test_an_interrupt_ends_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[processes._Process] = []

    def interrupt(_: float) -> None:
        monkeypatch.undo()  # once
        raise KeyboardInterrupt

    class Seen(processes._Process):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            started.append(self)

    monkeypatch.setattr(processes, "_Process", Seen)
    monkeypatch.setattr(processes.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_jobs([Job("demo", ["policy", "nowhere.yaml"], tmp_path / "m.jsonl")], 1, 3)
    (process,) = started
    assert process.over()


def test_jobs_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 8)
    monkeypatch.setattr(processes, "_gpus", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert processes._environment(0, 3)["OMP_NUM_THREADS"] == "2"
    assert processes._environment(0, 20)["OMP_NUM_THREADS"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in processes._environment(0, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert processes._environment(0, 8)["OMP_NUM_THREADS"] == "3", "what the user says goes"


def test_each_job_gets_a_gpu_of_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [processes._environment(slot, 2)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)] == ["2", "5"]
