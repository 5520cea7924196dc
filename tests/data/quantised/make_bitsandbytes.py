"""Makes `bnb-*` with transformers and bitsandbytes on a CPU, and digests of the numbers that bitsandbytes reads from them.

Run it with transformers 5.23.0, bitsandbytes 0.50.2 and torch 2.13.0: `python tests/data/quantised/make_bitsandbytes.py`.

`said/bnb-*.json` has the SHA-256 of the float32 numbers of every quantised weight. Of 4 bits they are those of the library's
own operation in torch: its AVX-512 kernel (0.50.2) reads other numbers where a block goes on from one row to the next.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bitsandbytes.functional as bnb
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute as in_torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
VERSIONS = {"transformers": "5.23.0", "bitsandbytes": "0.50.2", "torch": "2.13.0"}
SIZES: dict[str, Any] = {"vocab_size": 4, "hidden_size": 64, "intermediate_size": 24, "num_hidden_layers": 1}
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 32}
FORMS: dict[str, dict[str, Any]] = {
    "bnb-nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "bnb-nf4-nested": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "bnb-fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_quant_storage": "bfloat16"},
    "bnb-int8": {"load_in_8bit": True},
}


def by_bitsandbytes(tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Return the float32 numbers of a weight."""
    rows = tensors.get(name.removesuffix("weight") + "SCB")
    if rows is not None:
        return bnb.int8_vectorwise_dequant(tensors[name], rows)
    parts = {each.removeprefix(f"{name}."): tensor for each, tensor in tensors.items() if each.startswith(f"{name}.")}
    state = bnb.QuantState.from_dict(parts, torch.device("cpu"))
    absmax = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
    codes = tensors[name].view(torch.uint8).reshape(-1)
    found = in_torch(codes, absmax, state.code, state.blocksize, state.shape, torch.float32)
    if state.shape[1] % state.blocksize == 0:
        assert torch.equal(bnb.dequantize_4bit(tensors[name], state), found.to(state.dtype)), name
    return found


def make(name: str, said: dict[str, Any]) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        HERE / "bnb-dense", quantization_config=BitsAndBytesConfig(**said), dtype=torch.bfloat16, device_map="cpu"
    )
    model.save_pretrained(HERE / name)
    (HERE / name / "generation_config.json").unlink()
    tensors = load_file(HERE / name / "model.safetensors")
    coded = [each for each in tensors if f"{each}.absmax" in tensors or each.removesuffix("weight") + "SCB" in tensors]
    found = {each: hashlib.sha256(by_bitsandbytes(tensors, each).numpy().tobytes()).hexdigest() for each in sorted(coded)}
    (HERE / "said" / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    for name, expected in VERSIONS.items():
        assert version(name).partition("+")[0] == expected, f"{name} {version(name)}, not {expected}"
    torch.manual_seed(20)
    LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS)).to(torch.bfloat16).save_pretrained(HERE / "bnb-dense")
    for name, said in FORMS.items():
        make(name, said)
    shutil.rmtree(HERE / "bnb-dense")


if __name__ == "__main__":
    main()
