from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from warmkit.evidence.claims.warp_anchor import Settings, anchor_numbers, measure, moving_averages, second_half
from warmkit.evidence.reproduction.claim_recipe import read_claim
from warmkit.evidence.testbed.bed import Testbed

STEPS = 4


def trajectory(kls: list[float], proxies: list[float], golds: list[float] | None = None) -> list[dict[str, float]]:
    """Points of a run of four steps, at steps 0, 2 and 4."""
    rows = zip((0.0, 2.0, 4.0), kls, proxies, golds or proxies)
    return [{"at": step, "kl": kl, "proxy": proxy, "gold": gold} for step, kl, proxy, gold in rows]


def checkpoint(folder: Path, value: float) -> Path:
    folder.mkdir()
    save_file({"w": torch.tensor([value])}, folder / "model.safetensors")
    return folder


def test_a_run_that_stands_still_gains_no_kl_in_its_second_half() -> None:
    assert second_half(trajectory([0, 3, 3], [0, 1, 1]), STEPS) == 0
    assert second_half(trajectory([0, 3, 5], [0, 1, 1]), STEPS) == 2


def test_anchors_are_compared_at_the_same_kl() -> None:
    ema = trajectory([0, 2, 4], [0, 2, 4], [0, 2, 1])
    none = trajectory([0, 8, 16], [0, 4, 8], [0, 5, 1])
    weak, strong = trajectory([0, 2, 4], [0, 1, 2]), trajectory([0, 1, 1], [0, 1.2, 1.2])
    numbers = anchor_numbers(ema, {0.0: none, 0.1: weak, 1.0: strong}, strong, STEPS)
    assert numbers["ema_minus_none_proxy"] == pytest.approx(1)  # half of KL against all of it, mean over 0 to 4
    assert numbers["ema_minus_weak_static_proxy"] == pytest.approx(1)
    assert numbers["ema_minus_tuned_static_proxy"] == pytest.approx(-0.1)
    assert numbers["ema_minus_static_of_its_beta_proxy_at_end"] == pytest.approx(2.8)
    assert numbers["static_kl_gained_late"] == 0
    assert numbers["ema_minus_static_kl_gained_late"] == 2
    assert numbers["none_kl_over_ema_kl"] == 4
    assert numbers["none_gold_lost"] == 4
    assert numbers["none_minus_ema_gold_lost"] == 3


def test_the_moving_average_is_the_ema_where_every_step_was_kept(tmp_path: Path) -> None:
    kept = {1: checkpoint(tmp_path / "1", 1.0), 2: checkpoint(tmp_path / "2", 3.0)}
    averages = moving_averages({"w": torch.tensor([0.0])}, kept, 0.5)
    assert [averages[step]["w"].item() for step in (1, 2)] == [0.5, 1.75]


def test_the_moving_average_gives_a_gap_the_weight_of_its_steps(tmp_path: Path) -> None:
    init = {"w": torch.tensor([0.0])}
    averages = moving_averages(init, {2: checkpoint(tmp_path / "2", 1.0)}, 0.5)
    assert averages[2]["w"].item() == 0.75  # a policy that stood at 1 for two steps: 0.5, 0.75
    assert init["w"].item() == 0


def test_every_anchor_starts_at_the_sft_model(tiny_bed: Testbed) -> None:
    found = measure(tiny_bed, Settings(ema=[0.3], static=[0.1], mu=[0.2], averaged=[0.0, 0.1], spacing=1))
    starts = [point for point in found.points if point["at"] == 0]
    assert {point["line"] for point in starts} == {point["line"] for point in found.points}
    assert all(point["kl"] == pytest.approx(0, abs=1e-6) and point["proxy"] == 0 for point in starts)
    assert {point["at"] for point in found.points if point["part"] == "anchors"} == {0, 1, 4}
    assert {each.number for each in read_claim("warp-anchor").statements} <= found.numbers.keys()


def test_the_average_of_a_run_lags_behind_it(tiny_bed: Testbed) -> None:
    found = measure(tiny_bed, Settings(ema=[0.3], static=[0.1], mu=[0.2], averaged=[0.0, 0.1], spacing=1))
    end: dict[str, Any] = {each["line"]: each for each in found.points if each["part"] == "averages" and each["at"] == 4}
    assert 0 < end["average of no KL"]["kl"] < end["no KL"]["kl"]
    assert math.isfinite(end["average of SFT 0.1"]["proxy"])
