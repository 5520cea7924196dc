"""`warmkit bon`: one pool, many N, many choosers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Call, Rewards, json_lines
from tests.unit.training import tiny, toy
from warmkit.evaluation.best_of_n import best_of_n, kl_of_best_of
from warmkit.modeling.reward_model import load_scorer
from warmkit.recipes.recipe import recipe_text

E, LENGTH = "e=tests.unit.training.toy:count_e", "length=tests.unit.training.toy:length"


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model("llama", tmp_path_factory.mktemp("policy") / "llama")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "prompts.jsonl", [{"prompt": text} for text in tiny.sentences(6)])


def test_a_pool_is_sampled_once_and_scored_again(call: Call, policy: Path, prompts: Path, rewards: Rewards) -> None:
    a, b = rewards.llamas[:2]
    who = ("--reward", f"ens={a},{b}", "--reward", f"one={a}", "--reward", LENGTH, "--control", E, "--n", "8,1,3")
    how = ("--prompts", prompts, "--samples", 8, "--max-new-tokens", 6, "--pool", "pool.jsonl", "-o", "bon.json")
    done = call("bon", policy, *how, *who, "--plot", "bon.png", "--json")
    document = json.loads(done.stdout)
    assert document == json.loads(Path("bon.json").read_text())
    assert (document["samples"], document["prompts"]["number"]) == (8, 6)
    again = json.loads(call("bon", "--pool", "pool.jsonl", *who, "--json").stdout)
    assert again["points"] == document["points"]
    assert Path("bon.png").read_bytes().startswith(b"\x89PNG")

    pool = json_lines(Path("pool.jsonl").read_text())
    gold = np.array([[text.count("e") for text in row["completions"]] for row in pool], dtype=float)
    length = np.array([[len(text) for text in row["completions"]] for row in pool], dtype=float)
    texts = [(row["prompt"], text) for row in pool for text in row["completions"]]
    one, other = (np.array(load_scorer(path).score(texts)).reshape(6, 8) for path in (a, b))
    found = {(point["chooser"], point["n"]): point for point in document["points"]}
    assert [*found] == [(name, n) for name in ("ens", "one", "length") for n in (1, 3, 8)]
    for name, proxy in {"length": length, "one": one, "ens": (one + other) / 2}.items():
        for n in (1, 3, 8):
            assert found[name, n]["score"]["value"] == pytest.approx(best_of_n(proxy, gold, n).mean(), abs=1e-6)
            assert found[name, n]["kl"] == kl_of_best_of(n)
            assert found[name, n]["control"] == "e"
    assert found["length", 8]["proxy"] == length.max(1).mean()


def test_the_table_shows_a_row_a_size_and_a_table_a_control(call: Call, policy: Path, prompts: Path) -> None:
    how = ("--prompts", prompts, "--samples", 4, "--max-new-tokens", 4)
    shown = call("bon", policy, *how, "--reward", LENGTH, "--control", E, "--control", LENGTH).stdout
    rows = [line.split() for line in shown.splitlines() if line.strip() and line.split()[0] in {"length", "2", "4"}]
    assert [row[:2] for row in rows] == [["length", "1"], ["2", "0.193"], ["4", "0.636"]] * 2
    assert "over length" not in shown  # one chooser has nobody to be compared with
    both = call("bon", policy, *how, "--reward", LENGTH, "--reward", E, "--control", E).stdout
    assert "over length (95%)" in both


def test_a_negative_weight_chooses_the_worst(call: Call, policy: Path, prompts: Path) -> None:
    turned = LENGTH.replace("=", "=-1*")
    how = ("--prompts", prompts, "--samples", 4, "--max-new-tokens", 4, "--n", 4, "--control", LENGTH, "--json")
    best = json.loads(call("bon", policy, *how, "--reward", LENGTH).stdout)["points"][0]
    worst = json.loads(call("bon", policy, *how, "--reward", turned).stdout)["points"][0]
    assert worst["score"]["value"] < best["score"]["value"]
    assert worst["proxy"] == -worst["score"]["value"]


def test_a_recipe_says_what_no_option_does(call: Call, tmp_path: Path) -> None:
    Path("recipe.yaml").write_text(recipe_text(toy.recipe(tmp_path)))
    how = ("--recipe", "recipe.yaml", "--control", LENGTH, "--samples", 4, "--json")
    document = json.loads(call("bon", tmp_path / "llama", *how).stdout)
    assert (document["prompts"]["number"], document["max_new_tokens"], list(document["choosers"])) == (5, 6, ["count_e"])


def test_it_chooses_among_the_answers_of_eval_policy(call: Call, policy: Path, prompts: Path) -> None:
    how = (policy, "--prompts", prompts, "--samples", 4, "--max-new-tokens", 6, "--seed", 7, "--reward", LENGTH)
    call("bon", *how, "--control", E, "--pool", "pool.jsonl")
    call("eval", "policy", *how, "--completions", "all.jsonl")
    pool = [text for row in json_lines(Path("pool.jsonl").read_text()) for text in row["completions"]]
    assert pool == [row["completion"] for row in json_lines(Path("all.jsonl").read_text())]


def test_a_server_can_choose_says_the_help(call: Call) -> None:
    shown = call("bon", "--help").stdout
    assert shown.count("http://host/score") == 1


def test_a_pool_of_another_sampler_needs_no_policy(call: Call) -> None:
    tiny.write(Path("pool.jsonl"), [{"prompt": "a", "completions": ["e", "eee", ""]}])
    document = json.loads(call("bon", "--pool", "pool.jsonl", "--reward", LENGTH, "--control", E, "--json").stdout)
    assert [(each["n"], each["score"]["value"]) for each in document["points"]] == [
        (1, pytest.approx(4 / 3)),
        (2, pytest.approx(7 / 3)),
        (3, 3),
    ]


def test_what_cannot_be_asked_is_refused(call: Call, policy: Path, prompts: Path) -> None:
    tiny.write(Path("pool.jsonl"), [{"prompt": "a", "completions": ["e", "eee"]}])
    pool, judged = ("--pool", "pool.jsonl"), ("--reward", E, "--control", E)
    for arguments, said in (
        (judged, "expected a POLICY to sample from, or --pool FILE"),
        ((*pool, *judged, "--prompts", prompts), "--prompts: for a POLICY; a pool has been sampled already"),
        (
            (*pool, *judged, "--samples", 3, "--stop", "a"),
            "--samples and --stop: for a POLICY; a pool has been sampled already",
        ),
        ((policy, *judged), "expected --prompts"),
        ((*pool, "--control", E), "expected --reward"),
        ((*pool, "--reward", E), "expected --control"),
        ((*pool, *judged, "--reward", E), "two terms are called 'e'"),
        ((*pool, *judged, "--n", "1,3"), "--n: expected 1 to 2, the samples of every prompt, found 3"),
        ((*pool, *judged, "--n", "0"), "expected whole numbers from 1, found 0"),
        ((*pool, *judged, "--n", "1.5"), "expected whole numbers from 1, found 1.5"),
        ((*pool, *judged, "--n", "nan"), "expected whole numbers from 1, found nan"),
        ((*pool, *judged, "--plot", "x.docx"), "expected a picture"),
    ):
        assert said in call("bon", *arguments, code=2).stderr
    assert "pool.jsonl: already exists" in call("bon", policy, *pool, *judged, "--prompts", prompts, code=1).stderr
    assert "cannot be read" in call("bon", "--pool", "none.jsonl", *judged, code=1).stderr
