from __future__ import annotations

import pytest

from warmkit.evidence.claims.warp_policies import policies
from warmkit.evidence.claims.warp_slerp import Settings, front_numbers, measure, slide_numbers
from warmkit.evidence.reproduction.claim_recipe import read_claim
from warmkit.evidence.testbed.bed import Testbed

Points = list[dict[str, float]]


def line(places: list[float], proxies: list[float], kls: list[float]) -> Points:
    return [{"at": at, "proxy": proxy, "gold": proxy, "kl": kl} for at, proxy, kl in zip(places, proxies, kls)]


def test_slerp_is_compared_with_lerp_and_with_the_policies() -> None:
    slerp, lerp = line([0, 0.5, 1], [2, 5, 4], [6, 9, 8]), line([0, 0.5, 1], [2, 3.5, 4], [6, 5, 8])
    assert slide_numbers(slerp, lerp) == {
        "slerp_minus_lerp_proxy": 1.5,
        "slerp_minus_lerp_kl": 4,
        "slerp_minus_lerp_gold": 1.5,
        "slerp_minus_policies_proxy": 2,
        "slerp_minus_policies_kl": 2,
        "policies_minus_lerp_kl": 2,
    }


def test_fronts_are_compared_at_the_same_kl_and_at_their_ends() -> None:
    one = line([0, 1], [0, 2], [0, 4])
    slerp, lerp = line([0, 1], [0, 3], [0, 4]), line([0, 1], [0, 2], [0, 3])
    numbers = front_numbers([one, slerp], [one, lerp], [one])
    assert numbers["more_policies_proxy"] == pytest.approx(0.5)
    assert numbers["more_policies_end_proxy"] == 1
    assert numbers["more_policies_less_kl_with_lerp"] == 1
    assert numbers["slerp_front_minus_lerp_front"] == pytest.approx((9 / 4 - 2) / 2)


def test_lines_and_fronts_end_in_the_policies_and_their_merges(tiny_bed: Testbed) -> None:
    how = Settings(policies=3, pairs=1, lambdas=[0.0, 0.5, 1.0], etas=[0.5, 1.0], beyond=[1.5], orders=2)
    found, family = measure(tiny_bed, how), policies(tiny_bed, 3)
    by = {(each["part"], each["line"], each["at"]): each for each in found.points}
    ends = family.judge.trajectory(family.runs[0])[-1], family.judge.trajectory(family.runs[1])[-1]
    for method in ("SLERP", "LERP"):
        for place, end in zip((0.0, 1.0), ends):
            assert by["lambda", method, place]["proxy"] == pytest.approx(end["proxy"], abs=1e-5)
        assert by[f"fronts-{method.lower()}", "M = 3", 0.0]["kl"] == pytest.approx(0, abs=1e-6)
        assert by["weights", method, 1.0]["kl"] == pytest.approx(by["lambda", method, 0.5]["kl"], abs=1e-6)
        assert by["extrapolation", f"{method} M = 3", 1.5]["kl"] > by["extrapolation", f"{method} M = 3", 1.0]["kl"]
    assert by["lambda", "LERP", 0.5]["kl"] < by["lambda", "SLERP", 0.5]["kl"]
    assert None not in found.numbers.values()
    assert {each.number for each in read_claim("warp-slerp").statements} <= found.numbers.keys()
