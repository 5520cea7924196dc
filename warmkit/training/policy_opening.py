"""Opening of a policy recipe: the policy with all that it learns from."""

from __future__ import annotations

from typing import Any

from warmkit.evaluation.policy_evaluator import PolicyEvaluator, encode_prompts
from warmkit.evaluation.rewards import open_terms
from warmkit.modeling.causal_model import load_causal_model
from warmkit.modeling.checkpointing import recompute_activations
from warmkit.modeling.generation import Sampling
from warmkit.modeling.generation_config import banned_of, ends_of
from warmkit.modeling.positions import room_for
from warmkit.modeling.reward_model import load_reward_model
from warmkit.modeling.rollouts import MOST_PARTS, Model
from warmkit.modeling.tokens import Encoder, masked_padding, tokenizer_of
from warmkit.training.anchor import Anchor, anchor_of
from warmkit.training.distributed import group
from warmkit.training.lora import add_adapters
from warmkit.training.policy_recipe import PolicyRecipe, PolicySection
from warmkit.training.policy_task import PolicyTask
from warmkit.training.sharding import check_shards, shard
from warmkit.training.telling import Tell, tell_texts
from warmkit.training.value_model import ValueModel


def open_policy(recipe: PolicyRecipe, tell: Tell | None = None) -> PolicyTask:
    """Load models, prompts and rewards of a recipe.

    Args:
        recipe: Of the run.
        tell: Called with a line about prompts that may be meant otherwise.

    Raises:
        DataError: If a prompt cannot be used.
        UnsupportedError: If the model is shorter than `policy.max_new_tokens`, or a reward's checkpoint is no reward model.
        UsageError: If a token of the recipe is not in the vocabulary, or a function cannot be imported.
    """
    how, section = recipe.policy, recipe.model
    model = load_causal_model(section.path, group().device)
    limit = room_for(model.config, section.max_length)
    tokenizer = tokenizer_of(section.path)
    encoder = Encoder(tokenizer, limit, masked_padding(tokenizer, section.pad_token))
    sources = {"train": recipe.data.train, "validation": recipe.data.validation}
    data = {
        name: encode_prompts(source, encoder, how.max_new_tokens, section.overlong, chat=bool(recipe.data.chat))
        for name, source in sources.items()
        if source is not None
    }
    tell_texts(tell, [(each.content,) for each in data["train"].prompts], encoder, section.path, recipe.data.chat)
    if recipe.lora is not None:
        model = add_adapters(model, recipe.lora, "CAUSAL_LM", how.seed)
    check_shards(how, "policy", recipe.lora)
    sft, anchor = _anchors(model, how, section.sft)
    shard(model)
    if how.gradient_checkpointing:
        recompute_activations(model)
    evaluator = PolicyEvaluator(
        model,
        encoder,
        _sampling(model, encoder, how),
        open_terms(recipe.rewards),
        open_terms(recipe.controls),
        how.length_penalty,
        how.eos_penalty,
        how.precision,
        1 if group().sharded else MOST_PARTS,  # every process must go through a sharded model as often
    )
    value = _value(recipe, limit) if how.baseline == "value" else None
    return PolicyTask(evaluator, section.path, how, data, anchor, sft, value)


def _anchors(model: Any, how: PolicySection, path: str | None) -> tuple[Model, Anchor | None]:
    """Return the SFT model and the anchor, which may be the same; both in shards where the policy is going to be."""
    sft: Any = anchor_of(model, "init") if path is None else load_causal_model(path, group().device).requires_grad_(False)
    if path is not None:
        shard(sft)
    if how.anchor == "none":
        return sft, None
    return sft, sft if how.anchor == "init" and path is None else anchor_of(model, how.anchor, how.mu)


def _value(recipe: PolicyRecipe, limit: int) -> ValueModel:
    section, device = recipe.model, group().device
    model = load_reward_model(section.path, max_length=limit, pad_token=section.pad_token, dropout=0.0, device=device)
    shard(model.model)
    if recipe.policy.gradient_checkpointing:
        recompute_activations(model.model)
    return ValueModel(model, recipe.policy, recipe.value)


def _sampling(model: Any, encoder: Encoder, how: PolicySection) -> Sampling:
    rows = -(-how.batch_size // how.accumulation) * how.samples
    ends = ends_of(model, encoder.tokenizer, how.stop, "policy.stop")
    banned = banned_of(model, encoder.tokenizer, how.banned, "policy.banned")
    return Sampling(how.temperature, how.max_new_tokens, ends, encoder.pad_id, banned, how.samples, rows)
