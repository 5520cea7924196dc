"""Makes `torchao-*` with transformers and torchao on a CPU, and digests of the numbers that torchao reads from them.

Run it with transformers 5.23.0, torchao 0.18.0 and torch 2.13.0: `python tests/data/quantised/make_torchao.py`.

`Int4WeightOnlyConfig` writes nothing on a CPU, whatever its packing; what a CPU writes of four bits is `IntxWeightOnlyConfig`.

`said/torchao-*.json` has the SHA-256 of the bfloat16 numbers of every quantised weight, as `dequantize` returns them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup, PerRow, PerTensor
from torchao.quantization.quant_primitives import MappingType
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, TorchAoConfig

HERE = Path(__file__).parent
VERSIONS = {"transformers": "5.23.0", "torchao": "0.18.0", "torch": "2.13.0"}
SIZES: dict[str, Any] = {"vocab_size": 4, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1}
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 32}
FORMS = {
    "torchao-int8": Int8WeightOnlyConfig(granularity=PerRow()),
    "torchao-fp8": Float8WeightOnlyConfig(granularity=PerTensor()),
    "torchao-int4": IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(16)),
    "torchao-int4-zero": IntxWeightOnlyConfig(
        weight_dtype=torch.int4, granularity=PerGroup(8), mapping_type=MappingType.ASYMMETRIC, scale_dtype=torch.float32
    ),
}


def main() -> None:
    for name, expected in VERSIONS.items():
        assert version(name).partition("+")[0] == expected, f"{name} {version(name)}, not {expected}"
    torch.manual_seed(50)
    LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS)).to(torch.bfloat16).save_pretrained(HERE / "dense")
    for name, form in FORMS.items():
        quantise = TorchAoConfig(form)
        model = AutoModelForCausalLM.from_pretrained(HERE / "dense", quantization_config=quantise, dtype=torch.bfloat16)
        model.save_pretrained(HERE / name)
        (HERE / name / "generation_config.json").unlink()
        weights = {each: part.weight.dequantize() for each, part in model.named_modules() if hasattr(part, "in_features")}
        coded = {f"{each}.weight": tensor for each, tensor in sorted(weights.items()) if each != "lm_head"}
        found = {each: hashlib.sha256(tensor.view(torch.int16).numpy().tobytes()).hexdigest() for each, tensor in coded.items()}
        (HERE / "said" / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    shutil.rmtree(HERE / "dense")


if __name__ == "__main__":
    main()
