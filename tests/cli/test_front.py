"""`warmkit front`: a table, a document, pictures, and one line for what does not fit together."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call
from tests.unit.training import tiny, toy
from warmkit.recipes.recipe import recipe_text
from warmkit.training.policy import train_policy
from warmkit.training.policy_recipe import RewardTerm

E, LENGTH = "tests.unit.training.toy:count_e", "tests.unit.training.toy:length"


@dataclass(frozen=True)
class Trained:
    """Two policies of one init, their runs, and the recipe of the first."""

    init: str
    runs: list[Path]
    prompts: str
    recipe: Path

    @property
    def policies(self) -> list[str]:
        return [str(run / "model") for run in self.runs]

    @property
    def options(self) -> list[str]:
        return ["--init", self.init, "--prompts", self.prompts, "--reward", f"e={E}", "--max-new-tokens", "8"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("front")
    for number, term in enumerate((toy.E, RewardTerm(function=LENGTH))):
        how: dict[str, Any] = {"seed": number, "steps": 6, "lr": 3e-3, "evaluate_every": 3 if number else None}
        recipe = replace(toy.recipe(folder, f"run-{number}", rewards=[term], **how), controls=[RewardTerm(function=LENGTH)])
        train_policy(recipe)
        (folder / f"recipe-{number}.yaml").write_text(recipe_text(recipe))
    runs = [folder / "run-0", folder / "run-1"]
    return Trained(str(folder / "llama"), runs, str(folder / "held-out.jsonl"), folder / "recipe-0.yaml")


def test_slerp_and_lerp_are_swept_side_by_side(call: Call, trained: Trained) -> None:
    runs = [part for run in trained.runs for part in ("--run", str(run))]
    sweep = ["--eta", "0,0.5,1", "-m", "slerp", "-m", "lerp", "--control", f"long={LENGTH}", "--samples", 2, *runs]
    done = call("front", *trained.policies, *trained.options, *sweep, "--plot", "front.png", "-o", "out/front.json", "--json")
    document = json.loads(done.stdout)
    assert document == json.loads(Path("out/front.json").read_text())
    assert document["policies"] == dict(zip(["run-0", "run-1"], trained.policies))
    assert (document["prompts"], document["evaluations"], document["settings"]["samples"]) == (5, 6, 2)
    for method in ("slerp", "lerp"):
        points = document["fronts"][method]
        assert [point["eta"] for point in points] == [0, 0.5, 1]
        assert [point["coefficients"] for point in points] == [None] * 3
        kl = [point["values"]["kl_sft"]["value"] for point in points]
        assert abs(kl[0]) < 1e-6
        assert kl[0] < kl[1] < kl[2]
        for point in points:
            for name in ("reward", "reward_e", "control_long", "length"):
                estimate = point["values"][name]
                assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert document["fronts"]["slerp"][0]["values"] == document["fronts"]["lerp"][0]["values"]
    assert document["fronts"]["slerp"][2]["values"] != document["fronts"]["lerp"][2]["values"]
    rewards = [point["values"]["reward"]["value"] for points in document["fronts"].values() for point in points]
    assert document["best"]["values"]["reward"]["value"] == max(rewards)
    assert [len(document["trajectories"][run.name]) for run in trained.runs] == [6, 2]
    assert "run-0: not evaluated on the way" in done.stderr
    assert "run-1: not" not in done.stderr
    assert Path("front.png").read_bytes().startswith(b"\x89PNG")


def test_the_end_of_a_front_is_what_eval_says_of_the_merge(call: Call, trained: Trained) -> None:
    shown = json.loads(call("front", *trained.policies, *trained.options, "--eta", "1", "--json").stdout)
    call("merge", *trained.policies, "--init", trained.init, "-o", "merged")
    options = [*trained.options[2:], "--sft", trained.init, "--samples", 1, "--json"]
    alone = json.loads(call("eval", "policy", "merged", *options).stdout)["policies"][0]
    values = shown["fronts"]["slerp"][0]["values"]
    for name in ("reward", "kl_sft", "length"):
        assert values[name]["value"] == pytest.approx(alone[name]["value"], abs=1e-6)


def test_without_etas_there_are_eleven_in_a_table(call: Call, trained: Trained) -> None:
    shown = call("front", *trained.policies, "--init", trained.init, "--recipe", trained.recipe).stdout
    rows = [line.split() for line in shown.splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"]
    for word in ("eta", "reward (95%)", "control length (95%)", "KL (95%)", "length", "Highest mean reward: "):
        assert word in shown
    assert "method" not in shown


def test_a_grid_over_two_rewards_is_a_rewarded_soup(call: Call, trained: Trained) -> None:
    rewards = ["--reward", f"long=0.1*{LENGTH}", "-m", "lerp", "--json"]
    done = call("front", *trained.policies, *trained.options, *rewards, "--grid", 4, "--plot-rewards", "soup.png")
    points = json.loads(done.stdout)["fronts"]["lerp"]
    assert [point["coefficients"] for point in points] == [[1, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0, 1]]
    assert {point["eta"] for point in points} == {1}
    for point, policy in ((points[0], trained.policies[0]), (points[-1], trained.policies[1])):
        alone = json.loads(call("front", policy, *trained.options, *rewards, "--eta", "1").stdout)["fronts"]["lerp"][0]
        assert point["values"] == alone["values"]
    assert Path("soup.png").read_bytes().startswith(b"\x89PNG")
    slid = json.loads(call("front", *trained.policies, *trained.options, *rewards, "--lambda", "0,0.25,0.5,0.75,1").stdout)
    assert slid["fronts"]["lerp"] == points
    shown = call("front", *trained.policies, *trained.options, *rewards[:-1], "--lambda", "0.25").stdout
    assert "lambda 0.25" in shown
    assert "reward long (95%)" in shown


def test_one_policy_alone_has_its_liti(call: Call, trained: Trained) -> None:
    shown = json.loads(call("front", trained.policies[0], *trained.options, "--eta", "0,1.2", "--json").stdout)
    start, beyond = shown["fronts"]["lerp"]
    assert abs(start["values"]["kl_sft"]["value"]) < 1e-6 < beyond["values"]["kl_sft"]["value"]


def test_what_cannot_be_asked_is_refused(call: Call, trained: Trained) -> None:
    (a, b), options = trained.policies, trained.options
    for arguments, said in (
        ((a, a, *options), "twice"),
        ((a, b, *options, "--eta", "0,x"), "--eta: expected numbers with commas"),
        ((a, b, *options, "--eta", "nan"), "finite"),
        ((a, b, *options, "--eta", "0.5,0.5"), "expected different etas"),
        ((a, b, *options, "--lambda", "0,0"), "expected different mixes"),
        ((a, b, *options, "--lambda", "0", "--grid", 2), "give one"),
        ((a, b, b + "/../model", *options, "--lambda", "0"), "use --grid"),
        ((a, *options, "--lambda", "0"), "--lambda mixes policies: give at least two"),
        ((a, *options, "--grid", 2), "--grid mixes policies: give at least two"),
        ((a, b, *options, "--lambda", "2"), "cannot be negative"),
        ((a, b, *options, "-m", "uniform", "--grid", 2), "weighs all models alike"),
        ((a, b, *options, "-m", "slurp"), "did you mean 'slerp'"),
        ((a, b, *options, "-m", "lerp", "-m", "lerp"), "lerp twice"),
        ((a, b, *options, "--plot", "x.docx"), "expected a picture"),
        ((a, b, *options, "--plot-rewards", "x.png"), "give two of --reward or --control"),
        ((a, b, "--init", trained.init), "expected --prompts and --reward, or a --recipe"),
        ((a, b, *options[2:]), "--init"),
    ):
        assert said in call("front", *arguments, code=2).stderr
    Path("there.json").write_text("{}")
    assert "already exists" in call("front", a, b, *options, "-o", "there.json", code=1).stderr
    assert "expected the directory of a run" in call("front", a, b, *options, "--run", a, code=1).stderr
    other = tiny.make(Path("other"), "llama", num_hidden_layers=1)
    refused = call("front", a, other, *options, "--json", code=1)
    assert "does not fit" in refused.stderr
    assert json.loads(refused.stdout)["error"]["kind"] == "MismatchError"
    assert not [*Path().glob("*.png")]


def test_without_what_draws_nothing_is_sampled(call: Call, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "vl_convert" else find(name, *rest))
    said = call("front", *trained.policies, *trained.options, "--plot", "x.png", code=2).stderr
    assert "pip install 'warmkit[report]'" in said
