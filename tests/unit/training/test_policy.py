"""Training a policy: what moves, what stays, the same result in another way, after a kill too, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training import tiny, toy
from tests.unit.training.killed import kill_after
from warmkit.common.random_streams import generator
from warmkit.errors import DataError, RecipeError, ScoreError, TrainingError, UnsupportedError, UsageError
from warmkit.recipes.recipe import read_recipe, recipe_text
from warmkit.training.anchor import Anchor
from warmkit.training.optimizers import build_optimizer
from warmkit.training.policy import train_policy
from warmkit.training.policy_opening import open_policy
from warmkit.training.policy_recipe import PolicyRecipe, PolicySection, RewardTerm, ValueSection
from warmkit.training.policy_step import take_step
from warmkit.training.recipe_sections import LoraSection

transformers = pytest.importorskip("transformers")

CLOCK = ("seconds", "tokens_per_second")
LENGTH = RewardTerm(function="tests.unit.training.toy:length")


def metrics(recipe: PolicyRecipe) -> list[dict[str, Any]]:
    """Return the metrics without what a clock says."""
    lines = (Path(recipe.output.path) / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.startswith(CLOCK)} for line in lines]


# ---- it learns what it should ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", tiny.DECODERS)
def test_every_tensor_moves_and_the_result_is_a_plain_model(architecture: str, tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path, architecture=architecture)
    result = train_policy(recipe)
    before, after = tiny.tensors(Path(recipe.model.path)), tiny.tensors(result.path)
    assert set(before) == set(after)
    assert [name for name in after if torch.equal(before[name], after[name])] == []
    model = transformers.AutoModelForCausalLM.from_pretrained(result.path)
    assert model.config.architectures == [type(model).__name__]
    assert transformers.AutoTokenizer.from_pretrained(result.path)("the cat")["input_ids"]


@pytest.mark.parametrize("architecture", tiny.DECODERS)
def test_transformers_alone_says_what_the_trained_policy_says(architecture: str, tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path, architecture=architecture)
    task = open_policy(recipe)
    optimizer = build_optimizer(task.model, task.how)
    for step in range(3):
        take_step(task, optimizer, step, 3)
    path = train_policy(recipe).path
    plain, own = (library.from_pretrained(path) for library in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer))
    inputs = own(tiny.sentences(1), return_tensors="pt")
    task.model.eval()
    with torch.no_grad():
        assert torch.equal(plain(**inputs).logits, task.model.cpu()(**inputs).logits)
        said = plain.generate(**inputs, max_new_tokens=5, do_sample=False)
        greedy = task.model.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert torch.equal(said, greedy)
    assert said.shape[1] > inputs["input_ids"].shape[1]


@pytest.mark.parametrize("anchor", ["ema", "init"])
def test_lora_moves_every_layer_and_the_anchor_over_adapters(anchor: str, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft")
    recipe = replace(toy.recipe(tmp_path, lr=1e-2, anchor=anchor, mu=0.5, keep=[3]), lora=LoraSection(rank=2))
    result = train_policy(recipe)
    before, after = tiny.tensors(Path(recipe.model.path)), tiny.tensors(result.path)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert set(before) == set(after)
    assert all(any(f".{layer}." in name for name in moved) for layer in range(tiny.LAYERS))
    assert tiny.bytes_of(result.kept[3]) == tiny.bytes_of(result.path)
    last = metrics(recipe)[-1]
    assert (last["kl_anchor"] < last["kl_sft"]) == (anchor == "ema")


def test_a_run_whose_anchor_averaged_factors_does_not_go_on_with_an_average_of_matrices(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft")
    recipe = replace(toy.recipe(tmp_path, save_every=2), lora=LoraSection(rank=2))
    stopped = iter([None, None])  # the beginning, and the first step
    with pytest.raises(StopIteration):
        train_policy(recipe, advance=lambda *_: next(stopped))
    file = Path(recipe.output.path) / "state.pt"
    state = torch.load(file)
    factors = {name: each.float() for name, each in state["model"].items() if ".lora_" in name}
    torch.save({**state, "anchor": factors}, file)
    with pytest.raises(TrainingError) as error:
        train_policy(recipe)
    assert str(error.value) == (
        f"{file}: an older warmkit began this run, whose anchor under lora averaged the factors of adapters; now it averages "
        "the matrices that they stand for, another average, so the run cannot go on as it began. Start again: choose another "
        "output.path, or delete the run"
    )


def test_without_a_kl_the_reward_rises_and_under_a_large_one_the_policy_stays(tmp_path: Path) -> None:
    how: dict[str, Any] = {
        "steps": 40,
        "lr": 1e-3,
        "batch_size": 8,
        "samples": 4,
        "baseline": "leave-one-out",
        "anchor": "init",
    }
    free, tied = (toy.recipe(tmp_path, f"beta-{beta}", beta=beta, **how) for beta in (0.0, 30.0))
    gains = {name: train_policy(each).summary for name, each in (("free", free), ("tied", tied))}
    start = metrics(free)[0]["reward"]
    assert gains["free"]["validation_reward"] > start + 2
    assert gains["free"]["validation_kl_sft"] > 1
    assert gains["tied"]["validation_kl_sft"] < 0.15
    assert metrics(free)[0]["kl_sft"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("samples", "baseline"),
    [(1, "batch"), (1, "none"), (1, "value"), (2, "leave-one-out"), (4, "leave-one-out"), (4, "group"), (4, "value")],
)
def test_every_number_of_samples_and_baseline_learns(samples: int, baseline: str, tmp_path: Path) -> None:
    recipe = replace(toy.recipe(tmp_path, steps=2, samples=samples, baseline=baseline), value=ValueSection(1e-3, 0))
    train_policy(recipe)
    lines = metrics(recipe)
    assert all(line["grad_norm"] > 0 for line in lines)
    assert all(("value_loss" in line) == (baseline == "value") for line in lines)


def test_several_updates_learn_more_of_one_batch_and_a_narrow_clip_stops_them(tmp_path: Path) -> None:
    how: dict[str, Any] = {"steps": 1, "samples": 4, "lr": 1e-2, "optimizer": "adamw", "baseline": "leave-one-out"}
    init = tiny.tensors(Path(toy.recipe(tmp_path).model.path))

    def moved(name: str, **more: Any) -> float:
        after = tiny.tensors(train_policy(toy.recipe(tmp_path, name, **how, **more)).path)
        return sum(float((after[each] - init[each]).square().sum()) for each in after)

    once, often = moved("once"), moved("often", updates=4)
    assert moved("same", ratio_clip=0.01) == once, "the first update is of the policy that sampled"
    assert often > 1.5 * once
    assert moved("narrow", updates=4, ratio_clip=1e-6, beta1=0.0) < moved("wide", updates=4, ratio_clip=10.0, beta1=0.0)


def test_the_value_model_learns_alone_at_first(tmp_path: Path) -> None:
    constant = RewardTerm(function="tests.unit.training.toy:constant", weight=3.0)
    how: dict[str, Any] = {"steps": 40, "baseline": "value", "optimizer": "adamw", "lr": 1e-3}
    recipe = replace(toy.recipe(tmp_path, rewards=[constant], **how), value=ValueSection(lr=1e-2, warmup=39))
    train_policy(recipe)
    lines = metrics(recipe)
    assert all(line["grad_norm"] == 0 and line["kl_sft"] == pytest.approx(0, abs=1e-5) for line in lines[:39])
    assert lines[39]["grad_norm"] > 0
    assert lines[0]["value"] == 0, "its head starts at zero"
    assert lines[39]["value"] == pytest.approx(3.0, abs=0.3)
    assert lines[39]["value_loss"] < lines[0]["value_loss"] / 10


def test_the_rate_warms_up_where_the_policy_learns(tmp_path: Path) -> None:
    recipe = replace(toy.recipe(tmp_path, steps=5, warmup=2, baseline="value"), value=ValueSection(1e-3, 2))
    train_policy(recipe)
    assert [line["lr"] for line in metrics(recipe)[2:]] == pytest.approx([5e-4, 1e-3, 1e-3])


def test_the_warm_up_is_the_papers_and_a_run_that_it_outlasts_is_refused(tmp_path: Path) -> None:
    assert PolicySection().warmup == 100
    with pytest.raises(UsageError, match=r"^policy\.warmup 100: the rate would never reach policy\.lr in a run of 99 steps"):
        train_policy(toy.recipe(tmp_path, steps=99, warmup=PolicySection().warmup))


def test_the_anchor_of_a_run_follows_the_policy_step_by_step(tmp_path: Path) -> None:
    task = open_policy(toy.recipe(tmp_path, mu=0.25))
    assert isinstance(task.anchor, Anchor)
    optimizer, follower = build_optimizer(task.model, task.how), Anchor(task.model, "ema", 0.25)
    for step in range(3):
        take_step(task, optimizer, step, 3)
        follower.update()
    parameters = dict(task.model.named_parameters())
    for name, copy in task.anchor.copies.items():
        assert torch.equal(copy, follower.copies[name])
        assert not torch.equal(copy, parameters[name])


# ---- rewards, controls, evaluations ---------------------------------------------------------------------------------


def test_terms_and_controls_are_logged_and_controls_change_nothing(tmp_path: Path) -> None:
    plain = toy.recipe(tmp_path, "plain", rewards=[toy.E, replace(LENGTH, name="long", weight=0.25)])
    controlled = replace(plain, controls=[LENGTH], output=replace(plain.output, path=str(tmp_path / "controlled")))
    assert tiny.bytes_of(train_policy(plain).path) == tiny.bytes_of(train_policy(controlled).path)
    for line in metrics(controlled):
        assert line["reward"] == pytest.approx(line["reward_count_e"] + 0.25 * line["reward_long"], rel=1e-5)
        assert line["control_length"] == line["reward_long"]


def test_penalties_are_taken_off_for_every_token_and_for_a_missing_end(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path, length_penalty=0.1, eos_penalty=2.0, steps=2)
    train_policy(recipe)
    for line in metrics(recipe):
        wanted = line["reward_count_e"] - 0.1 * line["length"] - 2.0 * line["without_eos"]
        assert line["reward"] == pytest.approx(wanted, rel=1e-5)


def test_evaluations_use_the_same_random_numbers(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path, steps=4, evaluate_every=2, lr=0.0)
    summary = train_policy(recipe).summary
    lines = metrics(recipe)
    found = [{key: value for key, value in line.items() if key.startswith("validation_")} for line in lines]
    assert found[0] == found[2] == {}
    assert found[1] == found[3]
    assert found[1]["validation_reward"] == summary["validation_reward"]
    assert summary["data"] == {"train": {"prompts": 12, "truncated": 0}, "validation": {"prompts": 5, "truncated": 0}}


def test_a_constant_reward_is_reported(tmp_path: Path) -> None:
    constant = RewardTerm(function="tests.unit.training.toy:constant")
    summary = train_policy(toy.recipe(tmp_path, rewards=[constant], steps=21)).summary
    assert any(text.startswith("step 20: the reward was the same for every completion") for text in summary["warnings"])


def test_the_kl_is_reported_to_another_sft_model(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path, steps=1)
    other = str(tiny.make(tmp_path / "other", "llama", seed=5))
    train_policy(replace(recipe, model=replace(recipe.model, sft=other)))
    (line,) = metrics(recipe)
    assert line["kl_sft"] > 0.1
    assert line["kl_anchor"] == pytest.approx(0, abs=1e-5)


def test_a_run_stops_at_the_ceiling(tmp_path: Path) -> None:
    how: dict[str, Any] = {"lr": 1e-2, "steps": 40, "save_every": 1, "samples": 4, "kl_ceiling": 0.2, "beta": 0.0}
    recipe = toy.recipe(tmp_path, **how)
    summary = train_policy(recipe).summary
    lines = metrics(recipe)
    assert summary["stopped"] == "kl_ceiling"
    assert summary["steps"] == len(lines) < 40
    assert [line["kl_sft"] > 0.2 for line in lines] == [False] * (len(lines) - 1) + [True]


# ---- the same result in another way ---------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", ["batch", "value"])
@pytest.mark.parametrize("how", [{"accumulation": 2}, {"accumulation": 3}, {"gradient_checkpointing": True}], ids=str)
def test_parts_and_checkpointing_give_the_same_update(how: dict[str, Any], baseline: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 2, "lr": 1e-2, "epsilon": 1e-2, "baseline": baseline}
    early = ValueSection(1e-3, 0)
    whole = tiny.tensors(train_policy(replace(toy.recipe(tmp_path, "whole", **settings), value=early)).path)
    parts = tiny.tensors(train_policy(replace(toy.recipe(tmp_path, "parts", **settings, **how), value=early)).path)
    assert max(float((whole[name] - parts[name]).abs().max()) for name in whole) < 5e-6


def test_bfloat16_computes_in_it_and_keeps_float32_weights(tmp_path: Path) -> None:
    result = train_policy(toy.recipe(tmp_path, precision="bfloat16"))
    assert {each.dtype for each in tiny.tensors(result.path).values()} == {torch.float32}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_value_model_reads_a_part_at_a_time_in_the_precision_of_the_policy(precision: str, tmp_path: Path) -> None:
    task = open_policy(toy.recipe(tmp_path, baseline="value", batch_size=7, accumulation=3, precision=precision))
    assert task.value is not None
    seen: list[tuple[int, bool]] = []
    model = task.value.model.model
    model.register_forward_hook(lambda _, inputs, out: seen.append((len(out.logits), torch.is_autocast_enabled("cpu"))))
    ids = task.data["train"].ids[:7]
    rewards = torch.arange(14.0).view(7, 2)
    values = task.value.predict(ids)  # a small Llama is not called for it
    seen.clear()
    learned = task.value.learn(ids, rewards)
    assert sum(size for size, _ in seen) == 7
    assert max(size for size, _ in seen) == 3, "never more than a part"
    assert {cast for _, cast in seen} == {precision == "bfloat16"}
    assert learned["value_loss"] == pytest.approx(float((values[:, None] - rewards).square().mean()))


def test_banned_and_stop_tokens_hold_in_training(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path, banned=["e", "Ġ"], stop=["a"], steps=2, anchor="init")
    task = open_policy(recipe)
    rollout = task.evaluator.roll_out(task.data["train"], range(12), 4, generator("policy rollouts", 0))
    banned, stop = task.evaluator.sampling.banned, task.evaluator.sampling.ends[1]
    assert not any(token in each.ids for each in rollout.completions for token in banned)
    assert all((stop in each.ids) <= ((each.ended and each.ids[-1] == stop) or 2 in each.ids) for each in rollout.completions)
    train_policy(recipe)
    assert all(line["kl_anchor"] > -1e-5 for line in metrics(recipe))


def test_a_finished_run_is_returned_as_it_is(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path, steps=2)
    first = train_policy(recipe)
    again = train_policy(recipe)
    assert (again.resumed, first.resumed) == (2, 0)
    assert again.summary == json.loads(json.dumps(first.summary))


# ---- killed ---------------------------------------------------------------------------------------------------------

STEPS: dict[str, Any] = {"steps": 40, "save_every": 4, "batch_size": 4, "warmup": 5, "evaluate_every": 10, "mu": 0.1}
RUNS: dict[str, Callable[[Path], PolicyRecipe]] = {
    "ema over lora, in parts": lambda folder: replace(
        toy.recipe(folder, accumulation=2, keep=[30], **STEPS), lora=LoraSection(rank=2)
    ),
    "ema": lambda folder: toy.recipe(folder, optimizer="adafactor", **STEPS),
    "init": lambda folder: toy.recipe(folder, anchor="init", baseline="leave-one-out", updates=2, **STEPS),
    "none": lambda folder: toy.recipe(folder, architecture="gpt2", anchor="none", samples=1, **STEPS),
    "value": lambda folder: replace(toy.recipe(folder, baseline="value", **STEPS), value=ValueSection(1e-3, 6)),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_killed_run_goes_on_to_the_same_bytes(case: str, tmp_path: Path) -> None:
    if "lora" in case:
        pytest.importorskip("peft", reason="LoRA needs peft")
    recipe = RUNS[case](tmp_path)
    assert (kill_after(6, "policy", recipe) / "state.pt").exists()
    resumed = train_policy(recipe)
    assert resumed.resumed >= 4
    assert resumed.resumed % 4 == 0
    whole = replace(recipe, output=replace(recipe.output, path=str(tmp_path / "whole")))
    result = train_policy(whole)
    assert result.resumed == 0
    assert metrics(recipe) == metrics(whole)
    assert len(metrics(whole)) == 40
    assert tiny.bytes_of(resumed.path) == tiny.bytes_of(result.path)
    assert all(tiny.bytes_of(resumed.kept[step]) == tiny.bytes_of(result.kept[step]) for step in recipe.policy.keep)


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"samples": 1, "baseline": "leave-one-out"}, "with one sample a prompt use batch"),
        ({"samples": 1, "batch_size": 1}, "batch needs more than one completion"),
        ({"dropout": 0.1}, "a policy learns without"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PolicySection(**how)


TEXT = """\
model: {path: init}
data: {train: prompts.jsonl}
output: {path: out}
rewards:
  - function: a:b
    weight: 2
  - model: [rm-1, rm-2]
policy:
  lr: 1e-6
"""
MISTAKES = {
    "unknown key": ("weight: 2", "wieght: 2", r"recipe\.yaml:6: unknown key 'rewards\[0\]\.wieght'; did you mean 'weight'"),
    "wrong type": ("weight: 2", "weight: much", r":6: rewards\[0\]\.weight must be a number, found 'much'"),
    "two kinds": (
        "weight: 2",
        "command: c",
        r":5: rewards\[0\]: expected one of model, function, command and endpoint, found function and",
    ),
    "no kind": (
        "model: [rm-1, rm-2]",
        "weight: 2",
        r":7: rewards\[1\]: expected one of model, function, command and endpoint, found none",
    ),
    "no function": ("a:b", "a.b", r":5: rewards\[0\]: expected a function as module:name, found 'a\.b'"),
    "a model of numbers": ("[rm-1, rm-2]", "3", r":7: rewards\[1\]\.model must be text or a list of texts, found 3"),
    "a text in the list": ("- model: [rm-1, rm-2]", "- rm", r":7: expected rewards\[1\] to be a mapping of keys to values"),
    "the same name": ("model: [rm-1, rm-2]", "function: c:b", r":1: rewards: two terms are called 'b'; give them names"),
    "dropout": ("policy:", "lora: {dropout: 0.1}\npolicy:", r":1: lora\.dropout: a policy learns without"),
    "beta": ("lr: 1e-6", "beta: -1", r":9: policy\.beta: expected a number at least 0, found -1"),
    "leave one out": ("lr: 1e-6", "baseline: leave-one-out", r":9: policy: baseline: leave-one-out needs samples of 2 or more"),
}


def read(folder: Path, text: str = TEXT, overrides: Sequence[str] = ()) -> PolicyRecipe:
    file = folder / "recipe.yaml"
    file.write_text(text)
    return read_recipe(file, PolicyRecipe, overrides).content


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_recipe_names_its_line(mistake: str, tmp_path: Path) -> None:
    old, new, expected = MISTAKES[mistake]
    assert TEXT.count(old) == 1
    with pytest.raises(RecipeError, match=expected):
        read(tmp_path, TEXT.replace(old, new))


def test_lists_of_sections_are_read_written_and_laid_over(tmp_path: Path) -> None:
    recipe = read(tmp_path)
    assert recipe.rewards == [RewardTerm(function="a:b", weight=2), RewardTerm(model=["rm-1", "rm-2"])]
    assert read(tmp_path, recipe_text(recipe)) == recipe
    assert read(tmp_path, overrides=["controls=[{command: score, weight: 3}]"]).controls == [
        RewardTerm(None, 3, command="score")
    ]
    with pytest.raises(RecipeError, match=r"--set controls=\[\{comand: score\}\]: unknown key 'controls\[0\]\.comand'"):
        read(tmp_path, overrides=["controls=[{comand: score}]"])
    with pytest.raises(RecipeError, match="rewards: expected at least one term, found none"):
        read(tmp_path, overrides=["rewards=[]"])
    with pytest.raises(RecipeError, match="rewards must be a list of mappings of keys to values, found 'rm'"):
        read(tmp_path, overrides=["rewards=rm"])


def test_prompts_that_cannot_be_used_are_listed_with_their_lines(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path)
    tiny.write(Path(recipe.data.train), [{"prompt": "the cat"}, {"prompt": "old " * 120}, {"prompt": " "}])
    with pytest.raises(DataError, match=r"prompts\.jsonl:3: expected prompt not to be empty"):
        train_policy(recipe)
    tiny.write(Path(recipe.data.train), [{"prompt": "the cat"}, {"prompt": "old " * 120}])
    with pytest.raises(
        DataError, match=r"1 prompts are longer than the 90 tokens that 96 leave beside.*:\n  .*prompts\.jsonl:2:"
    ):
        train_policy(recipe)
    cut = replace(recipe, model=replace(recipe.model, overlong="truncate"), policy=replace(recipe.policy, steps=1))
    assert train_policy(cut, force=True).summary["data"]["train"] == {"prompts": 2, "truncated": 1}


def test_chats_are_opened_for_the_assistant(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path)
    chat = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sings"}]
    tiny.write(Path(recipe.data.train), [{"messages": chat}, {"prompt": chat[:1]}, {"prompt": "the cat"}])
    data = open_policy(recipe).data["train"]
    spoken = tiny.tokenizer("llama").batch_decode(data.ids)
    assert spoken == ["<s>[user]the cat</s>[assistant]"] * 2 + ["<s>the cat"]
    assert data.prompts[0].text == "the cat"


def test_what_does_not_fit_the_model_is_refused_before_training(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path)
    with pytest.raises(UnsupportedError, match=r"96 new tokens fill all of the model.s 96 positions"):
        train_policy(replace(recipe, policy=replace(recipe.policy, max_new_tokens=96)))
    with pytest.raises(UsageError, match=r"policy\.banned: expected tokens of the vocabulary, found 'xyzzy'"):
        train_policy(replace(recipe, policy=replace(recipe.policy, banned=["xyzzy"])), force=True)
    with pytest.raises(UsageError, match=r"policy\.keep: expected steps between 1 and 3, found \[4\]"):
        train_policy(replace(recipe, policy=replace(recipe.policy, keep=[4])), force=True)


def test_a_reward_that_fails_stops_the_run_and_keeps_its_state(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match="expected 8 numbers"):
        train_policy(toy.recipe(tmp_path, rewards=[RewardTerm(function="tests.unit.training.toy:too_few")]))


def test_a_gradient_that_is_not_finite_names_step_and_lines(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step \d: .* in the batch of .*prompts\.jsonl:\d+, .* is kept\. Lower policy\.lr"):
        train_policy(toy.recipe(tmp_path, lr=1e30, clip=0.0, save_every=1, steps=5, beta=0.0))


def test_memory_that_runs_out_comes_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr("warmkit.evaluation.policy_evaluator.measure", exhausted)
    with pytest.raises(TrainingError, match=r"step 1: out of memory; raise policy\.accumulation"):
        train_policy(toy.recipe(tmp_path))
