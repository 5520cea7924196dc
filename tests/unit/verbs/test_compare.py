"""Norms and angles between models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import warmkit
from tests.conftest import Family, Run, save
from warmkit.errors import UsageError
from warmkit.report.runs.documents import compare_charts


def test_known_angles_norms_and_ratios(tmp_path: Path) -> None:
    init = save(tmp_path / "init", {"layers.0.w": torch.tensor([10.0, 0.0, 0.0])}, None)
    a = save(tmp_path / "a", {"layers.0.w": torch.tensor([10.0, 2.0, 0.0])}, None)
    b = save(tmp_path / "b", {"layers.0.w": torch.tensor([10.0, 1.0, 1.0])}, None)
    (group,) = warmkit.compare([a, b], init=init).groups
    (pair,) = group.pairs
    assert group.init_norm == pytest.approx(10)
    assert group.task_vector_norms == pytest.approx([2, 2**0.5])
    assert pair.task_vector_angle == pytest.approx(45)
    assert pair.task_vector_norm_ratio == pytest.approx(2**0.5)
    x, y = np.array([10, 2, 0]), np.array([10, 1, 1])
    assert pair.weight_cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert pair.weight_norm_ratio == pytest.approx(np.linalg.norm(x) / np.linalg.norm(y))


def test_small_task_vectors_of_large_weights_keep_their_angle(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    base = 1e3 * torch.randn(5000, generator=generator, dtype=torch.float64)
    first, second = (1e-6 * torch.randn(5000, generator=generator, dtype=torch.float64) for _ in range(2))
    paths = [save(tmp_path / str(n), {"w": base + task}, None) for n, task in enumerate((0 * base, first, second))]
    (group,) = warmkit.compare(paths[1:], init=paths[0]).groups
    tasks = [(base + task) - base for task in (first, second)]
    expected = float(tasks[0] @ tasks[1] / tasks[0].norm() / tasks[1].norm())
    assert group.pairs[0].task_vector_cosine == pytest.approx(expected, abs=1e-9)


def test_a_model_equal_to_its_init_has_no_angle(family: Family) -> None:
    comparison = warmkit.compare([family.a, family.init], init=family.init)
    assert all(group.pairs[0].task_vector_angle is None for group in comparison.groups)
    assert "undefined" in comparison.summary()


def test_the_command_prints_a_table_json_and_a_picture(family: Family, run: Run, tmp_path: Path) -> None:
    arguments = ("compare", "--init", family.init, *family.models)
    table = run(*arguments, "--plot", "angles.png")
    assert table.returncode == 0, table.stderr
    assert "model.layers.2" in table.stdout
    assert "mean angle of task vectors" in table.stdout
    assert (tmp_path / "angles.png").read_bytes()[:4] == b"\x89PNG"
    document = json.loads(run(*arguments, "--json").stdout)
    assert len(document["groups"][0]["pairs"]) == 3
    assert len(document["mean_angles"]) == 3


def test_a_picture_of_one_model_is_refused(family: Family) -> None:
    with pytest.raises(UsageError, match="at least two models"):
        compare_charts(warmkit.compare([family.a], init=family.init).as_document())
