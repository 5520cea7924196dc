"""Searches find optima that are known, go on after a kill with the same candidates, and show what is fitted to a score."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import warmkit
from tests import forks
from tests.unit.evaluation import searched
from tests.unit.modeling.test_weights import mixture
from tests.unit.training import tiny
from warmkit.errors import FormatError, OutputError, ScoreError, UsageError
from warmkit.evaluation.candidate_scores import Score, read_score
from warmkit.evaluation.search import Tried, pareto, search
from warmkit.verbs.search_space import Space, read_range

HERE = "tests.unit.evaluation.searched:"
NEARNESS, LOSS, OTHER = f"{HERE}nearness", f"{HERE}loss", f"{HERE}other"
BOTH: dict[str, Any] = {"methods": ["task-arithmetic"], "ranges": ["coefficients=0:1"]}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    return searched.family(tmp_path_factory.mktemp("searched"))


@pytest.fixture(autouse=True)
def beside_the_targets(family: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(family[0].parent)


# ---- optima ---------------------------------------------------------------------------------------------------------


def test_cmaes_finds_the_coefficients_of_a_quadratic(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    init, models = family
    found = search(models, tmp_path / "out", init=init, scores=[NEARNESS], evaluations=120, **BOTH)
    assert found.best.candidate["coefficients"] == pytest.approx(searched.BEST, abs=0.02)
    assert found.best.scores["score"] > found.tried[0].scores["score"]
    assert found.path is not None
    again = warmkit.merge(
        models, tmp_path / "again", init=init, method="task-arithmetic", coefficients=found.best.candidate["coefficients"]
    )
    for name, value in tiny.tensors(again.path).items():
        assert torch.equal(tiny.tensors(found.path)[name], value)


def test_a_loss_is_made_small(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    init, models = family
    how: dict[str, Any] = {"init": init, "evaluations": 12, "strategy": "random", **BOTH}
    more = search(models, tmp_path / "more", scores=[NEARNESS], **how)
    less = search(models, tmp_path / "less", scores=[Score("loss", LOSS, smaller=True)], **how)
    assert [each.candidate for each in more.tried] == [each.candidate for each in less.tried]
    assert more.best.candidate == less.best.candidate


def test_a_grid_tries_every_method_and_value(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    init, models = family
    found = search(
        models, tmp_path / "out", init=init, scores=[NEARNESS], methods=["lerp", "slerp"], ranges=["eta=0.2:1"], steps=3
    )
    assert [(each.candidate["method"], each.candidate.get("eta")) for each in found.tried] == [
        ("lerp", None),
        *(("lerp", eta) for eta in (0.2, 0.6, 1.0)),
        *(("slerp", eta) for eta in (0.2, 0.6, 1.0)),
    ]
    assert found.why == "there are no others"


def test_a_command_and_a_function_score_the_same_candidates_alike(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    init, models = family
    (tmp_path / "score.py").write_text(searched.SCRIPT)
    command = f"{sys.executable} {tmp_path / 'score.py'} {{}}"
    how: dict[str, Any] = {"init": init, "methods": ["lerp"], "ranges": ["lambda=0:1"], "steps": 2}
    inside, outside = (
        search(models, tmp_path / name, scores=[each], **how) for name, each in (("a", NEARNESS), ("b", command))
    )
    assert [each.candidate for each in inside.tried] == [each.candidate for each in outside.tried]
    for one, two in zip(inside.tried, outside.tried):
        assert one.scores["score"] == pytest.approx(two.scores["score"], rel=1e-5)
    assert not (tmp_path / "b" / "candidate").exists()


def test_windows_and_rates_of_a_run_are_those_of_ema(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    init, models = family
    run = [init, *models]
    ranges = [read_range("last=1:3"), read_range("mu=0.1:0.9")]
    arguments = Space(3, ["lerp"], ranges, {}).arguments({"method": "lerp", "last": 2, "mu": 0.25})
    assert arguments == {"method": "lerp", "coefficients": [0.0, 0.75, 0.25]}
    found = search(run, tmp_path / "out", scores=[NEARNESS], methods=["lerp"], ranges=["last=1:3"], steps=3)
    assert [each.candidate.get("last") for each in found.tried] == [None, 1, 2, 3]
    assert found.tried[0].scores == found.tried[3].scores


def test_a_gradient_has_its_numbers_at_the_layers(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    init, models = family
    found = search(
        models,
        tmp_path / "out",
        init=init,
        scores=[NEARNESS],
        methods=["lerp"],
        ranges=["lambda=0:1x2"],
        strategy="grid",
        steps=2,
    )
    by_value = {json.dumps(each.candidate.get("lambda")): each.scores["score"] for each in found.tried}
    assert by_value["[0.0, 1.0]"] == by_value["[1.0, 1.0]"]  # what moves lies in the last layer
    assert by_value["[1.0, 0.0]"] == by_value["[0.0, 0.0]"] != by_value["[0.0, 1.0]"]


def test_reward_models_are_scored_by_their_pairs(tmp_path: Path) -> None:
    models = [mixture(tmp_path / name, seed) for seed, name in enumerate("ab")]
    pairs = tiny.write(tmp_path / "pairs.jsonl", tiny.rows(20))
    found = search(models, tmp_path / "out", scores=[f"accuracy:{pairs}"], methods=["lerp"], ranges=["lambda=0:1"], steps=3)
    assert all(0 <= each.scores["score"] <= 1 for each in found.tried)
    assert found.tried[0].scores == found.tried[2].scores  # the mean


# ---- what is fitted, fronts -----------------------------------------------------------------------------------------


def test_the_held_out_score_shows_what_is_fitted(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """The score wants one thing and the held-out score another: the more of the one, the less of the other."""
    init, models = family
    found = search(models, tmp_path / "out", init=init, scores=[OTHER], held_out=NEARNESS, evaluations=40, **BOTH)
    steps = [each for each in found.tried if each.held_out is not None]
    assert found.best in steps
    assert found.best.scores["score"] > steps[0].scores["score"]
    assert found.best.held_out < max(each.held_out for each in steps if each.held_out is not None)  # type: ignore[operator]


def test_a_candidate_is_merged_once_for_both_scores(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    init, models = family
    seen = tmp_path / "seen"
    command = f"stat -c %y {{}}/model.safetensors >> {seen}; wc -l < {seen}"
    how: dict[str, Any] = {"init": init, "methods": ["lerp"], "ranges": ["lambda=0:1"], "steps": 3}
    found = search(models, tmp_path / "out", scores=[command], held_out=command, **how)
    times = seen.read_text().splitlines()
    assert [each.held_out is not None for each in found.tried] == [True] * 4, "the score grows with every look"
    assert times[::2] == times[1::2]
    assert len(set(times)) == 4


def test_without_cma_it_says_what_would_be_chosen(
    family: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init, models = family
    find, said = importlib.util.find_spec, list[str]()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cma" else find(name))
    search(models, tmp_path / "out", init=init, scores=[NEARNESS], evaluations=1, report=said.append, **BOTH)
    assert said[0] == "CMA-ES would be chosen here, and needs cma: pip install 'warmkit[search]'"


def test_several_scores_give_what_no_other_beats(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    init, models = family
    scores = [f"near={NEARNESS}", f"other={OTHER}"]
    found = search(models, tmp_path / "out", init=init, scores=scores, strategy="random", evaluations=30, **BOTH)
    assert found.path is None
    assert not (tmp_path / "out" / "model").exists()
    for each in found.front:
        assert not any(
            all(one.scores[name] >= each.scores[name] for name in each.scores) and one.scores != each.scores
            for one in found.tried
        )
    near = [each.scores["near"] for each in found.front]
    assert near == sorted(near, reverse=True)
    assert len(near) > 1


def test_of_equals_the_first_is_on_the_front() -> None:
    rows = [
        Tried(number, {"method": "lerp"}, {"a": a, "b": b}, None, {})
        for number, (a, b) in enumerate([(1, 0), (0, 1), (1, 0), (0, 0)])
    ]
    assert [each.number for each in pareto(rows, [Score("a", "x"), Score("b", "x")])] == [0, 1]
    assert [each.number for each in pareto(rows, [Score("a", "x", smaller=True), Score("b", "x")])] == [1]


# ---- going on -------------------------------------------------------------------------------------------------------


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def untimed(rows: Sequence[Any]) -> list[Any]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_killed_search_goes_on_with_the_same_candidates(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    init, models = family
    how: dict[str, Any] = {"init": init, "scores": ["near:nearness"], "evaluations": 40, **BOTH}
    whole = search(models, tmp_path / "whole", **how)
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "warmkit", "search", *map(str, models), "--init", str(init), "-o", str(out), "-q"]
    command += ["-m", "task-arithmetic", "--range", "coefficients=0:1", "--score", "near:nearness", "--evaluations", "40"]
    for count in (4, 15):
        process = forks.Popen(command)
        while not (out / "search.jsonl").exists() or len(lines_so_far(out / "search.jsonl")) < count:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = lines_so_far(out / "search.jsonl")
    with (out / "search.jsonl").open("ab") as file:
        file.write(b'{"number": 99, "candi')  # what a kill may leave
    done = forks.run(command, text=True)
    assert done.returncode == 0, done.stderr
    after = lines(out / "search.jsonl")
    assert after[: len(before)] == before
    assert untimed(after) == [after[0], *untimed(lines(tmp_path / "whole" / "search.jsonl")[1:])]
    assert tiny.tensors(out / "model").keys() == tiny.tensors(tmp_path / "whole" / "model").keys()
    assert whole.best.candidate == json.loads((out / "search.json").read_text())["best"]["candidate"]


def lines_so_far(file: Path) -> list[Any]:
    content = file.read_bytes()
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def test_more_evaluations_go_on_and_fewer_score_nothing(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    init, models = family
    how: dict[str, Any] = {"init": init, "scores": [NEARNESS], **BOTH}
    few = search(models, tmp_path / "out", evaluations=5, **how)
    many = search(models, tmp_path / "out", evaluations=9, **how)
    assert many.tried[:5] == few.tried
    assert len(many.tried) == 9
    assert search(models, tmp_path / "out", evaluations=3, **how).tried == few.tried[:3]


def test_a_time_ends_it(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    init, models = family
    found = search(models, tmp_path / "out", init=init, scores=[NEARNESS], minutes=1e-6, **BOTH)
    assert len(found.tried) == 1
    assert found.why == "the time is spent"


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ranges": []}, "expected what to search"),
        ({"ranges": ["lamda=0:1"]}, "no number of a merge is called 'lamda'.*lambda"),
        ({"ranges": ["lambda=1:0"]}, "expected a smaller and a larger number"),
        ({"ranges": ["lambda"]}, "expected NAME=LOW:HIGH"),
        ({"ranges": ["eta=0:1x3"]}, "eta: LITI's update rate is one number"),
        ({"ranges": ["lambda=0:1", "coefficients=0:1"]}, "all say what to mix"),
        ({"ranges": ["lambda=0:1", "lambda=0:1"]}, "given twice"),
        ({"ranges": ["last=1:9"]}, "expected 1 to 2, the checkpoints there are"),
        ({"ranges": ["density=0.1:1"]}, "density"),
        ({"methods": ["slerp"], "init": None}, "slerp needs --init"),
        ({"ranges": ["eta=0:1"], "init": None}, "--init"),
        ({"scores": []}, "expected scores"),
        ({"scores": [NEARNESS, OTHER]}, "expected scores of different names"),
        ({"scores": ["evaluate.py"]}, "expected a command with {}"),
        ({"scores": [f"{HERE}missing"]}, "score .*missing: cannot be imported"),
        ({"scores": ["accuracy:pairs.jsonl"]}, "has no scalar head"),
        ({"strategy": "cmaes"}, "at least two numbers"),
        ({"strategy": "annealing"}, "expected cmaes, grid or random"),
        ({"evaluations": 0}, "at least 1 evaluation"),
        ({"scores": [f"a={NEARNESS}", f"b={OTHER}"], "held_out": NEARNESS}, "--held-out is for one score"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    given: dict[str, Any], said: str, family: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    init, models = family
    how: dict[str, Any] = {"init": init, "scores": [NEARNESS], "methods": ["lerp"], "ranges": ["lambda=0:1"], **given}
    with pytest.raises(UsageError, match=said):
        search(models, tmp_path / "out", **how)


@pytest.mark.parametrize(
    ("score", "said"), [("not_a_number", "expected a finite number, found nan"), ("broken", "KeyError: 'gold'")]
)
def test_a_score_that_fails_is_one_line_and_what_was_scored_stays(
    score: str, said: str, family: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    init, models = family
    with pytest.raises(ScoreError, match=said):
        search(models, tmp_path / "out", init=init, scores=[f"{HERE}{score}"], methods=["lerp"], ranges=["lambda=0:1"])
    assert len(lines(tmp_path / "out" / "search.jsonl")) == 1
    again = search(models, tmp_path / "out", init=init, scores=[NEARNESS], methods=["lerp"], ranges=["lambda=0:1"], steps=2)
    assert len(again.tried) == 3, "another question takes the place of one without an answer"


def test_another_search_in_the_folder_is_refused(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    init, models = family
    how: dict[str, Any] = {"init": init, "methods": ["lerp"], "ranges": ["lambda=0:1"], "steps": 2}
    search(models, tmp_path / "out", scores=[NEARNESS], **how)
    with (tmp_path / "out" / "search.jsonl").open("rb") as working:
        fcntl.flock(working, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another search is working here"):
            search(models, tmp_path / "out", scores=[NEARNESS], **how)
    with pytest.raises(OutputError, match="holds a search of other models, ranges or scores"):
        search(models, tmp_path / "out", scores=[OTHER], **how)
    journal = tmp_path / "out" / "search.jsonl"
    journal.write_text(journal.read_text().replace('"number": 1', '"number": 7'))
    with pytest.raises(FormatError, match=r"search.jsonl:3: is no candidate"):
        search(models, tmp_path / "out", scores=[NEARNESS], **how)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="is there and holds no search"):
        search(models, tmp_path / "notes", scores=[NEARNESS], **how)


def test_names_of_scores_are_not_variables_of_a_command() -> None:
    assert read_score("CUDA_VISIBLE_DEVICES=0 python s.py {}").name == "score"
    assert read_score("tone=python s.py {}") == Score("tone", "python s.py {}")
