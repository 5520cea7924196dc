"""A run's directory refuses what is not its own, and forgets only what will be computed again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests import forks
from warmkit.errors import OutputError
from warmkit.training.run import RunDirectory
from warmkit.training.run_identity import RunIdentity


def logged(run: RunDirectory, steps: int) -> None:
    run.open_metrics(0)
    for step in range(1, steps + 1):
        run.log({"step": step, "loss": step / 3})
    run.close()


def test_the_same_recipe_opens_the_same_run(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run", "a: 1\n").finish({"steps": 3})
    assert RunDirectory(tmp_path / "run", "a: 1\n").summary() == {"steps": 3}


def test_another_recipe_is_refused_unless_forced_to_start_again(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run", "a: 1\n").finish({"steps": 3})
    (tmp_path / "run" / "model").mkdir()
    with pytest.raises(OutputError, match=r"holds a run of another recipe.*--force"):
        RunDirectory(tmp_path / "run", "a: 2\n")
    run = RunDirectory(tmp_path / "run", "a: 2\n", force=True)
    assert run.summary() is None
    assert not run.model.exists()


def test_a_run_that_has_done_nothing_yet_takes_another_recipe(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run", "a: 1\n")
    RunDirectory(tmp_path / "run", "a: 2\n")
    assert (tmp_path / "run" / "recipe.yaml").read_text() == "a: 2\n"


def test_a_directory_of_something_else_is_refused_even_with_force(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="holds something that is no run"):
        RunDirectory(tmp_path / "run", "a: 1\n", force=True)
    assert (tmp_path / "run" / "thesis.txt").exists()


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(OutputError, match="expected a directory"):
        RunDirectory(tmp_path / "run", "a: 1\n")


def test_a_run_killed_in_its_first_moment_starts_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".recipe.yaml.partial").write_text("a")
    RunDirectory(tmp_path / "run", "a: 1\n")
    assert (tmp_path / "run" / "recipe.yaml").read_text() == "a: 1\n"


def test_two_recipes_of_one_identity_are_one_run(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run", "a: 1\n", identity=RunIdentity("same"))
    RunDirectory(tmp_path / "run", "a: 2\n", identity=RunIdentity("same"))
    assert (tmp_path / "run" / "recipe.yaml").read_text() == "a: 2\n"
    (tmp_path / "run" / "probe").mkdir()
    with pytest.raises(OutputError, match="another recipe"):
        RunDirectory(tmp_path / "run", "a: 2\n", identity=RunIdentity("other"))


def test_metrics_after_the_state_and_a_line_cut_short_go(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", "a: 1\n")
    logged(run, 5)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1')
    run.open_metrics(3)
    run.log({"step": 4})
    run.close()
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4]


def test_the_state_is_there_until_the_run_is_done(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", "a: 1\n")
    assert run.load_state() is None
    run.save_state({"step": 2, "model": {"w": torch.ones(2)}})
    state = run.load_state()
    assert state is not None
    assert state["step"] == 2
    run.finish({})
    assert run.load_state() is None


def test_a_state_half_written_is_not_read(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", "a: 1\n")
    run.save_state({"step": 2})
    (run.path / "state.partial").write_bytes(b"half")
    state = run.load_state()
    assert state is not None
    assert state["step"] == 2


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        RunDirectory(tmp_path / "file" / "run", "a: 1\n")


def test_a_directory_is_one_process_at_a_time(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", "a: 1\n")
    code = "import sys; from pathlib import Path; from warmkit.training.run import RunDirectory; "
    command = [sys.executable, "-c", code + "RunDirectory(Path(sys.argv[1]), sys.argv[2])", str(run.path), "a: 1\n"]
    refused = forks.run(command, text=True)
    assert "another warmkit is working here" in refused.stderr
    del run
    assert forks.run(command).returncode == 0


def test_a_run_that_failed_in_this_process_does_not_lock_it_out(tmp_path: Path) -> None:
    failed = RunDirectory(tmp_path / "run", "a: 1\n")
    again = RunDirectory(tmp_path / "run", "a: 1\n")
    del failed
    RunDirectory(tmp_path / "other", "a: 1\n")
    again.save_state({"step": 1})
    assert again.load_state() == {"step": 1}
