"""Llama-shaped checkpoints of a chosen size, with weights and task vectors of realistic scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from warmkit.engine.plan import Output, parse_size, plan_output
from warmkit.formats.dtypes import BY_TORCH_NAME

SIZES = {
    "0.03B": {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 8, "vocab_size": 8000},
    "0.1B": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8, "vocab_size": 32000},
    "0.3B": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 22, "vocab_size": 32000},
    "1.1B": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "vocab_size": 32000},
}
CHUNK = 1 << 22


def config(size: str) -> dict[str, Any]:
    shape = SIZES[size]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "num_attention_heads": shape["hidden_size"] // 64,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
        **shape,
    }


def shapes(size: str) -> dict[str, tuple[int, ...]]:
    c = config(size)
    hidden, inner, vocabulary = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    kv = 64 * c["num_key_value_heads"]
    result: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(c["num_hidden_layers"]):
        parts = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        result |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in parts.items()}
    return result | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def build(folder: Path, size: str = "1.1B", seed: int = 0, shards: int = 3, dtype: str = "bfloat16") -> None:
    """Write one model: base weights that all seeds share, plus a task vector a hundred times smaller for seed > 0."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = BY_TORCH_NAME[dtype]
    tensors = [Output(name, kind, shape) for name, shape in shapes(size).items()]
    total = sum(tensor.nbytes for tensor in tensors)
    limit = "1TB" if shards == 1 else total // shards + max(tensor.nbytes for tensor in tensors) // 2
    plan = plan_output(tensors, parse_size(limit), {"format": "pt"})
    for number, shard in enumerate(plan.shards):
        with (folder / shard.file).open("wb") as file:
            file.write(shard.header)
            for place in sorted((o for o in plan.outputs.values() if o.shard == number), key=lambda o: o.offset):
                for start in range(0, place.elements, CHUNK):
                    file.write(_values(place.name, start, min(CHUNK, place.elements - start), seed, kind.storage))
    if plan.index is not None:
        (folder / "model.safetensors.index.json").write_bytes(plan.index)
    (folder / "config.json").write_text(json.dumps(config(size), indent=2))


def _values(name: str, start: int, count: int, seed: int, storage: str) -> bytes:
    def draw(stream: int) -> Any:
        key = [stream, start, *name.encode()]
        return np.random.Generator(np.random.SFC64(key)).standard_normal(count, dtype=np.float32)

    values = draw(0) * np.float32(0.02)
    if seed:
        values += draw(seed) * np.float32(0.0002)
    if storage == "uint16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
    return values.astype("float16" if storage == "int16" else storage).tobytes()
