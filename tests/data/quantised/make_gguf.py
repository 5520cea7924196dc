"""Makes `gguf/*.gguf` with gguf's writer and quantisers, and digests of the numbers that transformers reads from them.

Run it with transformers 5.23.0, gguf 0.19.0 and torch 2.13.0 on a CPU: `python tests/data/quantised/make_gguf.py`.

Rows of Q and K, and norms of Gemma, are changed as llama.cpp's converter changes them. Blocks of K-quants are drawn at random,
since gguf writes none. `said/gguf.json` has the SHA-256 of the float32 numbers of every tensor of every file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GgufConfig,
    LlamaConfig,
    NemotronConfig,
    Phi3Config,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    StableLmConfig,
    Starcoder2Config,
)

HERE = Path(__file__).parent
VERSIONS = {"transformers": "5.23.0", "gguf": "0.19.0", "torch": "2.13.0"}
SIZES: dict[str, Any] = {"vocab_size": 8, "hidden_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 64}
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
ARCHITECTURES: dict[str, tuple[Any, int]] = {
    "llama": (LlamaConfig, 256),
    "qwen2": (Qwen2Config, 32),
    "qwen3": (Qwen3Config, 32),
    "gemma2": (Gemma2Config, 32),
    "gemma3": (Gemma3TextConfig, 32),
    "qwen2moe": (Qwen2MoeConfig, 32),
    "qwen3moe": (Qwen3MoeConfig, 32),
    "phi3": (Phi3Config, 32),
    "starcoder2": (Starcoder2Config, 32),
    "stablelm": (StableLmConfig, 32),
    "nemotron": (NemotronConfig, 32),
}
EXPERTS: dict[str, Any] = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
OWN: dict[str, dict[str, Any]] = {
    "qwen2moe": {**EXPERTS, "shared_expert_intermediate_size": 64},
    "qwen3moe": EXPERTS,
    "phi3": {"pad_token_id": 0},
    "stablelm": {"use_qkv_bias": True, "use_parallel_residual": False},
}
TYPES = (Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.F16, Type.BF16)
CHOSEN = {"ffn_down": Type.Q6_K, "ffn_gate": Type.Q4_0, "ffn_up": Type.Q5_0}  # of llama


def paired(weight: np.ndarray, heads: int) -> np.ndarray:
    """Put rows of a head into pairs, as llama.cpp's converter does for its rotary embedding."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def drawn(shape: tuple[int, ...], kind: Type, draw: np.random.Generator) -> np.ndarray:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = draw.integers(0, 256, (shape[0], shape[1] // block, size), np.uint8)
    raw[..., -2:] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)  # the scale of a block of Q6_K
    return raw.reshape(shape[0], -1)


def make(name: str) -> dict[str, str]:
    config, width = ARCHITECTURES[name]
    torch.manual_seed(40)
    model = AutoModelForCausalLM.from_config(config(**SIZES, **HEADS, intermediate_size=width, **OWN.get(name, {})))
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter)
    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    names, draw = gguf.get_tensor_name_map(architecture, 1), np.random.default_rng(41)
    file = HERE / "gguf" / f"{name}.gguf"
    writer = gguf.GGUFWriter(file, name)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_key_length(16)
    writer.add_value_length(16)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(8)
    writer.add_sliding_window(16)
    writer.add_token_list([f"w{each}" for each in range(8)])
    exact = dict(model.state_dict())
    for number, (key, tensor) in enumerate(exact.items()):
        if key == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        for called, given in as_named(key, tensor, names).items():
            weight, part = given.float().numpy(), called.split(".")[-2]
            if name == "llama" and part in ("attn_q", "attn_k"):
                weight = paired(weight, 2 if part == "attn_q" else 1)
            if name.startswith(("gemma", "nemotron")) and called.endswith("norm.weight"):
                weight = weight + 1
            kind = CHOSEN.get(part, TYPES[number % len(TYPES)]) if name == "llama" else TYPES[number % len(TYPES)]
            if weight.ndim == 1:
                writer.add_tensor(called, weight)
            elif kind is Type.Q6_K:
                writer.add_tensor(called, drawn(weight.shape, kind, draw), raw_dtype=kind)
            else:
                writer.add_tensor(called, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    said = GgufConfig(dequantize=True)
    read = AutoModelForCausalLM.from_pretrained(  # of Qwen3 it takes no size of heads from the file
        file.parent, gguf_file=file.name, config=model.config, dtype=torch.float32, quantization_config=said
    )
    for key, tensor in read.state_dict().items():
        if not (name == "llama" and "down_proj" in key):
            assert (tensor - exact[key]).norm() < 0.15 * exact[key].norm(), f"{name}: {key}"
    found = on_disk(read, model) if "moe" in name else read.state_dict()
    return {key: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for key, tensor in sorted(found.items())}


def as_named(key: str, tensor: torch.Tensor, names: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a file that one in memory is, as llama.cpp's converter names and cuts them."""
    if key.endswith("experts.gate_up_proj"):
        return {f"blk.0.ffn_{part}_exps.weight": half for part, half in zip(("gate", "up"), tensor.chunk(2, 1))}
    if key.endswith("experts.down_proj"):
        return {"blk.0.ffn_down_exps.weight": tensor}
    called = names.get_name(key, try_suffixes=(".weight", ".bias"))
    assert called is not None, key
    return {called: tensor[0] if "shared_expert_gate" in key else tensor}


def on_disk(read: Any, fresh: Any) -> dict[str, torch.Tensor]:
    """Return a model's tensors as transformers writes them, experts one by one, by way of a model that came from no file."""
    fresh.load_state_dict(read.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        fresh.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


def main() -> None:
    for name, expected in VERSIONS.items():
        assert version(name).partition("+")[0] == expected, f"{name} {version(name)}, not {expected}"
    shutil.rmtree(HERE / "gguf", ignore_errors=True)
    (HERE / "gguf").mkdir()
    found = {name: make(name) for name in ARCHITECTURES}
    (HERE / "said" / "gguf.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
