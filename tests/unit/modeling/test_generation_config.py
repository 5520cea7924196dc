"""A completion ends where the checkpoint says that it ends; what is not followed is named; results say where they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training import tiny, toy
from warmkit.common.random_streams import generator
from warmkit.errors import UsageError
from warmkit.evaluation.policies import EvaluationSettings, PolicyTrial
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.modeling.causal_model import load_causal_model
from warmkit.modeling.generation_config import banned_of, ends_of, not_followed, saved_ends, token_ids, turn_end
from warmkit.modeling.tokens import tokenizer_of
from warmkit.training.policy import train_policy
from warmkit.training.policy_opening import open_policy

transformers = pytest.importorskip("transformers")

TURNS = (  # as Gemma's and ChatML: a turn ends with a token of its own, which is not EOS
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<turn>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)

TURN, STOP = len(tiny.llama_tokenizer()), len(tiny.llama_tokenizer()) + 1


def chat_model(folder: Path, template: str = TURNS, **generation: Any) -> Path:
    """Write a tiny Llama whose EOS is not what ends its turns."""
    own = tiny.llama_tokenizer()
    own.add_special_tokens({"additional_special_tokens": ["<turn>", "<stop>"]})
    own.chat_template = template
    tiny.make(folder, "llama", own=own)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def ends(folder: Path, *stop: str) -> list[str]:
    model, tokenizer = load_causal_model(str(folder)), tokenizer_of(folder)
    return tokenizer.convert_ids_to_tokens(list(ends_of(model, tokenizer, stop)))


def test_every_end_of_the_generation_config_is_one_beside_the_tokenizers_and_the_templates(tmp_path: Path) -> None:
    assert ends(chat_model(tmp_path / "list", tiny.CHAT, eos_token_id=[2, STOP])) == ["</s>", "<stop>"]
    assert ends(chat_model(tmp_path / "one", tiny.CHAT, eos_token_id=STOP)) == ["</s>", "<stop>"]
    assert ends(chat_model(tmp_path / "template", TURNS, eos_token_id=2)) == ["</s>", "<turn>"]
    assert ends(chat_model(tmp_path / "user", TURNS), "<stop>", "the") == ["</s>", "<turn>", "<stop>", "the"]


def test_transformers_own_generation_ends_at_the_same_tokens(tmp_path: Path) -> None:
    import torch

    from warmkit.modeling.generation import Sampling, sample

    many = list(range(2, 60))
    model = load_causal_model(str(chat_model(tmp_path / "model", tiny.CHAT, eos_token_id=many)))
    found = ends_of(model, tokenizer_of(tmp_path / "model"))
    assert sorted(found) == many
    prompts = [[70, 71, 72], [80], [90, 91]]
    how = Sampling(1e-4, 12, found, 3)  # so cold that it is greedy
    for prompt, each in zip(prompts, sample(model, prompts, how, generator("policy rollouts", 0))):
        theirs = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12, pad_token_id=3)
        assert each.ids == theirs[0, len(prompt) :].tolist()
        assert each.ended == (each.ids[-1] in many)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (TURNS, "<turn>"),
        (tiny.CHAT, "</s>"),
        ("{% for m in messages %}{{ m['content'] }} </s>{% endfor %}", "</s>"),
        ("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}", None),
        ("{{ raise_exception('no') }}", None),
        (None, None),
    ],
    ids=["turns", "EOS", "a space before it", "no token", "refuses", "no template"],
)
def test_the_templates_end_is_the_special_token_right_after_the_answer(template: str | None, expected: str | None) -> None:
    own = tiny.llama_tokenizer()
    own.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    own.chat_template = template
    found = turn_end(own)
    assert (None if found is None else own.convert_ids_to_tokens(found)) == expected


def test_a_stop_is_a_token_or_a_text_that_is_one() -> None:
    own = tiny.llama_tokenizer()
    assert own.convert_ids_to_tokens(list(token_ids(own, ["</s>", "Ġcat", " cat"], "stop"))) == ["</s>", "Ġcat", "Ġcat"]
    with pytest.raises(UsageError, match=r"^policy\.stop: expected tokens of the vocabulary, found 'the cat'$"):
        token_ids(own, ["the cat"], "policy.stop")


def test_suppressed_tokens_are_banned_and_what_is_not_followed_is_named(tmp_path: Path) -> None:
    asked = {"top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1, "forced_bos_token_id": 0}
    neutral = {"temperature": 1.0, "num_beams": 1, "min_length": 0, "no_repeat_ngram_size": 0}
    folder = chat_model(tmp_path / "model", suppress_tokens=[7, 9], **asked, **neutral)
    model, tokenizer = load_causal_model(str(folder)), tokenizer_of(folder)
    assert banned_of(model, tokenizer, ["the"]) == (7, 9, tokenizer.convert_tokens_to_ids("the"))
    assert not_followed(model) == asked
    assert not_followed(load_causal_model(str(tiny.model("llama", tmp_path / "plain")))) == {}


def test_a_trained_policy_says_where_it_ends(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path, steps=1, stop=["the"])
    result = train_policy(recipe)
    the = tokenizer_of(result.path).convert_tokens_to_ids("the")
    said = json.loads((result.path / "generation_config.json").read_text())
    assert said["eos_token_id"] == [2, the]
    assert result.summary["ends"] == ["</s>", "the"]
    settings = EvaluationSettings(str(recipe.data.train), [RewardTerm(function="tests.unit.training.toy:count_e")])
    assert PolicyTrial(settings).open(str(result.path)).ends == ["</s>", "the"], "read again where it was trained"


def test_a_generation_config_that_says_it_already_stays_as_it_is(tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "model", TURNS, eos_token_id=[2, TURN, STOP], top_p=0.8)
    model, tokenizer = load_causal_model(str(folder)), tokenizer_of(folder)
    assert saved_ends(model, ends_of(model, tokenizer)) == {}
    assert saved_ends(model, [*ends_of(model, tokenizer), 5]) == {"eos_token_id": [2, TURN, STOP, 5]}


def test_training_ends_completions_where_the_checkpoint_says(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path)
    file = Path(recipe.model.path) / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": list(range(2, 90)), "suppress_tokens": [95, 4000]}))
    task = open_policy(recipe)
    rollout = task.roll_out(range(8), 0)
    assert all(each.ids[-1] < 90 or len(each.ids) == 6 for each in rollout.completions)
    assert sum(each.ended for each in rollout.completions) > len(rollout.completions) // 2
    assert not any(95 in each.ids for each in rollout.completions)
    assert rollout.texts == [
        task.evaluator.encoder.tokenizer.decode(each.ids[:-1] if each.ended else each.ids) for each in rollout.completions
    ]
