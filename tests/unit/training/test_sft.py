"""Supervised fine-tuning learns completions, in parts as in one, and keeps models on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training import tiny
from warmkit.errors import DataError, UsageError
from warmkit.training.recipe_sections import DataSection, LoraSection, ModelSection, Optimization, RunOutput, SftRecipe
from warmkit.training.sft import open_task, train_sft

transformers = pytest.importorskip("transformers")


def recipe(folder: Path, architecture: str = "llama", name: str = "sft", **how: Any) -> SftRecipe:
    whole = tiny.recipe(folder, architecture, name, **how)
    return SftRecipe(whole.model, whole.data, whole.output, tiny.as_sft(whole.rm))


@pytest.mark.parametrize("architecture", tiny.DECODERS)
def test_it_learns_and_moves_every_tensor_into_a_plain_language_model(architecture: str, tmp_path: Path) -> None:
    start = open_task(recipe(tmp_path, architecture)).evaluate()["validation_loss"]
    result = train_sft(recipe(tmp_path, architecture, steps=20, lr=5e-3))
    assert result.summary["validation_loss"] < start - 0.2
    before, after = tiny.tensors(tmp_path / architecture), tiny.tensors(result.path)
    assert set(before) == set(after)
    assert [name for name in after if torch.equal(before[name], after[name])] == []
    model = transformers.AutoModelForCausalLM.from_pretrained(result.path)
    assert model.config.architectures == [type(model).__name__]


def test_the_loss_is_the_mean_over_answer_and_eos(tmp_path: Path) -> None:
    task = open_task(recipe(tmp_path))
    tokens = task.tokens[0]
    loss, logged = task.loss([0])
    ids = torch.tensor([tokens.ids])
    with torch.no_grad():
        spoken = task.model(ids).logits[0].log_softmax(-1)
    by_hand = [-float(spoken[place - 1, tokens.ids[place]]) for place in range(tokens.answer, len(tokens))]
    assert tokens.ids[-1] == 2, "EOS is learned"
    assert float(loss.detach()) == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    assert logged == {"tokens": len(by_hand)}


@pytest.mark.parametrize("how", [{"accumulation": 2}, {"accumulation": 4}, {"gradient_checkpointing": True}], ids=str)
def test_parts_and_checkpointing_give_the_same_update_though_texts_differ_in_length(
    how: dict[str, Any], tmp_path: Path
) -> None:
    settings = {"steps": 3, "lr": 1e-2, "epsilon": 1e-1, "clip": 0.0}
    whole = tiny.tensors(train_sft(recipe(tmp_path, name="whole", **settings)).path)
    parts = tiny.tensors(train_sft(recipe(tmp_path, name="parts", **settings, **how)).path)
    assert max(float((whole[name] - parts[name]).abs().max()) for name in whole) < 2e-6


def test_models_are_kept_on_the_way_and_the_last_is_the_result(tmp_path: Path) -> None:
    result = train_sft(recipe(tmp_path, steps=4, keep=[2, 4]))
    assert set(result.kept) == {2, 4}
    halfway = train_sft(recipe(tmp_path, name="short", steps=2))
    assert tiny.bytes_of(result.kept[2]) == tiny.bytes_of(halfway.path)
    assert tiny.bytes_of(result.kept[4]) == tiny.bytes_of(result.path)
    assert transformers.AutoTokenizer.from_pretrained(result.kept[2])("the cat")["input_ids"]


def test_lora_gives_a_plain_model(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft")
    start = tiny.tensors(tiny.model("llama", tmp_path / "llama"))
    result = train_sft(replace(recipe(tmp_path, steps=3, keep=[2]), lora=LoraSection(rank=2)))
    for path in (result.path, result.kept[2]):
        after = tiny.tensors(path)
        assert set(after) == set(start)
        assert any(not torch.equal(after[name], start[name]) for name in after)


def test_chats_are_learned_from_the_answer_on(tmp_path: Path) -> None:
    lines = [
        {"messages": [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": text}]}
        for text in ("sings", "runs")
    ]
    source = tiny.model("llama", tmp_path / "llama")
    data = DataSection(str(tiny.write(tmp_path / "chats.jsonl", lines)))
    task = open_task(SftRecipe(ModelSection(str(source)), data, RunOutput(str(tmp_path / "run")), Optimization(steps=1)))
    tokenizer = task.encoder.tokenizer
    assert [tokenizer.decode(each.ids[each.answer :]) for each in task.tokens] == ["sings</s>", "runs</s>"]


THOUGHT = (  # as DeepSeek-R1's: an answer is opened with a thought, which a finished chat leaves out
    "{% for m in messages %}{% if m['role'] == 'user' %}[user]{{ m['content'] }}{% else %}"
    "[assistant]{{ m['content'].split('[done]')[-1] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant][think]{% endif %}"
)
HINT = (  # what comes before the answer depends on it
    "{{ messages[-1]['content'] | length }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}</s>"
)


def chats(folder: Path, template: str, answers: list[str]) -> SftRecipe:
    own = tiny.llama_tokenizer()
    own.chat_template = template
    source = tiny.make(folder / "model", "llama", own=own)
    lines = [{"messages": [{"role": "user", "content": "q q"}, {"role": "assistant", "content": each}]} for each in answers]
    data = DataSection(str(tiny.write(folder / "chats.jsonl", lines)))
    how = Optimization(steps=1, batch_size=2, precision="float32")
    return SftRecipe(ModelSection(str(source)), data, RunOutput(str(folder / "run")), how)


@pytest.mark.parametrize("start", ["", "{{ bos_token }}"], ids=["plain", "BOS"])
def test_the_answer_alone_is_learned_though_the_template_opens_it_otherwise(start: str, tmp_path: Path) -> None:
    recipe = chats(tmp_path, start + THOUGHT, ["[think]hm[done]sings", "[runs"])
    task = open_task(recipe)
    assert [task.encoder.tokenizer.decode(each.ids[each.answer :]) for each in task.tokens] == ["sings</s>", "[runs</s>"]
    assert train_sft(recipe).summary["opened_otherwise"] == "[think]"


@pytest.mark.parametrize("start", ["", "{{ bos_token }}"], ids=["plain", "BOS"])
def test_a_template_that_does_not_tell_where_the_answer_starts_is_refused(start: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"writes 2 chats so that it cannot be told where the answer starts.*\n  .*chats\.jsonl:1"
    ):
        open_task(chats(tmp_path, start + HINT, ["sings", "dog runs"]))


def test_an_answer_that_fills_all_of_the_room_is_learned_without_its_prompt(tmp_path: Path) -> None:
    long = chats(tmp_path, THOUGHT, ["the cat sings the cat sings the cat sings"])
    task = open_task(replace(long, model=replace(long.model, max_length=8)))
    assert (task.tokens[0].answer, len(task.tokens[0])) == (0, 8)


def test_more_tokens_than_the_model_has_positions_are_refused(tmp_path: Path) -> None:
    long = recipe(tmp_path)
    with pytest.raises(UsageError, match=r"^max_length 97: .*llama has 96 positions$"):
        open_task(replace(long, model=replace(long.model, max_length=97)))


def test_overlong_texts_are_counted_or_refused_with_their_lines(tmp_path: Path) -> None:
    short = recipe(tmp_path, steps=1)
    short = replace(short, model=replace(short.model, max_length=16))
    assert train_sft(short).summary["data"]["train"]["truncated"] > 0
    with pytest.raises(DataError, match=r"texts are longer than model\.max_length 16:\n  .*train\.jsonl:\d+: \d+ tokens"):
        open_task(replace(short, model=replace(short.model, overlong="refuse")))
