from __future__ import annotations

import numpy as np
import pytest

from tests.unit.evidence.claims.declared import missing
from tests.unit.evidence.claims.lines import values
from warmkit.data.preferences import read_pairs
from warmkit.evaluation.comparisons import encode_pairs, score
from warmkit.evidence.claims.warm_distillation import Settings, control_model, measure, relabelled
from warmkit.evidence.testbed.bed import Testbed
from warmkit.modeling.reward_model import load_reward_model

HOW = Settings(samples=8, sizes=[1, 2, 8], members=[2, 3], control_steps=1)


def test_the_control_agrees_with_all_labels_that_it_gave(tiny_bed: Testbed) -> None:
    control = control_model(tiny_bed, HOW)
    model, pairs = load_reward_model(str(control)), read_pairs(relabelled(tiny_bed, "train", tiny_bed.train, control))
    margins = score(model, encode_pairs(pairs, model.encoder, "refuse")).margins
    assert np.all(margins >= -1e-5)
    given = read_pairs(tiny_bed.train)
    assert {frozenset((p.chosen, p.rejected)) for p in pairs} == {frozenset((p.chosen, p.rejected)) for p in given}
    assert any(p.chosen != other.chosen for p, other in zip(pairs, given))


def test_the_control_is_the_ceiling_of_what_it_judges(tiny_bed: Testbed) -> None:
    found = measure(tiny_bed, HOW)
    ceiling = values(found, "distilled", "the control", "gold")
    assert ceiling[0] == pytest.approx(0)
    for name in ("single models", "WA M=3", "ENS M=2", "probe only"):
        assert all(value <= top + 1e-9 for value, top in zip(values(found, "distilled", name, "gold"), ceiling))
    assert missing(found, "warm-distillation") == []
    assert 0 <= (found.numbers["control_accuracy"] or -1) <= 100
