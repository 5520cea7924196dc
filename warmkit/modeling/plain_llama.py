"""Forward pass of small Llama models on the CPU, without what a call of transformers costs whatever the size of the model.

That is half a millisecond or more, in which a model of 100,000 parameters could compute several tokens. Only what transformers
would compute in the same way is taken over (see `plain_llama`); a test compares the numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

WIDEST = 256
"""Hidden states of models in which calling takes longer than computing."""
MODELS = tuple(f"transformers.models.llama.modeling_llama.LlamaFor{task}" for task in ("CausalLM", "SequenceClassification"))
MAKERS = ("torch.nn.modules.", "transformers.models.llama.", "transformers.activations", "warmkit.modeling.")


class Unusual(Exception):
    """A part of a model that is left to transformers."""


class PlainLlama:
    """Weights of a Llama, gathered for calls between which they do not change.

    Args:
        model: `LlamaForCausalLM` or `LlamaForSequenceClassification`.
        length: Most tokens of a text.
        replaced: Weights in place of the model's own, by name.

    Raises:
        Unusual: If a part is none of a plain model's.
    """

    def __init__(self, model: Any, length: int, replaced: Mapping[str, torch.Tensor] | None = None) -> None:
        config, take = model.config, _Weights(replaced or {})
        self.heads, self.kept, self.size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.epsilon, inner = config.rms_norm_eps, model.model
        self.embedding = take(inner.embed_tokens, "model.embed_tokens")
        self.norm = take(inner.norm, "model.norm")
        self.head = take(model.lm_head, "lm_head") if hasattr(model, "lm_head") else take(model.score, "score")
        self.layers = [take.layer(each, f"model.layers.{number}.") for number, each in enumerate(inner.layers)]
        self.cos, self.sin = _turns(config.rope_parameters["rope_theta"], self.size, length)

    def cache(self, rows: int, length: int) -> list[torch.Tensor]:
        """Return room for keys and values of every layer, [2, B, H, T, D]."""
        return [self.embedding.new_empty(2, rows, self.kept, length, self.size) for _ in self.layers]

    def rewards(self, ids: torch.Tensor, pad_id: int) -> torch.Tensor:
        """Return what the head says of the last token that is not padding, [B], as transformers finds it."""
        places = torch.arange(ids.shape[1], device=ids.device)
        last = (places * (ids != pad_id)).argmax(-1)
        return functional.linear(self.hidden(ids)[torch.arange(len(ids)), last], self.head).squeeze(-1)

    def hidden(self, ids: torch.Tensor, cache: list[torch.Tensor] | None = None, start: int = 0) -> torch.Tensor:
        """Return what the head reads, [B, T, C].

        Args:
            ids: [B, T]; one token where something came before. Padding on the right is seen by nothing before it.
            cache: Keys and values of what came before; gets those of what is read.
            start: Tokens that came before.
        """
        (b, t), turned = ids.shape, self.heads + self.kept
        stop = start + t
        cos, sin = self.cos[start:stop], self.sin[start:stop]
        x = functional.embedding(ids, self.embedding)
        for number, (before, qkv, out, after, gate_up, down) in enumerate(self.layers):
            heads = functional.linear(self._normed(x, before), qkv).view(b, t, turned + self.kept, self.size)
            qk, v = _turn(heads[:, :, :turned], cos, sin).transpose(1, 2), heads[:, :, turned:].transpose(1, 2)
            q, k = qk[:, : self.heads], qk[:, self.heads :]
            if cache is not None:
                kept = cache[number]
                kept[0, :, :, start:stop], kept[1, :, :, start:stop] = k, v
                k, v = kept[0, :, :, :stop], kept[1, :, :, :stop]
            shared = self.kept != self.heads
            seen = functional.scaled_dot_product_attention(q, k, v, is_causal=t > 1, enable_gqa=shared)
            x = x + functional.linear(seen.transpose(1, 2).reshape(b, t, -1), out)
            gate, up = functional.linear(self._normed(x, after), gate_up).chunk(2, -1)
            x = x + functional.linear(functional.silu(gate).mul_(up), down)
        return self._normed(x, self.norm)

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, (x.shape[-1],), weight, self.epsilon)


class PlainReader:
    """Prompts of one length that are continued token by token.

    Args:
        model: What reads.
        prompts: Token ids.
        room: Tokens that may be read behind them.
    """

    def __init__(self, model: PlainLlama, prompts: Sequence[Sequence[int]], room: int) -> None:
        self.model, self.ids, self.read = model, torch.tensor(prompts), 0
        self.cache = model.cache(len(prompts), len(prompts[0]) + room)

    def opening(self, samples: int) -> torch.Tensor:
        first = self._next(self.ids)
        copies = torch.arange(len(first)).repeat_interleave(samples)
        self.keep(copies)
        return first[copies]

    def following(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._next(tokens[:, None])

    def keep(self, rows: torch.Tensor) -> None:
        self.cache = [each[:, rows] for each in self.cache]

    def _next(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.model.hidden(ids, self.cache, self.read)
        self.read += ids.shape[1]
        return functional.linear(hidden[:, -1], self.model.head)


def plain_llama(model: Any, length: int, replaced: Mapping[str, torch.Tensor] | None = None) -> PlainLlama | None:
    """Return the forward pass of a model that is small, on the CPU, in float32, and a Llama like any other; else None.

    Adapters, shards, hooks, autocast, dropout in training, biases and scaled positions are left to transformers.

    Args:
        model: Of transformers.
        length: Most tokens of a text.
        replaced: Weights in place of the model's own, by name.
    """
    if f"{type(model).__module__}.{type(model).__name__}" not in MODELS or not _is_plain(model):
        return None
    try:
        return PlainLlama(model, length, replaced)
    except Unusual:
        return None


def _is_plain(model: Any) -> bool:
    config = model.config
    rotary: Any = getattr(config, "rope_parameters", None) or {}
    return (
        config.hidden_size <= WIDEST
        and rotary.get("rope_type") == "default"
        and "rope_theta" in rotary
        and config.hidden_act == "silu"
        and not (config.attention_bias or config.mlp_bias)
        and not (model.training and config.attention_dropout)
        and not torch.is_autocast_enabled("cpu")
        and (hasattr(model, "lm_head") or config.pad_token_id is not None)
    )


class _Weights:
    """Takes weights out of modules, and refuses modules that do more than their weights say: adapters, shards, hooks."""

    def __init__(self, replaced: Mapping[str, torch.Tensor]) -> None:
        self.replaced = replaced

    def __call__(self, module: Any, name: str) -> torch.Tensor:
        self.check(module)
        weight = self.replaced.get(f"{name}.weight", module.weight)
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            raise Unusual(name)
        return weight.detach()

    def check(self, module: Any) -> None:
        if not type(module).__module__.startswith(MAKERS) or module._forward_hooks or module._forward_pre_hooks:
            raise Unusual(type(module).__name__)

    def layer(self, layer: Any, at: str) -> tuple[torch.Tensor, ...]:
        attention, mlp = layer.self_attn, layer.mlp
        for each in (layer, attention, mlp):
            self.check(each)
        q, k, v, out = (self(getattr(attention, f"{name}_proj"), f"{at}self_attn.{name}_proj") for name in "qkvo")
        gate, up, down = (self(getattr(mlp, f"{name}_proj"), f"{at}mlp.{name}_proj") for name in ("gate", "up", "down"))
        before, after = (self(getattr(layer, name), f"{at}{name}") for name in ("input_layernorm", "post_attention_layernorm"))
        return before, torch.cat([q, k, v]), out, after, torch.cat([gate, up]), down


@functools.lru_cache(maxsize=32)
def _turns(theta: float, size: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines, [T, 1, D], and sines, [T, 1, D / 2], of rotary embeddings."""
    frequencies = 1 / theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
    return angles.cos().repeat(1, 2)[:, None], angles.sin()[:, None]


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn pairs of numbers by their place in the text: rotary embeddings of [B, T, H, D]."""
    half, turned = x.shape[-1] // 2, x * cos
    turned[..., :half].addcmul_(x[..., half:], sin, value=-1)
    turned[..., half:].addcmul_(x[..., :half], sin)
    return turned
