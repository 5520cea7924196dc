"""Rows of texts at models of chats: `--chat` makes chats of them, a note says where nobody asked for either."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call, Rewards, json_lines
from tests.unit.training import tiny, toy
from warmkit.recipes.recipe import recipe_text
from warmkit.training.recipe_sections import DataSection, ModelSection, Optimization, RunOutput, SftRecipe, WarmRecipe

E, LENGTH = "tests.unit.training.toy:count_e", "tests.unit.training.toy:length"
TEXTS = [{"prompt": text} for text in tiny.sentences(4, seed=3)]
CHATS = [{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in TEXTS]
NOTE = "are texts, read without the chat template of"


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("policies")
    return [tiny.make(folder / name, "llama", seed) for name, seed in (("first", 1), ("second", 2))]


@pytest.fixture
def prompts(tmp_path: Path) -> tuple[Path, Path]:
    return tiny.write(tmp_path / "texts.jsonl", TEXTS), tiny.write(tmp_path / "chats.jsonl", CHATS)


def command(verb: str, policies: list[Path], prompts: Path) -> list[object]:
    """Return a command of a verb that samples; its numbers are in its document."""
    how: list[object] = ["--prompts", prompts, "--reward", f"a={LENGTH}", "--max-new-tokens", 6, "--json"]
    found: dict[str, list[object]] = {
        "eval policy": ["eval", "policy", policies[0], *how],
        "front": ["front", policies[1], "--init", policies[0], "--eta", "0,1", *how],
        "bon": ["bon", policies[0], "--control", f"e={E}", "--samples", 3, *how],
        "sxs": ["sxs", *policies, *how],
    }
    return found[verb]


def numbers(document: dict[str, Any]) -> dict[str, Any]:
    """Return what was found, without where the prompts were and how they were read."""
    keys = ("policies", "fronts", "points", "matches", "mean_rewards")
    return {key: value for key, value in document.items() if key in keys}


@pytest.mark.parametrize("verb", ["eval policy", "front", "bon", "sxs"])
def test_texts_are_sampled_as_chats_by_a_switch(
    verb: str, call: Call, policies: list[Path], prompts: tuple[Path, Path]
) -> None:
    texts, chats = prompts
    plain, switched = call(*command(verb, policies, texts)), call(*command(verb, policies, texts), "--chat")
    written = call(*command(verb, policies, chats))
    assert numbers(json.loads(switched.stdout)) == numbers(json.loads(written.stdout))
    assert numbers(json.loads(plain.stdout)) != numbers(json.loads(written.stdout))
    assert f"4 of 4 prompts {NOTE} {policies[0]} (--chat makes chats of them)" in plain.stderr
    assert NOTE not in switched.stderr + written.stderr


def test_pools_become_chats_too_for_rewards_that_know_them(call: Call, rewards: Rewards, policies: list[Path]) -> None:
    pools = [
        tiny.write(Path(f"{name}.jsonl"), [{**row, "completions": [" runs", " sleeps"]} for row in rows])
        for name, rows in (("texts", TEXTS), ("chats", CHATS))
    ]
    how = ("--reward", f"rm={rewards.llamas[0]}", "--control", f"e={E}", "--json")
    plain, switched, written = (
        call("bon", "--pool", pool, *how, *more) for pool, more in ((pools[0], ()), (pools[0], ("--chat",)), (pools[1], ()))
    )
    assert json.loads(switched.stdout)["points"] == json.loads(written.stdout)["points"]
    assert json.loads(plain.stdout)["points"] != json.loads(written.stdout)["points"]
    assert f"4 of 4 prompts {NOTE} the reward rm (--chat makes chats of them)" in plain.stderr
    assert NOTE not in switched.stderr + written.stderr
    sampled = ("--max-new-tokens", 4, "--samples", 2, "--prompts", pools[0], "--reward", LENGTH, "--completions", "rows.jsonl")
    call("sxs", policies[0], pools[0], *sampled, "--chat")
    assert json_lines(Path("rows.jsonl").read_text())[0]["prompt"] == CHATS[0]["prompt"]


def test_a_recipe_that_says_which_is_followed_without_a_note(
    call: Call, policies: list[Path], prompts: tuple[Path, Path], tmp_path: Path
) -> None:
    made = toy.recipe(tmp_path)
    found: dict[bool | None, Any] = {}
    for chat in (True, False, None):
        recipe = replace(made, data=replace(made.data, chat=chat))
        (tmp_path / "recipe.yaml").write_text(recipe_text(recipe))
        found[chat] = call(*command("eval policy", policies, prompts[0]), "--recipe", tmp_path / "recipe.yaml")
    assert [NOTE in found[chat].stderr for chat in (True, False, None)] == [False, False, True]
    assert numbers(json.loads(found[None].stdout)) == numbers(json.loads(found[False].stdout))
    as_chats = call(*command("eval policy", policies, prompts[1]), "--recipe", tmp_path / "recipe.yaml")
    assert numbers(json.loads(found[True].stdout)) == numbers(json.loads(as_chats.stdout))


# ---- training -------------------------------------------------------------------------------------------------------


def recipe_of(verb: str, folder: Path) -> Any:
    if verb == "policy":
        return toy.recipe(folder)
    if verb == "rm":
        return tiny.recipe(folder, "llama")
    rows = tiny.write(folder / "sft.jsonl", [{"prompt": "the", "completion": f" {text}"} for text in tiny.sentences(6)])
    model = ModelSection(str(tiny.model("llama", folder / "llama")))
    return SftRecipe(model, DataSection(str(rows)), RunOutput(str(folder / "run")), Optimization(steps=1))


@pytest.mark.parametrize("verb", ["rm", "sft", "policy"])
def test_training_says_that_texts_are_learned_by_a_model_of_chats(verb: str, call: Call, tmp_path: Path) -> None:
    recipe = recipe_of(verb, tmp_path)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe_text(recipe))
    said = f"rows of data.train {NOTE} {recipe.model.path} (data.chat: true makes chats of them, false leaves them as they are)"
    assert said in call("train", verb, file, "--dry-run").stderr
    assert said in call("train", verb, file, "--set", f"{verb}.steps=1").stderr
    for chat in ("true", "false"):
        assert NOTE not in call("train", verb, file, "--dry-run", "--set", f"data.chat={chat}").stderr


def test_nothing_is_said_of_chats_and_of_models_without_a_template(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe_text(tiny.recipe(tmp_path, "gpt2")))
    assert NOTE not in call("train", "rm", file, "--dry-run").stderr
    recipe = recipe_of("policy", tmp_path)
    file.write_text(recipe_text(replace(recipe, data=replace(recipe.data, train=str(tiny.write(tmp_path / "c.jsonl", CHATS))))))
    assert NOTE not in call("train", "policy", file, "--dry-run").stderr


def test_the_pipelines_say_it_once(tmp_path: Path) -> None:
    from warmkit.pipelines.warm import train_probe
    from warmkit.training.telling import tell_prompts

    made, said = tiny.recipe(tmp_path, "llama"), list[str]()
    recipe = WarmRecipe(made.model, made.data, made.output)
    train_probe(recipe, tmp_path / "out", said.append)
    train_probe(recipe, tmp_path / "out", said.append)
    prompts = tiny.write(tmp_path / "prompts.jsonl", TEXTS)
    tell_prompts(said.append, str(prompts), made.model.path, None)
    tell_prompts(said.append, str(prompts), made.model.path, False)
    assert [NOTE in line for line in said] == [True, True]
