from __future__ import annotations

from warmkit.evidence.claims.reward_accuracies import column, difference, extreme, mean

POINTS = [{"validation": 60.0, "train_corrupt": 10.0}, {"validation": 70.0, "train_corrupt": 40.0}]


def test_a_column_is_named_after_its_data_set() -> None:
    assert column("train corrupt") == "train_corrupt"


def test_every_column_has_its_own_mean_and_extremes() -> None:
    assert mean(POINTS) == {"validation": 65.0, "train_corrupt": 25.0}
    assert extreme([POINTS[0], {"validation": 50.0, "train_corrupt": 40.0}], max) == {"validation": 60.0, "train_corrupt": 40.0}


def test_a_difference_keeps_its_place() -> None:
    assert difference({"at": 3, "ood": 61.0}, {"at": 3, "ood": 60.0}) == {"at": 3, "ood": 1.0}
