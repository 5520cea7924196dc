"""Makes `gguf/*.gguf` with gguf's writer and quantisers, and digests of the numbers that transformers reads from them.

Run it with transformers 5.23.0, gguf 0.19.0 and torch 2.13.0 on a CPU: `python tests/data/quantised/make_gguf.py`.

Rows of Q and K, and norms of Gemma, are changed as llama.cpp's converter changes them. Blocks of K-quants are drawn at random,
since gguf writes none. `said/gguf.json` has the SHA-256 of the float32 numbers of every tensor of every file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, GgufConfig, LlamaConfig, Qwen2Config, Qwen3Config

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
    model = AutoModelForCausalLM.from_config(config(**SIZES, **HEADS, intermediate_size=width))
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
        called = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if key == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        assert called is not None, key
        weight, part = tensor.float().numpy(), called.split(".")[-2]
        if name == "llama" and part in ("attn_q", "attn_k"):
            weight = paired(weight, 2 if part == "attn_q" else 1)
        if name.startswith("gemma") and part.endswith("norm"):
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
    ).state_dict()
    for key, tensor in read.items():
        if not (name == "llama" and "down_proj" in key):
            assert (tensor - exact[key]).norm() < 0.15 * exact[key].norm(), f"{name}: {key}"
    return {key: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for key, tensor in sorted(read.items())}


def main() -> None:
    for name, expected in VERSIONS.items():
        assert version(name).partition("+")[0] == expected, f"{name} {version(name)}, not {expected}"
    shutil.rmtree(HERE / "gguf", ignore_errors=True)
    (HERE / "gguf").mkdir()
    found = {name: make(name) for name in ARCHITECTURES}
    (HERE / "said" / "gguf.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
