"""WA in memory is the model that the merge engine writes; ENS is the mean of the scores; lines end in their models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import warmkit
from tests.unit.training import tiny
from warmkit.data.preferences import Pair
from warmkit.errors import DataError
from warmkit.evaluation.accuracy import Scores, pairwise_accuracy
from warmkit.evaluation.averaging import Contest
from warmkit.evaluation.comparisons import Comparisons, encode_pairs, same_after_encoding, score
from warmkit.evaluation.connectivity import connectivity
from warmkit.modeling.reward_model import load_scorer
from warmkit.training.reward_modeling import save_reward_model

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module", params=["llama", "bert"])
def members(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three reward models around one init."""
    folder = tmp_path_factory.mktemp("members")
    init = tiny.model(request.param, folder / "init")
    paths = {name: folder / name for name in NAMES}
    for seed, path in enumerate(paths.values()):
        reward_model, generator = tiny.load(init, request.param), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in reward_model.model.named_parameters():
                if not name.endswith("classifier.bias"):
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        save_reward_model(reward_model, path)
    return paths


@pytest.fixture
def contest(members: dict[str, Path], tmp_path: Path) -> Contest:
    model = load_scorer(members["a"])
    data = {"validation": encode_pairs(tiny.preferences(tmp_path), model.encoder)}
    return Contest(model, data, members, tmp_path / "cache")


def alone(path: Path, contest: Contest) -> Scores:
    return score(load_scorer(path), contest.data["validation"])


def assert_same(a: Scores, b: Scores, tolerance: float = 0.0) -> None:
    assert np.allclose(a.chosen, b.chosen, atol=tolerance, rtol=0)
    assert np.allclose(a.rejected, b.rejected, atol=tolerance, rtol=0)


def test_an_individual_scores_as_its_directory_does(contest: Contest, members: dict[str, Path]) -> None:
    for name in NAMES:
        assert_same(contest.individual(name)["validation"], alone(members[name], contest))


@pytest.mark.parametrize("names", [["a", "b"], ["c", "a", "b"]], ids="+".join)
def test_the_average_in_memory_is_the_soup_on_disk(names: list[str], contest: Contest, tmp_path: Path) -> None:
    warmkit.soup([contest.members[name] for name in sorted(names)], tmp_path / "soup")
    assert_same(contest.average(names)["validation"], alone(tmp_path / "soup", contest))


def test_a_combination_is_the_one_that_lerp_writes(contest: Contest, members: dict[str, Path], tmp_path: Path) -> None:
    warmkit.merge([members["a"], members["b"]], tmp_path / "out", method="lerp", coefficients=[0.3, 0.7])
    assert_same(contest.average(["a", "b"], [0.3, 0.7])["validation"], alone(tmp_path / "out", contest))


def test_the_average_of_a_set_does_not_depend_on_its_order(contest: Contest) -> None:
    assert_same(contest.average(["a", "b"])["validation"], contest.average(["b", "a"])["validation"])
    assert contest.cache is not None
    assert len(list(contest.cache.glob("*.npz"))) == 1


def test_ens_is_the_mean_of_the_members_scores(contest: Contest, members: dict[str, Path]) -> None:
    each = [alone(members[name], contest) for name in NAMES]
    ens = contest.ensemble(NAMES)["validation"]
    assert np.allclose(ens.chosen, np.mean([one.chosen for one in each], axis=0))
    assert np.allclose(ens.rejected, np.mean([one.rejected for one in each], axis=0))


def test_what_was_scored_is_not_scored_again(contest: Contest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = contest.average(["a", "b"])
    monkeypatch.setattr(contest.model, "load_weights", lambda weights: pytest.fail("scored again"))
    assert_same(contest.average(["b", "a"])["validation"], first["validation"])


def test_data_sets_can_be_scored_one_at_a_time(contest: Contest, tmp_path: Path) -> None:
    both = dict(contest.data) | {"ood": encode_pairs(tiny.preferences(tmp_path, 9, seed=4), contest.model.encoder)}
    two = Contest(contest.model, both, contest.members, tmp_path / "two")
    assert set(two.average(["a", "b"], only=["ood"])) == {"ood"}
    scores = two.average(["a", "b"])
    assert set(scores) == {"validation", "ood"}
    assert_same(scores["validation"], contest.average(["a", "b"])["validation"])


def test_without_a_cache_nothing_is_written(contest: Contest, members: dict[str, Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    Contest(contest.model, contest.data, members).average(["a", "b"])
    assert sorted(tmp_path.rglob("*")) == before


def test_many_members_still_make_a_file_name(contest: Contest, members: dict[str, Path]) -> None:
    many = {f"run-{number}": members["a"] for number in range(60)}
    crowd = Contest(contest.model, contest.data, many, contest.cache)
    assert_same(crowd.average(list(many))["validation"], contest.individual("a")["validation"], tolerance=1e-5)
    assert crowd.cache is not None
    assert sum(len(path.name) > 64 for path in crowd.cache.glob("*.npz")) == 1


# ---- the line between two models ------------------------------------------------------------------------------------


def test_the_line_ends_in_its_models(contest: Contest) -> None:
    points = connectivity(contest, "a", "b", [0.0, 0.5, 1.0])
    for point, name in ((points[0], "a"), (points[2], "b")):
        accuracy = pairwise_accuracy(contest.individual(name)["validation"])
        assert point.wa == point.ens == point.diag == accuracy
        assert (point.gain.value, point.gain.low, point.gain.high) == (0, 0, 0)
    middle = points[1]
    assert middle.wa == pairwise_accuracy(contest.average(["a", "b"], [0.5, 0.5])["validation"])
    assert middle.ens == pairwise_accuracy(contest.ensemble(["a", "b"])["validation"])
    assert middle.diag == pytest.approx((points[0].wa + points[2].wa) / 2)
    assert middle.gain.value == pytest.approx(middle.wa - middle.diag)
    assert middle.gain.low <= middle.gain.value <= middle.gain.high


def test_the_end_points_are_those_of_averages_with_nothing_of_the_other(contest: Contest) -> None:
    assert_same(contest.average(["a", "b"], [1, 0])["validation"], contest.individual("a")["validation"])
    assert_same(contest.average(["a", "b"], [0, 1])["validation"], contest.individual("b")["validation"])


# ---- comparisons ----------------------------------------------------------------------------------------------------


def comparisons(pairs: list[Pair], length: int = 96, overlong: str = "truncate") -> Comparisons:
    from warmkit.modeling.tokens import Encoder

    return encode_pairs(pairs, Encoder(tiny.tokenizer("llama"), length), overlong)


def test_subsets_are_those_of_the_rows_and_of_swapped_labels() -> None:
    pairs = [Pair("a", "b", "c", subset="chat"), Pair("a", "b", "c", corrupt=True), Pair("a", "b", "c", subset="chat")]
    made = comparisons(pairs)
    assert made.subsets() == {"clean": [0, 2], "chat": [0, 2], "corrupt": [1]}
    assert [pair.corrupt for pair in made.only([1]).pairs] == [True]
    assert comparisons(pairs[:1]).subsets() == {"chat": [0]}


def test_pairs_that_are_too_long_are_counted_or_all_refused_with_their_lines() -> None:
    pairs = [Pair("a", "b", "c", where="x.jsonl:1"), Pair("the cat sings the sun", " the cat runs", "c", where="x.jsonl:2")]
    assert comparisons(pairs, 8).truncated == 1
    with pytest.raises(DataError, match=r"1 pairs are longer than the 8 tokens.*:\n  x\.jsonl:2: 10 tokens"):
        comparisons(pairs, 8, "refuse")


def test_pairs_that_truncation_makes_one_are_counted() -> None:
    ending = " the cat sings the sun sleeps"
    assert same_after_encoding(comparisons([Pair("a", "gold" + ending, "old" + ending)], 8)) == 1
    assert same_after_encoding(comparisons([Pair("a", "gold" + ending, "old" + ending)])) == 0


def test_answers_are_measured_with_their_end() -> None:
    made = comparisons([Pair("the cat", " sings", " sings the sun")])
    assert [lengths.tolist() for lengths in made.answer_lengths] == [[2.0], [4.0]]
