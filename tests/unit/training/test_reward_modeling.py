"""Training a reward model: everything learns, from one shared head, in parts as in one, into a plain model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training import tiny
from warmkit.errors import DataError, MismatchError, TrainingError, UnsupportedError, UsageError
from warmkit.evaluation.accuracy import pairwise_accuracy
from warmkit.evaluation.comparisons import score
from warmkit.modeling.reward_model import load_scorer
from warmkit.training.recipe_sections import LoraSection, RewardModelRecipe
from warmkit.training.reward_modeling import (
    RewardModelTask,
    describe,
    load_comparisons,
    open_for_training,
    save_reward_model,
    set_head,
    train_reward_model,
)

transformers = pytest.importorskip("transformers")


def task_of(recipe: RewardModelRecipe) -> RewardModelTask:
    """Return a task with a probed head, as the loop gets it."""
    reward_model = open_for_training(recipe.model, recipe.rm.dropout)
    data = load_comparisons(recipe.data, recipe.model, reward_model)
    set_head(reward_model, recipe, data)
    return RewardModelTask(reward_model, data)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_gradients_reach_every_parameter(architecture: str, tmp_path: Path) -> None:
    task = task_of(tiny.recipe(tmp_path, architecture))
    loss, logged = task.loss(range(task.examples))
    loss.backward()
    # a key's bias shifts all attention scores of a query alike, which softmax does not see: rounding alone is left
    nothing = {
        name: parameter.requires_grad
        for name, parameter in task.model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    assert nothing == ({"classifier.bias": False} if architecture == "bert" else {})
    assert 0 <= logged["accuracy"] <= task.examples


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_training_learns_and_moves_every_tensor(architecture: str, tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, architecture, lr=3e-3, steps=30, batch_size=8)
    result = train_reward_model(recipe)
    assert result.summary["evaluation"]["validation"]["accuracy"] > 0.9
    before, after = tiny.tensors(Path(recipe.model.path)), tiny.tensors(result.path)
    head = "classifier" if architecture == "bert" else "score"
    strip = lambda name: name.removeprefix("bert.").removeprefix("transformer.")  # noqa: E731
    names = {strip(name): name for name in before}
    assert {strip(name) for name in after} - set(names) == (
        {"classifier.weight", "classifier.bias"} if architecture == "bert" else {"score.weight"}
    )
    still = [name for name in after if strip(name) in names and torch.equal(after[name], before[names[strip(name)]])]
    assert still == []
    assert after[f"{head}.weight"].shape == (1, tiny.HIDDEN)
    if architecture == "bert":
        assert not after["classifier.bias"].any()
    # the directory that was written is the model that was evaluated
    again = load_comparisons(recipe.data, recipe.model, load_scorer(result.path))
    accuracy = pairwise_accuracy(score(load_scorer(result.path), again["validation"]))
    assert accuracy == result.summary["evaluation"]["validation"]["accuracy"]


def test_the_probe_alone_is_better_than_chance_and_is_reported(tmp_path: Path) -> None:
    summary = train_reward_model(tiny.recipe(tmp_path, "bert", lr=0.0, steps=1)).summary
    assert summary["probe"]["train_accuracy"] > 0.6
    assert summary["evaluation"]["train"]["accuracy"] == pytest.approx(summary["probe"]["train_accuracy"])


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_shared_head_is_shared_bit_for_bit(architecture: str, tmp_path: Path) -> None:
    first = tiny.recipe(tmp_path, architecture)
    probe = task_of(first)
    save_reward_model(probe.reward_model, tmp_path / "probe")
    for seed in (1, 2):
        recipe = replace(first, model=replace(first.model, head=str(tmp_path / "probe")), rm=replace(first.rm, seed=seed))
        state, expected = task_of(recipe).model.state_dict(), probe.model.state_dict()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_trained_scalar_head_is_trained_on(tmp_path: Path) -> None:
    first = train_reward_model(tiny.recipe(tmp_path))
    recipe = tiny.recipe(tmp_path, name="second")
    recipe = replace(recipe, model=replace(recipe.model, path=str(first.path)))
    assert torch.equal(task_of(recipe).reward_model.head.weight, tiny.tensors(first.path)["score.weight"])


def test_a_head_of_another_width_is_a_mismatch(tmp_path: Path) -> None:
    narrow = tiny.make(tmp_path / "narrow", "llama", hidden_size=16)
    save_reward_model(tiny.load(narrow), tmp_path / "head")
    recipe = tiny.recipe(tmp_path)
    with pytest.raises(MismatchError, match="its head reads 16 features"):
        task_of(replace(recipe, model=replace(recipe.model, head=str(tmp_path / "head"))))


def test_a_head_of_classes_is_refused_before_training(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path)
    config = transformers.AutoConfig.from_pretrained(recipe.model.path, num_labels=2)
    classes = transformers.AutoModelForSequenceClassification.from_pretrained(recipe.model.path, config=config)
    classes.save_pretrained(recipe.model.path)
    with pytest.raises(UnsupportedError, match="2 labels"):
        train_reward_model(recipe)


# ---- the same result in another way ---------------------------------------------------------------------------------

SAME: dict[str, dict[str, Any]] = {
    "two parts": {"accumulation": 2},
    "four parts": {"accumulation": 4},
    "uneven parts": {"accumulation": 3},
    "checkpointing": {"gradient_checkpointing": True},
}


def weights_after(folder: Path, architecture: str, name: str, **how: Any) -> dict[str, torch.Tensor]:
    # nothing that hides a gradient's size, or blows rounding up where it is almost zero
    recipe = tiny.recipe(folder, architecture, name=name, steps=3, epsilon=1e-1, clip=0.0, lr=1e-2, **how)
    return tiny.tensors(train_reward_model(recipe).path)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_parts_and_checkpointing_give_the_same_update(architecture: str, tmp_path: Path) -> None:
    whole = weights_after(tmp_path, architecture, "whole")
    for case, how in SAME.items():
        other = weights_after(tmp_path, architecture, case.replace(" ", "-"), **how)
        worst = max(float((whole[name] - other[name]).abs().max()) for name in whole)
        assert worst < 2e-6, case


def test_another_seed_matters_under_dropout_alone(tmp_path: Path) -> None:
    silent = [weights_after(tmp_path, "bert", f"silent-{seed}", seed=seed)["classifier.weight"] for seed in (0, 1)]
    loud = [weights_after(tmp_path, "bert", f"loud-{seed}", seed=seed, dropout=0.3)["classifier.weight"] for seed in (0, 1)]
    assert torch.equal(*silent)
    assert not torch.equal(*loud)
    torch.manual_seed(5)
    again = weights_after(tmp_path, "bert", "again", seed=0, dropout=0.3)["classifier.weight"]
    assert torch.equal(loud[0], again), "whatever was drawn before"


def test_bfloat16_computes_in_it_and_keeps_float32_weights(tmp_path: Path) -> None:
    full = weights_after(tmp_path, "bert", "full")
    half = weights_after(tmp_path, "bert", "half", precision="bfloat16")
    assert {each.dtype for each in half.values()} == {torch.float32}
    assert not torch.equal(full["classifier.weight"], half["classifier.weight"])
    assert torch.allclose(full["classifier.weight"], half["classifier.weight"], atol=2e-2)


# ---- LoRA -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_lora_gives_a_plain_model_that_learned(architecture: str, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft")
    plain = tiny.recipe(tmp_path, architecture, steps=20, lr=1e-2, keep=[20])
    result = train_reward_model(replace(plain, lora=LoraSection(rank=4, alpha=8.0)))
    after, kept = tiny.tensors(result.path), tiny.tensors(result.path.parent / "step-20")
    assert not any("lora" in name or "base" in name for name in after)
    assert all(torch.equal(after[name], kept[name]) for name in after), "a kept model is the model at that step"
    start = task_of(plain).model.state_dict()
    assert set(after) == set(start)
    moved = {name for name in after if not torch.equal(after[name], start[name])}
    head = "classifier.weight" if architecture == "bert" else "score.weight"
    assert head in moved
    assert all(any(f".{layer}." in name for name in moved) for layer in range(tiny.LAYERS))
    assert not any("embed" in name or "norm" in name.lower() or "ln_" in name for name in moved)
    if architecture == "bert":
        assert not after["classifier.bias"].any()
    data = load_comparisons(plain.data, plain.model, load_scorer(result.path))
    accuracy = pairwise_accuracy(score(load_scorer(result.path), data["validation"]))
    assert accuracy == pytest.approx(result.summary["evaluation"]["validation"]["accuracy"], abs=0.07)
    assert accuracy > 0.7


def test_lora_without_peft_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="lora needs peft; install it"):
        train_reward_model(replace(tiny.recipe(tmp_path), lora=LoraSection()))


# ---- data that cannot be used, losses that break ---------------------------------------------------------------------


def test_pairs_that_truncation_makes_one_are_refused(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path)
    ending = " the cat sings the sun sleeps the river runs"
    same = [{"prompt": "a", "chosen": " gold" + ending, "rejected": " old" + ending}, *tiny.rows(3)]
    tiny.write(Path(recipe.data.train), same)
    with pytest.raises(DataError, match="1 pairs are the same to the model, after truncation to 8 tokens"):
        train_reward_model(replace(recipe, model=replace(recipe.model, max_length=8)))


def test_overlong_pairs_are_counted_or_refused_with_their_lines(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, steps=1)
    longest = 18
    truncating = replace(recipe, model=replace(recipe.model, max_length=longest))
    counted = train_reward_model(truncating).summary["data"]["train"]
    assert 0 < counted["truncated"] < counted["pairs"] == 24
    with pytest.raises(
        DataError, match=rf"{counted['truncated']} pairs are longer than the {longest} tokens.*:\n  .*train.jsonl:"
    ):
        train_reward_model(replace(truncating, model=replace(truncating.model, overlong="refuse")), force=True)


def test_swapped_labels_are_counted_and_evaluated_apart(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, steps=1)
    summary = train_reward_model(replace(recipe, data=replace(recipe.data, corrupt=0.25))).summary
    assert summary["data"]["train"] == {"pairs": 24, "truncated": 0, "corrupt": 6}
    parts = summary["evaluation"]
    assert (parts["train clean"]["pairs"], parts["train corrupt"]["pairs"]) == (18, 6)


@pytest.mark.parametrize("cause", ["infinite weight", "rate"])
def test_a_loss_that_is_not_finite_names_step_and_lines_and_keeps_the_state(cause: str, tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, lr=1e30 if cause == "rate" else 1e-3, save_every=1, clip=0.0, batch_size=2)
    if cause == "infinite weight":
        from safetensors.torch import save_file

        file = Path(recipe.model.path) / "model.safetensors"
        weights = tiny.tensors(file.parent)
        weights["model.norm.weight"][0] = torch.inf
        save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(
        TrainingError, match=r"step \d: .* in the batch of .*train\.jsonl:\d+, .*train\.jsonl:\d+.*Lower rm\.lr"
    ) as raised:
        train_reward_model(recipe)
    run = Path(recipe.output.path)
    assert not (run / "summary.json").exists()
    assert not (run / "model").exists()
    step = int(str(raised.value).split()[1].rstrip(":"))
    assert (run / "state.pt").exists() == (step > 1)
    assert (f"the state of step {step - 1} is kept in {run}" in str(raised.value)) == (step > 1)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == step - 1


def test_a_finished_run_is_returned_as_it_is(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, steps=2)
    first = train_reward_model(recipe)
    time = (first.path / "model.safetensors").stat().st_mtime_ns
    again = train_reward_model(recipe)
    assert (again.path / "model.safetensors").stat().st_mtime_ns == time
    assert again.resumed == 2
    assert again.summary == json.loads(json.dumps(first.summary))


def test_rows_become_chats_and_equal_pairs_are_counted_as_the_recipe_says(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path)
    rows = [*tiny.rows(12), {"prompt": "the cat", "chosen": " sings", "rejected": " sings"}]
    section = replace(recipe.data, train=str(tiny.write(tmp_path / "some-equal.jsonl", rows)))
    model = tiny.load(Path(recipe.model.path))
    with pytest.raises(DataError, match="1 of 13 rows are bad"):
        load_comparisons(section, recipe.model, model)
    data = load_comparisons(replace(section, equal_pairs="skip", corrupt=0.5), recipe.model, model)
    assert describe(data["train"]) == {"pairs": 12, "truncated": 0, "corrupt": 6, "skipped": 1}
    assert describe(data["validation"]) == {"pairs": 16, "truncated": 0, "corrupt": 0}
    chats = load_comparisons(replace(section, equal_pairs="skip", chat=True), recipe.model, model)
    assert model.encoder.tokenizer.decode(chats["train"].chosen[0].ids).startswith("<s>[user]")


# ---- margins and centering ------------------------------------------------------------------------------------------


def test_margins_of_rows_and_centering_are_in_the_loss(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path)
    rows = [{**row, "margin": number / 10} for number, row in enumerate(tiny.rows(24))]
    tiny.write(tmp_path / "with-margins.jsonl", rows)
    said: list[str] = []
    recipe = replace(recipe, data=replace(recipe.data, train=str(tmp_path / "with-margins.jsonl")))
    reward_model = open_for_training(recipe.model, 0.0)
    data = load_comparisons(recipe.data, recipe.model, reward_model, said.append)
    assert said[1:] == ["23 of 24 pairs of data.train have a margin: the loss wants the chosen answer ahead by it"]
    found, _ = RewardModelTask(reward_model, data, 0.01).loss(range(24))
    scores = score(reward_model, data["train"])
    chosen, rejected = (torch.from_numpy(each) for each in (scores.chosen, scores.rejected))
    margin = torch.arange(24, dtype=torch.float64) / 10
    theirs = -torch.nn.functional.logsigmoid(chosen - rejected - margin).mean() + 0.01 * torch.mean((chosen + rejected) ** 2)
    assert float(found.detach()) == pytest.approx(float(theirs), rel=1e-5)


def test_centering_keeps_rewards_around_zero(tmp_path: Path) -> None:
    sums: list[float] = []
    for center in (0.0, 1.0):
        recipe = tiny.recipe(tmp_path, name=f"center-{center}", lr=3e-3, steps=30, center=center)
        result = train_reward_model(recipe)
        reward_model = load_scorer(result.path)
        scores = score(reward_model, load_comparisons(recipe.data, recipe.model, reward_model)["validation"])
        sums.append(float(abs(scores.chosen + scores.rejected).mean()))
    assert sums[1] < sums[0] / 2
