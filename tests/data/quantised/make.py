"""Makes the quantised models of this folder with the libraries that define their forms, and what these read from them.

Run it with transformers 5.23.0, compressed-tensors 0.20.1 and torch 2.13.0 on a CPU, from anywhere:
`python tests/data/quantised/make.py`.

- `sft` is a Llama of one layer in bfloat16; `fp8-a` and `fp8-b` are two others, written by transformers' own `Fp8Quantize`
  (its quantizer asks for a GPU before it calls that, so it is called by itself). transformers reads them on a CPU.
- `fp8-cut` has matrices that blocks of [32, 32] do not divide, which transformers neither writes nor reads; the codes are
  compressed-tensors' of float32 weights with strategy block, under DeepSeek's names. `said/fp8-cut` is what compressed-tensors'
  `FP8BlockDequantizer` reads, in float32.
- `ct-*` are what compressed-tensors' `ModelCompressor` wrote, with scales from `calculate_qparams` of the weights' extremes;
  `said/ct-*` is what its `CompressedTensorsDequantizer` reads, in the type of the scales.
- `mxfp4` is a GPT-OSS whose experts are codes and exponents drawn at random, under the names and shapes of openai/gpt-oss-20b:
  its quantiser needs a GPU. transformers reads it on a CPU.
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from compressed_tensors.compressors import BaseCompressor, ModelCompressor
from compressed_tensors.entrypoints.convert.converters import CompressedTensorsDequantizer, FP8BlockDequantizer
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from compressed_tensors.quantization.utils.helpers import maybe_pad_tensor_for_block_quant
from safetensors.torch import load_file, save_file
from transformers import FineGrainedFP8Config, GptOssConfig, GptOssForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.finegrained_fp8 import Fp8Quantize

HERE = Path(__file__).parent
VERSIONS = {"transformers": "5.23.0", "compressed-tensors": "0.20.1", "torch": "2.13.0"}
SIZES: dict[str, Any] = {"vocab_size": 48, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
BLOCK = (32, 32)
LLAMA = "LlamaForCausalLM"
SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "vocab_size": 40}
TOKEN: dict[str, Any] = {"num_bits": 8, "strategy": "token", "dynamic": True}
FLOAT: dict[str, Any] = {"num_bits": 8, "type": "float"}
# weights and activations of a group
COMPRESSED: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "ct-fp8-tensor": ({**FLOAT, "strategy": "tensor"}, {**FLOAT, "strategy": "tensor"}),
    "ct-fp8-channel": ({**FLOAT, "strategy": "channel"}, {**TOKEN, "type": "float"}),
    "ct-fp8-block": ({**FLOAT, "strategy": "block", "block_structure": list(BLOCK)}, {**FLOAT, **TOKEN}),
    "ct-int8": ({"num_bits": 8, "strategy": "channel"}, TOKEN),
    "ct-int8-zero": ({"num_bits": 8, "strategy": "channel", "symmetric": False}, TOKEN),
    "ct-int4": ({"num_bits": 4, "strategy": "group", "group_size": 16}, None),
    "ct-int4-zero": ({"num_bits": 4, "strategy": "group", "group_size": 16, "symmetric": False}, None),
    "ct-int4-channel": ({"num_bits": 4, "strategy": "channel", "symmetric": False}, None),
    "ct-int8-packed": ({"num_bits": 8, "strategy": "group", "group_size": 16, "symmetric": False}, None),
    "ct-nvfp4": ({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}, None),
    "ct-mxfp4": ({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}, None),
}


def llama(seed: int, **sizes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **HEADS, **sizes})).to(torch.bfloat16)


def linears(model: LlamaForCausalLM) -> dict[str, torch.nn.Linear]:
    """Return what is quantised: all but the head."""
    found = {name: each for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)}
    return {name: each for name, each in found.items() if name != "lm_head"}


def scales(weight: torch.Tensor, args: QuantizationArgs, whole: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scales and zero points of a weight, in the shapes that compressed-tensors stores; `whole` is its global scale."""
    if args.strategy == "tensor":
        parts = weight.reshape(1, -1)
    elif args.strategy == "channel":
        parts = weight.unsqueeze(1)
    elif args.strategy in ("group", "tensor_group"):
        parts = weight.reshape(len(weight), -1, args.group_size)
    else:
        high, wide = args.block_structure
        padded = maybe_pad_tensor_for_block_quant(weight, (high, wide))
        grid = padded.reshape(padded.shape[0] // high, high, padded.shape[1] // wide, wide)
        parts = grid.transpose(1, 2).flatten(2)
    scale, zero = calculate_qparams(parts.amin(-1), parts.amax(-1), args, whole)
    return scale, zero


def fp8(name: str, seed: int) -> None:
    """Write a model with the weights and scales of transformers' own operation."""
    model = llama(seed)
    config = FineGrainedFP8Config(weight_block_size=BLOCK, modules_to_not_convert=["lm_head"])
    quantise = Fp8Quantize(SimpleNamespace(quantization_config=config))
    tensors = dict(model.state_dict())
    for linear in linears(model):
        tensors |= quantise.convert({f"{linear}.weight": tensors[f"{linear}.weight"]})
    save(HERE / name, model, tensors, config.to_dict())


def save(
    folder: Path, model: Any, tensors: dict[str, torch.Tensor], said: dict[str, Any], kind: str = "LlamaForCausalLM"
) -> None:
    model.config.save_pretrained(folder)
    content = json.loads((folder / "config.json").read_text())
    content |= {"dtype": "bfloat16", "architectures": [kind], "quantization_config": said}
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


def fp8_cut() -> None:
    args = QuantizationArgs(num_bits=8, type="float", strategy="block", block_structure=list(BLOCK))
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    model = llama(4, hidden_size=40, intermediate_size=50)
    tensors = dict(model.state_dict())
    for name, linear in linears(model).items():
        weight = linear.weight.detach().float()
        scale, _ = scales(weight, args)
        written = BaseCompressor.get_value_from_registry("float-quantized").compress(
            {"weight": weight, "weight_scale": scale}, scheme
        )
        tensors |= {f"{name}.weight": written["weight"], f"{name}.weight_scale_inv": written["weight_scale"]}
    said = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": list(BLOCK)}
    save(HERE / "fp8-cut", model, tensors, said)
    reader = FP8BlockDequantizer.from_pretrained(str(HERE / "fp8-cut"), weight_block_size=BLOCK, dtype=torch.float32)
    found = reader.process(load_file(HERE / "fp8-cut" / "model.safetensors"))
    save_file({name: each.contiguous() for name, each in found.items()}, HERE / "said" / "fp8-cut.safetensors")


def compressed(name: str, weights: dict[str, Any], activations: dict[str, Any] | None, seed: int) -> None:
    inputs = QuantizationArgs(**activations) if activations else None
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights), input_activations=inputs)
    sizes = {
        "ct-int4-channel": {"intermediate_size": 44, "hidden_size": 36, "head_dim": 8},
        "ct-mxfp4": {"intermediate_size": 32, "vocab_size": 4},
        "ct-nvfp4": {"vocab_size": 4, "intermediate_size": 16},
    }
    model = llama(seed, **{**SMALL, **sizes.get(name, {})})
    apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"]))
    for linear in linears(model).values():
        whole = None
        if hasattr(linear, "weight_global_scale"):
            whole = generate_gparam(linear.weight.detach().amin(), linear.weight.detach().amax())
            linear.weight_global_scale.data.copy_(whole)
        scale, zero = scales(linear.weight.detach(), scheme.weights, whole)
        linear.weight_scale.data.copy_(scale.reshape(linear.weight_scale.shape))
        if hasattr(linear, "weight_zero_point"):
            linear.weight_zero_point.data.copy_(zero.reshape(linear.weight_zero_point.shape))
        if hasattr(linear, "input_scale"):
            linear.input_scale.data.fill_(0.01)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(HERE / name)
    compressor.update_config(str(HERE / name))
    (HERE / name / "generation_config.json").unlink()
    reader = CompressedTensorsDequantizer(str(HERE / name), ["model.embed_tokens"], torch.bfloat16)
    found = reader.process(load_file(HERE / name / "model.safetensors"))
    found = {each: tensor.contiguous() for each, tensor in found.items() if not each.endswith("input_scale")}
    save_file(found, HERE / "said" / f"{name}.safetensors")


def mxfp4() -> None:
    torch.manual_seed(5)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    experts = {"num_local_experts": 3, "num_experts_per_tok": 2, "layer_types": ["full_attention"]}
    sizes = {"vocab_size": 40, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1}
    model = GptOssForCausalLM(GptOssConfig(**sizes, **heads, **experts)).to(torch.bfloat16)
    tensors = dict(model.state_dict())
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        count, columns, rows = tensors.pop(name).shape
        blocks = torch.randint(0, 256, (count, rows, columns // 32, 16), dtype=torch.uint8)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": torch.randint(115, 125, blocks.shape[:-1], dtype=torch.uint8)}
    said = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head", "model.embed_tokens"]}
    save(HERE / "mxfp4", model, tensors, said, "GptOssForCausalLM")


def mxfp4_codes() -> None:
    """Write numbers of many sizes, and the codes and exponents that compressed-tensors makes of them."""
    torch.manual_seed(6)
    weight = torch.randn(8, 64) * torch.logspace(-3, 2, 8)[:, None]
    args = QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=32, scale_dtype=torch.uint8)
    parts = weight.reshape(8, 2, 32)
    scale, _ = calculate_qparams(parts.amin(-1), parts.amax(-1), args)
    compressor = BaseCompressor.get_value_from_registry("mxfp4-pack-quantized")
    written = compressor.compress(
        {"weight": weight, "weight_scale": scale}, QuantizationScheme(targets=["Linear"], weights=args)
    )
    save_file({"weight": weight, **written}, HERE / "said" / "mxfp4-codes.safetensors")


def main() -> None:
    for name, expected in VERSIONS.items():
        assert version(name).partition("+")[0] == expected, f"{name} {version(name)}, not {expected}"
    for name in ("sft", "fp8-a", "fp8-b", "fp8-cut", "mxfp4", *COMPRESSED):
        shutil.rmtree(HERE / name, ignore_errors=True)
    llama(1).save_pretrained(HERE / "sft")
    (HERE / "sft" / "generation_config.json").unlink()
    fp8("fp8-a", 2)
    fp8("fp8-b", 3)
    fp8_cut()
    mxfp4()
    mxfp4_codes()
    for seed, (name, (weights, activations)) in enumerate(COMPRESSED.items()):
        compressed(name, weights, activations, 10 + seed)


if __name__ == "__main__":
    main()
