"""Shape of a run on disk, against the same numbers from its weights."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import Run, save, tensors_of, weights
from warmkit.errors import UsageError
from warmkit.verbs.run_shape import run_shape


def flat(path: Path) -> torch.Tensor:
    return torch.cat([each.double().flatten() for each in tensors_of(path).values()])


def make(folder: Path) -> tuple[Path, list[Path]]:
    init = save(folder / "SFT", weights(0))
    return init, [save(folder / "RUN" / f"checkpoint-{step}", weights(step)) for step in (1, 2, 5)]


def test_distances_moves_and_turns_are_those_of_the_weights(tmp_path: Path) -> None:
    init, run = make(tmp_path)
    found = run_shape(tmp_path / "RUN", init=init)
    places = [flat(init), *map(flat, run)]
    moves = [after - before for before, after in itertools.pairwise(places)]
    np.testing.assert_allclose(found.distances, [(each - places[0]).norm() for each in places[1:]], rtol=1e-6)
    np.testing.assert_allclose(found.moves, [each.norm() for each in moves], rtol=1e-6)
    cosine = [torch.nn.functional.cosine_similarity(a, b, dim=0).item() for a, b in itertools.pairwise(moves)]
    assert found.turns[0] is None
    np.testing.assert_allclose([each for each in found.turns if each is not None], np.degrees(np.arccos(cosine)), rtol=1e-6)
    assert found.steps == [1, 2, 5]


def test_by_default_the_first_checkpoint_is_where_it_starts(tmp_path: Path) -> None:
    _, run = make(tmp_path)
    found = run_shape(tmp_path / "RUN")
    assert (found.init, found.steps) == (str(run[0]), [2, 5])
    with pytest.raises(UsageError, match=r"needs two checkpoints beside .*checkpoint-1, where it started; found 1"):
        run_shape(run[:2])


def test_the_command_prints_draws_and_reports_it(run: Run, tmp_path: Path) -> None:
    make(tmp_path)
    done = run("compare", "--run", "RUN", "--init", "SFT", "--plot", "run.svg", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["run"]["steps"] == [1, 2, 5]
    assert (tmp_path / "run.svg").stat().st_size > 1000
    (tmp_path / "run.json").write_text(done.stdout)
    shown = run("report", "run.json", "-o", "page.html")
    assert shown.returncode == 0, shown.stderr
    assert "How the run turned" in (tmp_path / "page.html").read_text()
    table = run("compare", "--run", "RUN", "--init", "SFT")
    assert "the run moved in" in table.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run", "RUN", "SFT"], "--run names the checkpoints; leave out 'SFT'"),
        (["--init", "SFT"], "expected MODEL"),
        (["SFT"], "expected --init (what the models were fine-tuned from)"),
        (["--run", "SFT"], "needs two checkpoints beside SFT, where it started; found 0"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], said: str, run: Run, tmp_path: Path) -> None:
    make(tmp_path)
    done = run("compare", *words)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
