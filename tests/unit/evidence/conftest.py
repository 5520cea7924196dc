"""A testbed so small that every claim can be measured on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from warmkit.evidence.testbed.bed import Testbed
from warmkit.evidence.testbed.sizes import PoliciesSection, PretrainingSection, RewardModelsSection, TestbedSettings

RUN: dict[str, Any] = {"steps": 4, "batch_size": 2, "samples": 2, "lr": 1e-3, "watched": 2}
TINY = TestbedSettings(
    pretraining=PretrainingSection(steps=20, batch_size=16, width=16, heads=2),
    reward_models=RewardModelsSection(pairs=60, held_out=40, steps=4),
    warm_policies=PoliciesSection(**RUN),
    warp_policies=PoliciesSection(**RUN, anchor="ema", beta=1.0),
    evaluated=2,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, as `warmkit reproduce` does, and give the others back: their number decides last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_bed(tmp_path_factory: pytest.TempPathFactory) -> Testbed:
    """One seed of the testbed, shared by all tests; what they train is found by the next, in other processes too."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return Testbed(shared / "tiny-bed", 0, TINY)
