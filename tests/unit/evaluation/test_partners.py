"""A run that no average should hold is found by averaging it, also where its own accuracy is the best."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.unit.training import tiny
from warmkit.data.preferences import Pair
from warmkit.evaluation.accuracy import Estimate
from warmkit.evaluation.averaging import Contest
from warmkit.evaluation.comparisons import encode_pairs
from warmkit.evaluation.partners import Partners, partners
from warmkit.evaluation.ranking_pairs import FEW
from warmkit.training.recipe_sections import ModelSection
from warmkit.training.reward_modeling import open_for_training, train_reward_model

GOOD = ["run-1", "run-2", "run-3"]


def noisy(source: Path, target: Path, noise: float) -> Path:
    """Copy a reward model with noise on its weights."""
    shutil.copytree(source, target)
    draw = torch.Generator().manual_seed(int(1e6 * noise))
    weights = {
        name: each + noise * each.abs().mean() * torch.randn(each.shape, generator=draw)
        for name, each in tiny.tensors(target).items()
    }
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def turn(source: Path, target: Path) -> Path:
    """Copy a tiny BERT so that it ranks nearly the same by weights far away: h tanh(P x) is (-h) tanh(-P x).

    The factors keep the sign of one half in the mean with the source and turn that of the other.
    """
    shutil.copytree(source, target, dirs_exist_ok=True)
    weights = tiny.tensors(target)
    for name, factor in (("pooler.dense.weight", -3.0), ("pooler.dense.bias", -3.0), ("classifier.weight", -1 / 3)):
        (key,) = (each for each in weights if each.endswith(name))
        weights[key] = factor * weights[key]
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pool")
    trained = train_reward_model(tiny.recipe(folder, "bert", "trained", steps=30, lr=3e-3)).path
    models = {name: noisy(trained, folder / name, 0.01 * (n + 1)) for n, name in enumerate(GOOD)}
    return models | {"turned": turn(trained, folder / "turned")}


def contest(pool: dict[str, Path], pairs: int) -> Contest:
    model = open_for_training(ModelSection(str(pool["run-1"])))
    rows = [Pair(**each) for each in tiny.rows(pairs, seed=50)]
    return Contest(model, {"ranking": encode_pairs(rows, model.encoder)}, pool)


def test_a_run_that_lies_beyond_a_barrier_is_named_though_it_is_as_accurate_as_the_others(pool: dict[str, Path]) -> None:
    judge = contest(pool, 120)
    alone = {name: judge.individual(name)["ranking"].won.mean() for name in pool}
    assert alone["turned"] > min(alone[name] for name in GOOD) - 0.02
    found = partners(judge, list(pool), "ranking")
    assert found.enough
    assert list(found.bad()) == ["turned"]
    bad = found.bad()["turned"]
    assert (bad.worse, bad.partners) == (3, 3)
    assert bad.gain < -0.5
    assert found.connected(list(pool)) == GOOD


def test_a_gain_is_the_averages_accuracy_less_the_mean_of_the_two_pair_by_pair(pool: dict[str, Path]) -> None:
    judge = contest(pool, 60)
    found = partners(judge, ["run-1", "turned"], "ranking").gains["run-1"]["turned"]
    alone = [judge.individual(name)["ranking"].won for name in ("run-1", "turned")]
    averaged = judge.average(["run-1", "turned"])["ranking"].won
    assert found.value == pytest.approx(float((averaged - sum(alone) / 2).mean()))
    assert found.low <= found.value <= found.high < 0


def test_with_few_pairs_nothing_can_be_told(pool: dict[str, Path]) -> None:
    found = partners(contest(pool, FEW - 1), list(pool), "ranking")
    assert not found.enough
    assert found.bad() == {}
    assert found.connected(list(pool)) == list(pool)
    assert found.document()["enough"] is False


def test_of_many_pairs_some_are_scored(pool: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warmkit.evaluation.partners.MOST", 60)
    found = partners(contest(pool, 100), list(pool), "ranking")
    assert (found.pairs, found.of) == (60, 100)
    assert list(found.bad()) == ["turned"]


def told(*worse: tuple[str, str], names: str = "abcd") -> Partners:
    """Return partners of which the pairs named are worse averaged."""
    below, above = Estimate(-0.2, -0.3, -0.1), Estimate(-0.01, -0.1, 0.1)
    gains = {a: {b: below if (a, b) in worse or (b, a) in worse else above for b in names if b != a} for a in names}
    return Partners(100, 100, gains)


def test_a_run_is_bad_with_more_than_half_of_its_partners() -> None:
    assert told(("a", "b")).bad() == {}
    assert told(("a", "b"), names="abc").bad() == {}, "one of two is half"
    assert list(told(("a", "b"), ("a", "c")).bad()) == ["a"]
    assert told().bad() == {}, "an interval that holds 0 tells nothing"


def test_of_two_runs_the_better_stays() -> None:
    found = told(("a", "b"), names="ab")
    assert list(found.bad()) == ["a", "b"]
    assert found.connected(["b", "a"]) == ["b"]


def test_of_two_halves_that_do_not_meet_the_half_with_the_better_run_stays() -> None:
    found = told(("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"))
    assert list(found.bad()) == ["a", "b", "c", "d"]
    assert sorted(found.connected(["c", "a", "d", "b"])) == ["c", "d"]
