"""WARP's experiment on the synthetic language, in miniature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.experiments import warp_synthetic_figures as figures
from tests.experiments import warp_synthetic_report as report
from tests.experiments.warp_synthetic import run
from tests.experiments.warp_synthetic_seed import Setting

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")
TINY = Setting(
    pretrain_steps=2,
    pairs=40,
    proxy={"lr": 1e-3, "steps": 2, "batch_size": 4},
    steps=2,
    ema=(1.0,),
    static=(0.1,),
    orders=2,
    iterations=2,
    eta=0.5,
    watched=2,
    etas=(0.5, 1.0),
    lambdas=(0.0, 0.5, 1.0),
    samples=2,
)


def test_a_line_has_no_value_beyond_its_ends() -> None:
    sft = {"at": 0, "kl": 0.0, "gold": 1.0}
    points = [{"at": 1, "kl": 4.0, "gold": 3.0}, {"at": 2, "kl": 2.0, "gold": 4.0}]
    found = report.at_kl(points, sft, "gold", [0.0, 1.0, 3.0, 5.0])
    np.testing.assert_allclose(found, [1.0, 2.5, 3.5, np.nan])
    own_start = report.at_kl([{"at": 0, "kl": 2.0, "gold": 4.0}, points[0]], sft, "gold", [1.0, 3.0])
    np.testing.assert_allclose(own_start, [np.nan, 3.5])


@pytest.mark.slow
def test_the_experiment_runs_end_to_end_and_is_not_run_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = run(tmp_path, 100, TINY)
    finally:
        torch.set_num_threads(threads)
    points = {(point["line"], point["at"]): point for point in found["points"]}
    for method in ("SLERP", "LERP"):  # its ends are the policies
        assert points[method, 0.0]["kl"] == pytest.approx(points["EMA 1", 2]["kl"], rel=1e-5)
        assert points[method, 1.0]["gold"] == points["trajectory 2", 2]["gold"]
    assert points["SLERP", 0.5]["proxy"] == points["SLERP M = 2", 1.0]["proxy"]
    assert points["WARP 2, to its init", 0.0]["kl"] == pytest.approx(points["SLERP M = 2", 0.5]["kl"], rel=1e-4)
    assert points["WARP 2, to its init", 1.0]["kl"] == points["WARP 2, to SFT", 1.0]["kl"]
    assert points["long run", 2]["kl"] == points["EMA 1", 2]["kl"]

    written = (tmp_path / "seed-100.json").stat().st_mtime_ns
    run(tmp_path, 100, TINY)
    assert (tmp_path / "seed-100.json").stat().st_mtime_ns == written
    seeds = report.read(tmp_path)
    report.print_tables(seeds)
    figures.draw_all(seeds, tmp_path)
    assert "| EMA anchor against SFT 0.1 |" in capsys.readouterr().out
    assert all((tmp_path / f"{name}.png").stat().st_size > 10_000 for name in ("anchors", "fronts", "lambda", "iterations"))
