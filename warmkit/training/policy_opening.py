"""From a recipe to the policy with all that judges it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from warmkit.checkpoints.hub import resolve
from warmkit.data.prompts import read_prompts
from warmkit.errors import DataError, UnsupportedError, UsageError, listed
from warmkit.modeling.checkpointing import recompute_activations
from warmkit.modeling.dropout import set_dropout
from warmkit.modeling.quiet import quiet
from warmkit.modeling.reward_model import load_reward_model
from warmkit.modeling.tokens import Encoder, tokenizer_of
from warmkit.training.adapters import add_adapters
from warmkit.training.anchor import Anchor
from warmkit.training.generation import Sampling
from warmkit.training.policy_recipe import PolicyModelSection, PolicyRecipe, PolicySection
from warmkit.training.policy_task import PolicyTask, Prompts
from warmkit.training.rewards import open_terms
from warmkit.training.value_model import ValueModel


def open_policy(recipe: PolicyRecipe) -> PolicyTask:
    """Load models, prompts and rewards of a recipe.

    Raises:
        DataError: If a prompt cannot be used.
        UnsupportedError: If the model is shorter than `policy.max_new_tokens`, or a reward's checkpoint is no reward model.
        UsageError: If a token of the recipe is not in the vocabulary, or a function cannot be imported.
    """
    how, section = recipe.policy, recipe.model
    model = _causal_model(section.path)
    limit = section.max_length or min(4096, model.config.get_text_config().max_position_embeddings)
    encoder = Encoder(tokenizer_of(section.path), limit, section.pad_token)
    if limit <= how.max_new_tokens:
        raise UnsupportedError(f"{section.path}: policy.max_new_tokens {how.max_new_tokens} fill all of its {limit} positions")
    sources = {"train": recipe.data.train, "validation": recipe.data.validation}
    data = {name: _read(source, encoder, section, how) for name, source in sources.items() if source is not None}
    if recipe.lora is not None:
        model = add_adapters(model, recipe.lora, "CAUSAL_LM", how.seed)
    init = Anchor(model, "init") if section.sft is None else _causal_model(section.sft).requires_grad_(False)
    if how.gradient_checkpointing:
        recompute_activations(model)
    return PolicyTask(
        model,
        encoder,
        section.path,
        how,
        _sampling(encoder, how),
        data,
        open_terms(recipe.rewards),
        open_terms(recipe.controls),
        _anchor(model, how, init),
        init,
        _value(recipe, limit) if how.baseline == "value" else None,
    )


def _causal_model(path: str) -> Any:
    """Load a language model without dropout: what learns is what was sampled from."""
    from transformers import AutoConfig, AutoModelForCausalLM

    home = resolve(path)
    config = AutoConfig.from_pretrained(home)
    set_dropout(config, 0.0)
    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(home, config=config, dtype=torch.float32)
    set_dropout(model, 0.0)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _anchor(model: Any, how: PolicySection, init: Any) -> Anchor | None:
    if how.anchor == "none":
        return None
    if how.anchor == "init" and isinstance(init, Anchor):
        return init
    return Anchor(model, how.anchor, how.mu)


def _value(recipe: PolicyRecipe, limit: int) -> ValueModel:
    path, pad_token = recipe.model.path, recipe.model.pad_token
    return ValueModel(load_reward_model(path, max_length=limit, pad_token=pad_token, dropout=0.0), recipe.policy, recipe.value)


def _sampling(encoder: Encoder, how: PolicySection) -> Sampling:
    rows = -(-how.batch_size // how.accumulation) * how.samples
    ends, banned = _ids(encoder, how.stop, "stop"), _ids(encoder, how.banned, "banned")
    generator = torch.Generator()
    ends = (encoder.tokenizer.eos_token_id, *ends)
    return Sampling(how.temperature, how.max_new_tokens, ends, encoder.pad_id, generator, banned, how.samples, rows)


def _ids(encoder: Encoder, tokens: Sequence[str], key: str) -> tuple[int, ...]:
    vocabulary = encoder.tokenizer.get_vocab()
    if unknown := [token for token in tokens if token not in vocabulary]:
        raise UsageError(f"policy.{key}: expected tokens of the vocabulary, found {', '.join(map(repr, unknown))}")
    return tuple(vocabulary[token] for token in tokens)


def _read(source: str, encoder: Encoder, section: PolicyModelSection, how: PolicySection) -> Prompts:
    prompts, room = read_prompts(source), encoder.max_length - how.max_new_tokens
    tokens = encoder.encode_prompts([prompt.content for prompt in prompts], room)
    if empty := [prompt.where for prompt, each in zip(prompts, tokens) if not each.ids]:
        raise DataError(f"{len(empty)} prompts have no tokens:\n{listed(empty)}")
    long = [f"{prompt.where}: {len(each) + each.truncated} tokens" for prompt, each in zip(prompts, tokens) if each.truncated]
    if section.overlong == "refuse" and long:
        raise DataError(
            f"{len(long)} prompts are longer than the {room} tokens that {encoder.max_length} leave beside "
            f"policy.max_new_tokens; raise model.max_length, or set model.overlong: truncate:\n{listed(long)}"
        )
    return Prompts(prompts, [each.ids for each in tokens], len(long))
