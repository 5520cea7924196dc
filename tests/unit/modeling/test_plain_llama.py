"""Small Llamas are read without transformers' calls, and the numbers are transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

import transformers

from warmkit.common.random_streams import generator
from warmkit.modeling.batching import left_padded
from warmkit.modeling.generation import Sampling, sample
from warmkit.modeling.plain_llama import PlainReader, plain_llama
from warmkit.modeling.rollouts import measure
from warmkit.training.anchor import Anchor

LENGTH, PROMPTS = 9, [[5, 6, 7], [8, 9, 10], [11, 5, 9]]
HOW = Sampling(0.9, 6, (1,), 0, banned=(0, 3), samples=4)


def llama(task: str = "CausalLM", **how: Any) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 30}
    rest = {"max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1, "num_labels": 1}
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**sizes, **rest, "initializer_range": 0.3, **how})
    return getattr(transformers, f"LlamaFor{task}")(config).eval()


def ids(rows: int = 3) -> torch.Tensor:
    return torch.randint(2, 30, (rows, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("how", [{}, {"num_key_value_heads": 2}, {"tie_word_embeddings": True}, {"rope_theta": 500.0}])
@torch.no_grad()
def test_its_logits_are_those_of_transformers(how: dict[str, Any]) -> None:
    if "rope_theta" in how:
        how = {"rope_parameters": {"rope_type": "default", "rope_theta": how["rope_theta"]}}
    model = llama(**how)
    plain = plain_llama(model, LENGTH)
    assert plain is not None
    found = torch.nn.functional.linear(plain.hidden(ids()), plain.head)
    torch.testing.assert_close(found, model(input_ids=ids()).logits, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_read_token_by_token_they_are_the_same() -> None:
    model = llama(num_key_value_heads=2)
    plain = plain_llama(model, LENGTH)
    assert plain is not None
    reader = PlainReader(plain, ids()[:, :3].tolist(), LENGTH - 3)
    expected = model(input_ids=ids()).logits
    torch.testing.assert_close(reader.opening(2), expected[:, 2].repeat_interleave(2, 0), atol=2e-5, rtol=1e-5)
    reader.keep(torch.tensor([0, 4]))
    for place in range(3, LENGTH):
        found = reader.following(ids()[[0, 2], place])
        torch.testing.assert_close(found, expected[[0, 2], place], atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_its_rewards_are_those_of_transformers_with_padding() -> None:
    model, padded = llama("SequenceClassification"), ids()
    padded[1, 5:], padded[2, 2:] = 0, 0
    plain = plain_llama(model, LENGTH)
    assert plain is not None
    expected = model(input_ids=padded, attention_mask=(padded != 0).long()).logits.squeeze(-1)
    torch.testing.assert_close(plain.rewards(padded, 0), expected, atol=2e-5, rtol=1e-5)


def test_samples_and_what_is_measured_of_them_are_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = llama(), llama(rms_norm_eps=1e-3)
    anchor = Anchor(other, "init")

    def all_of_it() -> tuple[list[list[int]], dict[str, torch.Tensor]]:
        completions = sample(model, PROMPTS, HOW, generator("policy rollouts", 0))
        copies = [prompt for prompt in PROMPTS for _ in range(HOW.samples)]
        with torch.no_grad():
            numbers = measure(model, {"anchor": anchor}, copies, completions, HOW, torch.device("cpu"))
        return [each.ids for each in completions], numbers

    quick, numbers = all_of_it()
    for module in ("generation", "rollouts"):
        monkeypatch.setattr(f"warmkit.modeling.{module}.plain_llama", lambda *_: None)
    monkeypatch.setattr("warmkit.training.anchor.plain_llama", lambda *_: None)
    slow, expected = all_of_it()
    assert quick == slow
    assert {len(each) for each in quick} != {HOW.max_new_tokens}  # some end early
    assert numbers.keys() == expected.keys()
    for name, each in numbers.items():
        torch.testing.assert_close(each, expected[name], atol=2e-4, rtol=1e-4)


def test_an_anchor_reads_with_its_copies() -> None:
    model = llama()
    anchor = Anchor(model, "ema", 0.5)
    with torch.no_grad():
        expected = model(input_ids=ids()).logits
        for each in model.parameters():
            each.mul_(1.5)
    plain = anchor.plain_llama(LENGTH)
    assert plain is not None
    torch.testing.assert_close(torch.nn.functional.linear(plain.hidden(ids()), plain.head), expected, atol=2e-5, rtol=1e-5)


def hooked() -> Any:
    model = llama()
    model.model.layers[1].mlp.down_proj.register_forward_hook(lambda *_: None)
    return model


def adapted() -> Any:
    peft = pytest.importorskip("peft")
    model = llama()
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["q_proj"]), model)
    return model


def other_architecture() -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 30}
    return transformers.MistralForCausalLM(transformers.MistralConfig(**sizes))


@pytest.mark.parametrize(
    "make",
    [
        hooked,
        adapted,
        other_architecture,
        lambda: llama(hidden_size=512),
        lambda: llama(attention_bias=True),
        lambda: llama(mlp_bias=True),
        lambda: llama(hidden_act="gelu"),
        lambda: llama(attention_dropout=0.1).train(),
        lambda: llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
        lambda: llama().bfloat16(),
        lambda: llama("SequenceClassification", pad_token_id=None),
    ],
)
def test_anything_else_is_left_to_transformers(make: Any) -> None:
    assert plain_llama(make(), LENGTH) is None


def test_autocast_is_left_to_transformers() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert plain_llama(llama(), LENGTH) is None


def test_prompts_of_several_lengths_are_left_to_transformers() -> None:
    found = sample(llama(), [[5, 6], [7, 8, 9]], HOW, generator("policy rollouts", 0))
    assert all(each.spoken is None for each in found)
    assert left_padded([[5, 6], [7, 8, 9]], 0, "cpu")[1].tolist() == [[0, 1, 1], [1, 1, 1]]
