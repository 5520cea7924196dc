"""Random streams: one function makes every generator, and no two purposes share a stream."""

from __future__ import annotations

import ast
from itertools import combinations, product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

import warmkit
from warmkit.common.random_streams import Purpose, generator, run_seed, seed_torch
from warmkit.data.corruption import corrupt
from warmkit.data.preferences import Pair
from warmkit.errors import UsageError
from warmkit.training.loop import batch_rows

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
PACKAGE = Path(warmkit.__file__).parent
MAKERS = {"default_rng", "Generator", "RandomState", "SeedSequence", "PCG64", "Philox", "MT19937"}
MAKERS |= {"manual_seed", "manual_seed_all", "set_rng_state"}
GLOBAL = {("random", "seed"), ("random", "Random")}


def made(file: Path) -> list[str]:
    """Return the calls in a file that make or seed a generator."""
    calls = (node.func for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call))
    names = [(getattr(call.value, "id", ""), call.attr) for call in calls if isinstance(call, ast.Attribute)]
    return [name for owner, name in names if name in MAKERS or (owner, name) in GLOBAL]


def test_no_other_file_makes_or_seeds_a_generator() -> None:
    found = {str(file.relative_to(PACKAGE)): calls for file in PACKAGE.rglob("*.py") if (calls := made(file))}
    assert found == {"common/random_streams.py": ["Generator", "manual_seed", "PCG64"]}


def test_no_two_purposes_share_a_stream_whatever_their_seeds() -> None:
    keys = [(), *product(range(3)), *product(range(3), range(3)), *product(range(2), repeat=3), ("0",), (0, "0")]
    drawn = {(purpose, key): generator(purpose, *key).integers(1 << 63) for purpose in PURPOSES for key in keys}
    assert len(set(drawn.values())) == len(drawn)


def test_zeros_at_the_end_of_a_key_make_another_stream() -> None:
    assert np.random.default_rng(3).random() == np.random.default_rng((3, 0)).random(), "what numpy does"
    assert generator("data order", 3).random() != generator("data order", 3, 0).random()


def test_one_key_is_one_stream_on_every_machine() -> None:
    assert generator("data order", 0, 1).permutation(8).tolist() == generator("data order", 0, 1).permutation(8).tolist()
    assert generator("label noise", 0).integers(1000, size=4).tolist() == [230, 139, 492, 126]


def test_torch_draws_by_purpose_and_key() -> None:
    with torch.random.fork_rng(devices=[]):
        drawn = []
        for purpose, key in product(PURPOSES, range(20)):
            seed_torch(purpose, key)
            drawn.append(float(torch.rand((), dtype=torch.float64)))
        assert len(set(drawn)) == len(drawn)
        seed_torch(PURPOSES[0], 0)
        assert float(torch.rand((), dtype=torch.float64)) == drawn[0]


@pytest.mark.parametrize("seed", range(4))
def test_swapped_labels_are_spread_evenly_over_an_epoch_of_the_same_seed(seed: int) -> None:
    count, rate = 4000, 0.25
    noisy = corrupt([Pair(str(n), "a", "b") for n in range(count)], rate, seed)
    swapped = np.array([noisy[row].corrupt for row in batch_rows(count, count, seed, 0)])
    shares = swapped.reshape(8, -1).mean(1)
    deviation = np.sqrt(rate * (1 - rate) / (count / 8))
    assert np.abs(shares - rate).max() < 4 * deviation


def test_pipelines_of_different_seeds_share_no_run() -> None:
    seeds = [{run_seed(seed, number) for number in range(1000)} for seed in range(4)]
    assert all(one.isdisjoint(other) for one, other in combinations(seeds, 2))
    with pytest.raises(UsageError, match="at most 1000 runs"):
        run_seed(0, 1000)
