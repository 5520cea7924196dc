"""Every causal model is sampled and measured as it reads one text alone; what is none is refused before a step."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training import tiny, toy
from warmkit.common.random_streams import generator
from warmkit.errors import UnsupportedError
from warmkit.modeling.batching import reading_of
from warmkit.modeling.causal_model import load_causal_model
from warmkit.modeling.generation import Sampling, sample
from warmkit.modeling.rollouts import measure
from warmkit.training.policy import train_policy
from warmkit.training.recipe_sections import DataSection, ModelSection, Optimization, RunOutput, SftRecipe
from warmkit.training.sft import train_sft

transformers = pytest.importorskip("transformers")

PROMPTS = [[11, 12, 13], [14], [20, 21, 22, 23, 24, 25, 26], [30, 31], [5] * 9]
ENDS = (2, 50, 51, 52, 53)
COMMON: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT = {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
STATES = {"vocab_size": 64, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "initializer_range": 0.3}
MAMBA = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
HEADS = {"mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 1, "chunk_size": 8, "head_dim": 8}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
KINDS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "bloom": ("BloomConfig", GPT, True),
    "falcon with ALiBi": ("FalconConfig", {**COMMON, "alibi": True}, True),
    "falcon_h1": ("FalconH1Config", {**COMMON, **MAMBA, "mamba_chunk_size": 8, "head_dim": 8}, True),
    "gemma2, a window shorter than prompts": (
        "Gemma2Config",
        {**COMMON, "head_dim": 8, "sliding_window": 4, "final_logit_softcapping": 5.0},
        True,
    ),
    "lfm2": ("Lfm2Config", {**COMMON, "layer_types": ["conv", "full_attention"]}, True),
    "mamba": ("MambaConfig", STATES, False),
    "mistral, a window shorter than prompts": ("MistralConfig", {**COMMON, "sliding_window": 4}, True),
    "nemotron_h": ("NemotronHConfig", {**COMMON, **HEADS, "layers_block_type": ["mamba", "attention"]}, False),
    "opt": ("OPTConfig", {**COMMON, "ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.3}, True),
    "qwen3_next": (
        "Qwen3NextConfig",
        {**COMMON, **DELTA, **EXPERTS, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
        True,
    ),
    "rwkv": ("RwkvConfig", {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}, False),
}


@cache
def model(kind: str) -> Any:
    name, settings, _ = KINDS[kind]
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings)).float().eval()


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    """Return what a model says of one text, without padding, without a cache."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def greedy(model: Any, prompt: list[int], most: int) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + most and (len(ids) == len(prompt) or ids[-1] not in ENDS):
        ids.append(int(logits(model, ids)[-1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_a_batch_are_those_of_every_prompt_alone(kind: str) -> None:
    cold = Sampling(1e-5, 8, ENDS, 0)
    found = sample(model(kind), PROMPTS, cold, generator("policy rollouts", 0))
    assert [each.ids for each in found] == [greedy(model(kind), prompt, 8) for prompt in PROMPTS]
    assert reading_of(model(kind)).left == KINDS[kind][2]


@pytest.mark.parametrize("kind", ["bloom", "falcon_h1", "gemma2, a window shorter than prompts", "lfm2", "qwen3_next"])
def test_transformers_own_generation_on_left_padded_prompts_says_the_same(kind: str) -> None:
    found = sample(model(kind), PROMPTS, Sampling(1e-5, 8, ENDS, 0), generator("policy rollouts", 0))
    width = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (width - len(each)) + each for each in PROMPTS])
    mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in PROMPTS])
    options = {"do_sample": False, "max_new_tokens": 8, "eos_token_id": list(ENDS), "pad_token_id": 0}
    theirs = model(kind).generate(input_ids=ids, attention_mask=mask, **options)[:, width:]
    assert [each.ids for each in found] == [row[: len(each.ids)].tolist() for row, each in zip(theirs, found)]


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_of_a_batch_are_those_of_every_text_alone_and_every_tensor_learns(kind: str) -> None:
    how, own = Sampling(0.9, 8, ENDS, 0, samples=2), model(kind)
    prompts = [prompt for prompt in PROMPTS for _ in range(2)]
    found = sample(own, PROMPTS, how, generator("policy rollouts", 1))
    measured = measure(own, {"sft": own}, prompts, found, how, torch.device("cpu"))
    for row, (prompt, each) in enumerate(zip(prompts, found)):
        said = (logits(own, prompt + each.ids)[len(prompt) - 1 : -1] / 0.9).log_softmax(-1)
        alone = said.gather(1, torch.tensor(each.ids)[:, None]).sum()
        assert float(measured["policy"][row].detach()) == pytest.approx(float(alone), abs=1e-4)
    assert measured["kl_sft"].abs().max() < 1e-4
    measured["policy"].sum().backward()
    assert [name for name, each in own.named_parameters() if each.grad is None] == []
    own.zero_grad()


# ---- training -------------------------------------------------------------------------------------------------------


def written(folder: Path, kind: str) -> Path:
    """Write a model of a kind with the tiny Llama's tokenizer."""
    own, (name, settings, _) = tiny.tokenizer("llama"), KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**{**settings, "vocab_size": len(own)})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    own.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bloom", "falcon_h1", "lfm2", "mamba", "qwen3_next"])
def test_policies_and_sft_train_models_with_states(kind: str, tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path, steps=1, lr=1e-2)
    source = str(written(tmp_path / "model", kind))
    result = train_policy(replace(recipe, model=replace(recipe.model, path=source)))
    before, after = tiny.tensors(Path(source)), tiny.tensors(result.path)
    assert set(before) == set(after)
    assert sum(not torch.equal(before[name], after[name]) for name in after) > len(after) // 2
    texts = tiny.write(tmp_path / "texts.jsonl", [{"prompt": text, "completion": " gold"} for text in tiny.sentences(4)])
    how = Optimization(lr=1e-2, steps=1, batch_size=4, precision="float32")
    sft = SftRecipe(ModelSection(source), DataSection(str(texts)), RunOutput(str(tmp_path / "sft")), how)
    assert train_sft(sft).summary["steps"] == 1


# ---- what is no causal language model -------------------------------------------------------------------------------


def test_an_encoder_is_refused_as_a_policy(tmp_path: Path) -> None:
    own = tiny.tokenizer("bert")
    transformers.BertForMaskedLM(tiny.config("bert", len(own), initializer_range=0.3)).save_pretrained(tmp_path)
    own.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match=r"BertLMHeadModel reads what comes later too \(an encoder\?\)"):
        load_causal_model(str(tmp_path))


@pytest.mark.parametrize("kind", ["BartForConditionalGeneration", "T5ForConditionalGeneration"])
def test_an_encoder_decoder_is_refused_as_a_policy(kind: str, tmp_path: Path) -> None:
    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    config = {
        "BartForConditionalGeneration": lambda: transformers.BartConfig(
            vocab_size=64, encoder_attention_heads=2, decoder_attention_heads=2, **small
        ),
        "T5ForConditionalGeneration": lambda: transformers.T5Config(
            vocab_size=64, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2
        ),
    }[kind]()
    getattr(transformers, kind)(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match=r"(bart|t5) is an encoder-decoder; expected a model that goes on writing"):
        load_causal_model(str(tmp_path))


def test_a_reward_model_is_refused_as_a_policy_and_as_the_start_of_sft(tmp_path: Path) -> None:
    own = tiny.tokenizer("llama")
    config = tiny.config("llama", len(own), num_labels=1, pad_token_id=3)
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path / "rm")
    own.save_pretrained(tmp_path / "rm")
    recipe = toy.recipe(tmp_path)
    message = (
        r"lacks 1 tensors of LlamaForCausalLM, so it is no language model \(a reward model, an encoder\?\):\n  lm_head\.weight"
    )
    with pytest.raises(UnsupportedError, match=message):
        train_policy(replace(recipe, model=replace(recipe.model, path=str(tmp_path / "rm"))))
    sft = SftRecipe(ModelSection(str(tmp_path / "rm")), DataSection(recipe.data.train), RunOutput(str(tmp_path / "sft")))
    with pytest.raises(UnsupportedError, match=message):
        train_sft(sft)
