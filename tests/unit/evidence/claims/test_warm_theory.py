"""The paper's model of WA and ENS, against values by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.unit.evidence.claims.lines import values
from warmkit.evidence.claims.warm_theory import Runs, Settings, expected_wa, exponent, learn, measure

SMALL = Settings(runs=20_000, texts=200, counts=[1, 4, 100])


def runs(*selected: list[float]) -> Runs:
    chosen = np.array([selected])
    return Runs(chosen, chosen)


def test_what_one_of_two_runs_learned_is_half_in_ens_and_a_quarter_in_wa() -> None:
    both = runs([1, 1, 0], [1, 0, 0])
    np.testing.assert_allclose(both.ens(), [[1, 0.5, 0]])
    np.testing.assert_allclose(both.wa(), [[1, 0.25, 0]])
    np.testing.assert_allclose(both.wa(layers=3), [[1, 0.125, 0]])


def test_one_run_is_its_own_average() -> None:
    single = learn(50, 1, np.array([0.2, 0.7]), Settings(), np.random.default_rng(0))
    np.testing.assert_array_equal(single.ens(), single.wa())


def test_the_expected_weight_of_few_runs_goes_from_p_to_p_squared() -> None:
    assert expected_wa(0.2, 1) == pytest.approx(0.2)
    assert expected_wa(0.2, 4) == pytest.approx(0.08)
    assert expected_wa(0.2, 10**9) == pytest.approx(0.04)


def test_the_exponent_of_a_power_is_found() -> None:
    p = np.array([0.1, 0.5, 1.0])
    assert exponent(p, p**3) == pytest.approx(3)


def test_a_feature_that_no_run_learned_is_in_neither() -> None:
    none = runs([0, 1], [0, 1])
    assert none.ens()[0, 0] == none.wa()[0, 0] == 0


def test_noise_of_the_inputs_averages_out_over_the_training_set() -> None:
    p, draw = np.array([1.0]), np.random.default_rng(0)
    few, many = (learn(4000, 1, p, Settings(noise=1.0, samples=n), draw).omega.std() for n in (4, 400))
    assert few == pytest.approx(0.5, rel=0.1)
    assert many == pytest.approx(0.05, rel=0.1)


def test_simulated_weights_follow_the_equations() -> None:
    bed: Any = SimpleNamespace(seed=0)
    found = measure(bed, SMALL)
    p = np.array(SMALL.probabilities)
    np.testing.assert_allclose(values(found, "probability", "ENS", "weight"), p, atol=0.03)
    np.testing.assert_allclose(values(found, "probability", "WA", "weight"), p**2, atol=0.03)
    assert values(found, "labels", "ENS", "swapped")[-1] > values(found, "labels", "WA", "swapped")[-1]


def test_a_seed_draws_the_same_again() -> None:
    bed: Any = SimpleNamespace(seed=3)
    assert measure(bed, SMALL).numbers == measure(bed, SMALL).numbers
