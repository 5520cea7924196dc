from __future__ import annotations

import pytest

from warmkit.evidence.claims.warp_liti import Settings, above_chord, measure
from warmkit.evidence.reproduction.claim_recipe import read_claim
from warmkit.evidence.testbed.bed import Testbed


def line(places: list[float], proxies: list[float], kls: list[float]) -> list[dict[str, float]]:
    return [{"at": at, "proxy": proxy, "gold": proxy, "kl": kl} for at, proxy, kl in zip(places, proxies, kls)]


def test_a_concave_front_is_above_its_chord_and_a_convex_one_below() -> None:
    front = line([0, 0.25, 0.5, 1], [0, 2, 3, 4], [1, 1, 2, 5])
    assert above_chord(front, "proxy") == pytest.approx((1 / 4 + 1 / 4) / 2)
    assert above_chord(front, "kl") == pytest.approx((-1 / 4 - 1 / 4) / 2)


def test_fronts_go_from_their_init_to_the_merge(tiny_bed: Testbed) -> None:
    found = measure(tiny_bed, Settings(etas=[0.5, 1.0], beyond=[1.5]))
    by = {(each["part"], each["line"], each["at"]): each for each in found.points}
    for name in ("LITI M = 1, T/2", "LITI M = 2, T/2", "LITI M = 1, T", "LITI M = 2, T"):
        assert by["liti", name, 0.0]["kl"] == pytest.approx(0, abs=1e-6)
    assert by["liti", "LITI M = 1, T", 1.0]["proxy"] == pytest.approx(by["liti", "trajectories of RL", 4.0]["proxy"], abs=1e-5)
    assert (
        by["eta", "LITI M = 2, T", 1.5]["kl"] > by["eta", "LITI M = 2, T", 1.0]["kl"] == by["liti", "LITI M = 2, T", 1.0]["kl"]
    )
    episode, sft = (f"towards the {name}" for name in ("init of the iteration", "SFT model"))
    assert by["inits", episode, 1.0]["kl"] == pytest.approx(by["inits", sft, 1.0]["kl"], abs=1e-6)
    assert {each.number for each in read_claim("warp-liti").statements} <= found.numbers.keys()
    assert by["inits", episode, 0.0]["kl"] > by["inits", sft, 0.0]["kl"] == pytest.approx(0, abs=1e-6)


def test_the_average_of_the_last_checkpoint_alone_is_that_checkpoint(tiny_bed: Testbed) -> None:
    found = measure(tiny_bed, Settings(etas=[0.5, 1.0], beyond=[], averaged=1.0))
    assert found.numbers["average_minus_checkpoint_proxy"] == pytest.approx(0, abs=1e-5)
