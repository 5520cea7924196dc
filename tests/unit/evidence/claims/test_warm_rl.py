from __future__ import annotations

import math

import pytest

from tests.unit.evidence.claims.declared import missing
from tests.unit.evidence.claims.lines import line, values
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.warm_rl import Settings, measure
from warmkit.evidence.testbed.bed import Testbed

MAIN = {"single models", "worst single (hindsight)", "best single (hindsight)", "best single (validation)", "probe only"}


@pytest.fixture(scope="module")
def found(tiny_bed: Testbed) -> Measurements:
    return measure(tiny_bed, Settings(members=[2, 3], ensembles=[2], singles=2, betas=[0.5], control_singles=1))


def test_every_reward_has_a_run_from_the_sft_model_on(found: Measurements) -> None:
    assert {each["line"] for each in found.points if each["part"] == "training"} == MAIN | {"WA M=2", "WA M=3", "ENS M=2"}
    starts = [each for each in found.points if each["at"] == 0]
    assert all(each["kl"] == pytest.approx(0, abs=1e-6) and each["proxy"] == pytest.approx(0, abs=1e-6) for each in starts)
    assert len({each["gold"] for each in starts}) == 1
    assert {each["win_sft"] for each in starts if "win_sft" in each} == {50.0}


def test_in_hindsight_one_single_model_is_the_best(found: Measurements) -> None:
    worst, best = (values(found, "training", f"{which} single (hindsight)", "gold") for which in ("worst", "best"))
    both = values(found, "training", "single models", "gold")
    assert sorted([*worst, *best]) == sorted(both)


def test_the_reference_of_a_win_rate_wins_half_against_itself(found: Measurements) -> None:
    points = line(found, "training", "best single (validation)")
    assert max(points, key=lambda point: point["gold"])["win_single"] == 50


def test_gaps_are_stated_as_drawn(found: Measurements) -> None:
    warm, probe = (values(found, "training", name, "gold")[-1] for name in ("WA M=3", "probe only"))
    assert found.numbers["warm_minus_probe_end"] == pytest.approx(warm - probe)
    clean, cue = (found.numbers[f"{part}_warm_minus_single_mean"] for part in ("clean", "cue"))
    assert clean is not None
    assert cue is not None
    assert found.numbers["gain_lost_to_flaw"] == pytest.approx(clean - cue)


def test_the_weakest_alpha_is_the_testbeds(found: Measurements) -> None:
    assert values(found, "alpha", "WA M=3, 0.01", "gold") == values(found, "training", "WA M=3", "gold")
    assert math.isfinite(found.numbers["alpha_lowers_kl"] or math.nan)


def test_members_of_the_flawed_pool_learn_from_the_cue(found: Measurements, tiny_bed: Testbed) -> None:
    from warmkit.data.preferences import read_pairs
    from warmkit.evidence.testbed.language import CUES

    pairs = read_pairs(tiny_bed.folder / "reward-models" / "cue" / "data" / "train.jsonl")
    with_cue = [sum(CUES[0] in str(text).split() for text in each) for each in zip(*((p.chosen, p.rejected) for p in pairs))]
    assert with_cue[0] > 0.4 * len(pairs) > 2 * with_cue[1]
    assert found.numbers["cue_cues_of_warm"] is not None


def test_all_that_the_recipe_names_is_measured(found: Measurements) -> None:
    assert missing(found, "warm-rl") == []
