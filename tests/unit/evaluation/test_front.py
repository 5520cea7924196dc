"""A front starts at the init, ends in the merge that would be on disk, and costs one evaluation a point."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warmkit
from tests.unit.training import tiny, toy
from warmkit.errors import DataError, MismatchError, UsageError, WarmkitError
from warmkit.evaluation.accuracy import Estimate, interval
from warmkit.evaluation.answers import Answers
from warmkit.evaluation.front import FrontPoint, best, evaluations, open_mergers, simplex, sweep, trajectory
from warmkit.evaluation.policies import Candidate, EvaluationSettings, PolicyTrial
from warmkit.training.policy import train_policy
from warmkit.training.policy_recipe import RewardTerm
from warmkit.verbs.merger import Merger

LENGTH = RewardTerm(function="tests.unit.training.toy:length")


class Policies:
    """Policies trained for a few steps on different rewards, their init, and what evaluates them."""

    def __init__(self, folder: Path) -> None:
        self.runs = [folder / "run-0", folder / "run-1", folder / "run-2"]
        for number, reward in enumerate((toy.E, LENGTH, toy.E)):
            how: dict[str, Any] = {"seed": number, "steps": 8, "lr": 3e-3, "baseline": "leave-one-out"}
            recipe = toy.recipe(folder, f"run-{number}", rewards=[reward], evaluate_every=4 if number else None, **how)
            train_policy(replace(recipe, controls=[LENGTH]))
        self.init, self.paths = str(folder / "llama"), [str(run / "model") for run in self.runs]
        settings = EvaluationSettings(
            str(folder / "held-out.jsonl"), [toy.E], [LENGTH], self.init, samples=3, max_new_tokens=8, seed=5
        )
        self.trial = PolicyTrial(settings)
        self.candidate = self.trial.open(self.init)

    def merger(self, count: int = 2, method: str = "slerp") -> Merger:
        return open_mergers(self.init, self.paths[:count], [method])[method]

    def alone(self, path: Path | str) -> Answers:
        return self.trial.open(str(path)).answers()


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Policies:
    return Policies(tmp_path_factory.mktemp("policies"))


def assert_point(point: FrontPoint, answers: Answers) -> None:
    """Check every number of a point against answers, the intervals too."""
    assert point.values.keys() == answers.values.keys()
    for name, estimate in point.values.items():
        expected = answers.estimate(name)
        found = (estimate.value, estimate.low, estimate.high)
        assert found == pytest.approx((expected.value, expected.low, expected.high), abs=1e-9), name


# ---- where a front begins and ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["slerp", "lerp"])
def test_the_front_goes_from_the_init_to_the_merge_on_disk(method: str, policies: Policies, tmp_path: Path) -> None:
    start, middle, end = sweep(policies.candidate, policies.merger(method=method), [0, 0.4, 1])
    assert [point.eta for point in (start, middle, end)] == [0, 0.4, 1]
    assert_point(start, policies.alone(policies.init))
    assert abs(start.values["kl_sft"].value) < 1e-6
    for eta, point in ((0.4, middle), (1, end)):
        warmkit.merge(policies.paths[:2], tmp_path / f"{eta}", init=policies.init, method=method, eta=eta)
        assert_point(point, policies.alone(tmp_path / f"{eta}"))
    assert 0 < middle.values["kl_sft"].value < end.values["kl_sft"].value


def test_the_front_of_one_policy_is_its_liti(policies: Policies, tmp_path: Path) -> None:
    points = sweep(policies.candidate, policies.merger(1, "lerp"), [0.3, 1])
    warmkit.liti(policies.paths[0], tmp_path / "liti", init=policies.init, eta=0.3)
    assert_point(points[0], policies.alone(tmp_path / "liti"))
    assert_point(points[1], policies.alone(policies.paths[0]))


@pytest.mark.parametrize("method", ["slerp", "lerp"])
def test_mixes_of_one_policy_alone_are_that_policy(method: str, policies: Policies) -> None:
    points = sweep(policies.candidate, policies.merger(method=method), [1], simplex(2, 2))
    assert [point.coefficients for point in points] == [[1, 0], [0.5, 0.5], [0, 1]]
    for point, path in ((points[0], policies.paths[0]), (points[-1], policies.paths[1])):
        assert_point(point, policies.alone(path))


def test_a_soup_of_three_has_its_policies_at_the_corners(policies: Policies, tmp_path: Path) -> None:
    grid = simplex(3, 2)
    points = sweep(policies.candidate, policies.merger(3, "lerp"), [1], grid)
    for number, path in enumerate(policies.paths):
        corner = points[grid.index([float(number == place) for place in range(3)])]
        assert_point(corner, policies.alone(path))
    inner = points[grid.index([0.5, 0, 0.5])]
    warmkit.merge(policies.paths, tmp_path / "soup", method="lerp", coefficients=[0.5, 0, 0.5])
    assert_point(inner, policies.alone(tmp_path / "soup"))


def test_the_order_of_the_points_changes_none_of_them(policies: Policies) -> None:
    forth = sweep(policies.candidate, policies.merger(), [0, 0.5, 1])
    back = sweep(policies.candidate, policies.merger(), [1, 0.5, 0])
    assert forth == back[::-1]


# ---- what it costs --------------------------------------------------------------------------------------------------


class Counted(Candidate):
    """A candidate that counts its evaluations."""

    count = 0

    def answers(self, samples: int | None = None) -> Answers:
        self.count += 1
        return super().answers(samples)


def test_every_point_costs_one_evaluation_and_the_init_one_for_all_mixes(policies: Policies) -> None:
    own, trial = policies.candidate, policies.trial
    counted, told = Counted(own.path, own.evaluator, own.data, trial.sft, trial.settings), list[tuple[int, int]]()
    sweep(counted, policies.merger(), [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
    assert counted.count == 11
    points = sweep(counted, policies.merger(), [0.5, 0], simplex(2, 2), lambda done, total: told.append((done, total)))
    assert counted.count == 11 + 4
    assert told == [(1, 4)] * 4
    assert [(point.eta, point.coefficients) for point in points][:3] == [(0.5, [1, 0]), (0, [1, 0]), (0.5, [0.5, 0.5])]
    assert points[1].values == points[3].values == points[5].values


def test_what_does_not_fit_is_refused_before_anything_is_sampled(policies: Policies, tmp_path: Path) -> None:
    own, trial = policies.candidate, policies.trial
    counted, merger = Counted(own.path, own.evaluator, own.data, trial.sft, trial.settings), policies.merger()
    for etas, mixes, said in (
        ([0.5, float("nan")], [None], "finite"),
        ([0.5, 0.5], [None], "different etas"),
        ([], [None], "different etas"),
        ([1], [[0.5, 0.5], [0.5, 0.5]], "different mixes"),
        ([1], [None, [0.5, 0.3, 0.2]], "expected 2 coefficients"),
        ([1], [[-0.5, 1.5]], "cannot be negative"),
    ):
        with pytest.raises(UsageError, match=said):
            sweep(counted, merger, etas, mixes)
    assert counted.count == 0
    other = tiny.make(tmp_path / "other", "llama", num_hidden_layers=1)
    with pytest.raises(MismatchError, match="does not fit"):
        open_mergers(policies.init, [*policies.paths, str(other)], ["slerp"])
    with pytest.raises(UsageError, match="lerp twice"):
        open_mergers(policies.init, policies.paths, ["lerp", "lerp"])


# ---- grids, intervals, trajectories ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("models", "steps", "count"), [(2, 1, 2), (2, 10, 11), (3, 4, 15), (4, 3, 20)])
def test_a_grid_holds_every_mix_of_its_steps_once(models: int, steps: int, count: int) -> None:
    grid = simplex(models, steps)
    assert len(grid) == len({tuple(mix) for mix in grid}) == count
    for mix in grid:
        assert len(mix) == models
        assert sum(mix) == pytest.approx(1)
        assert all(share >= 0 and share * steps == pytest.approx(round(share * steps)) for share in mix)
    assert grid[0] == [1.0] + [0.0] * (models - 1)
    assert grid[-1] == [0.0] * (models - 1) + [1.0]
    for wrong in ((1, 3), (2, 0)):
        with pytest.raises(UsageError, match="at least 2 models and 1 step"):
            simplex(*wrong)


def test_intervals_are_those_of_one_number_alone(policies: Policies) -> None:
    (point,) = sweep(policies.candidate, policies.merger(), [0.7])
    policies.candidate.load_weights(policies.merger().state_dict(eta=0.7))
    expected = interval(policies.candidate.answers().values["reward"].mean(1))
    found = point.values["reward"]
    assert np.allclose([found.value, found.low, found.high], [expected.value, expected.low, expected.high])
    assert found.low < found.value < found.high


def test_a_point_reads_as_it_was_written(policies: Policies) -> None:
    points = sweep(policies.candidate, policies.merger(method="lerp"), [0.5], [None, [0.25, 0.75]])
    written = json.loads(json.dumps([point.to_dict() for point in points]))
    assert [each["coefficients"] for each in written] == [None, [0.25, 0.75]]
    read = [{**each, "values": {name: Estimate(**known) for name, known in each["values"].items()}} for each in written]
    assert [FrontPoint(**each) for each in read] == points


def test_the_best_point_has_the_highest_reward(policies: Policies) -> None:
    points = sweep(policies.candidate, policies.merger(), [0, 0.5, 1])
    assert best(points).values["reward"].value == max(point.values["reward"].value for point in points)


def test_a_trajectory_is_of_the_evaluations_or_else_of_the_batches(policies: Policies) -> None:
    lines = [json.loads(line) for line in (policies.runs[0] / "metrics.jsonl").read_text().splitlines()]
    assert evaluations(policies.runs[0]) == []
    batches = trajectory(policies.runs[0])
    assert [each["step"] for each in batches] == list(range(1, 9))
    assert [each["kl_sft"] for each in batches] == [line["kl_sft"] for line in lines]
    lines = [json.loads(line) for line in (policies.runs[1] / "metrics.jsonl").read_text().splitlines()]
    evaluated = trajectory(policies.runs[1])
    assert evaluated == evaluations(policies.runs[1])
    assert [each["step"] for each in evaluated] == [4, 8]
    for each, line in zip(evaluated, [lines[3], lines[7]]):
        for name in ("reward", "kl_sft", "control_length", "length"):
            assert each[name] == line[f"validation_{name}"]
        assert not any(name.startswith("validation_") for name in each)


def test_directories_without_the_metrics_of_a_policy_have_no_trajectory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected the directory of a run, with metrics\.jsonl"):
        trajectory(tmp_path)
    for content in (b'{"step": 1, "loss": 0.3}\n', b"", b"[1]\n", b"{\n", b"\xff\n", b"[" * 100_000):
        (tmp_path / "metrics.jsonl").write_bytes(content)
        with pytest.raises(WarmkitError, match=r"metrics\.jsonl.*expected step, reward and kl_sft on every line"):
            trajectory(tmp_path)
