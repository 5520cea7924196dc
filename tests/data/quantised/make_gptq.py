"""Makes `gptq-*` and `awq` with gptqmodel on a CPU, and digests of the numbers that gptqmodel reads from them.

Run it with gptqmodel 7.7.0, transformers 5.23.0 and torch 2.13.0: `python tests/data/quantised/make_gptq.py`. gptqmodel asks
for four cores or more, and a newer torch, which its CPU part does not need.

`said/gptq-*.json` and `said/awq.json` have the SHA-256 of the bytes of every quantised weight as [out, in]: float16 where
scales are float16, bfloat16 where they are bfloat16.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.cpu_count = lambda: 8

import torch  # noqa: E402
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig  # noqa: E402
from gptqmodel.nn_modules.qlinear.torch import TorchLinear  # noqa: E402
from gptqmodel.quantization import FORMAT, METHOD  # noqa: E402
from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

HERE, DENSE = Path(__file__).parent, Path(__file__).parent / "gptq-dense"
VERSIONS = {"gptqmodel": "7.7.0", "transformers": "5.23.0", "torch": "2.13.0"}
SIZES: dict[str, Any] = {"vocab_size": 8, "hidden_size": 64, "num_hidden_layers": 1, "max_position_embeddings": 32}
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2}
FORMS: dict[str, dict[str, Any]] = {
    "gptq-4": {"bits": 4, "group_size": 32, "desc_act": False},
    "gptq-order": {"bits": 4, "group_size": 16, "desc_act": True, "sym": False},
    "gptq-8": {"bits": 8, "group_size": -1, "desc_act": False, "act_group_aware": False},
    "gptq-v2": {"bits": 4, "group_size": 32, "sym": False, "format": FORMAT.GPTQ_V2},
    "awq": {"bits": 4, "group_size": 32, "sym": False, "quant_method": METHOD.AWQ, "format": FORMAT.GEMM},
}


def dense(width: int) -> None:
    torch.manual_seed(30)
    sizes = {"intermediate_size": width, "head_dim": width // 2}
    LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, **sizes)).to(torch.float16).save_pretrained(DENSE)
    words = Tokenizer(models.WordLevel({f"w{each}": each for each in range(8)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", pad_token="w1", eos_token="w2").save_pretrained(DENSE)


def numbers(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights that gptqmodel reads."""
    if folder.name == "awq":
        tensors = load_file(folder / "model.safetensors")
        for name in [each.removesuffix(".qweight") for each in tensors if each.endswith(".qweight")]:
            parts = (tensors[f"{name}.{each}"] for each in ("qweight", "qzeros", "scales"))
            yield name, dequantize_gemm(*parts, bits=4, group_size=32)
        return
    model = GPTQModel.load(str(folder), backend=BACKEND.GPTQ_TORCH, device="cpu", dtype=torch.float16)
    for name, module in model.model.named_modules():
        if isinstance(module, TorchLinear):
            yield name, TorchLinear.dequantize_weight(module)


def make(name: str, said: dict[str, Any]) -> None:
    dense(64 if name == "awq" else 32)  # what AWQ searches in steps of
    draw = torch.Generator().manual_seed(31)
    texts = [{"input_ids": torch.randint(0, 8, (32,), generator=draw).tolist(), "attention_mask": [1] * 32} for _ in range(16)]
    model = GPTQModel.load(str(DENSE), QuantizeConfig(**said, device="cpu"))
    model.quantize(texts, batch_size=1)
    model.save(str(HERE / name))
    found = {f"{each}.weight": _digest(weight.T.contiguous()) for each, weight in numbers(HERE / name)}
    (HERE / "said" / f"{name}.json").write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")
    for file in (HERE / name).iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    config = json.loads((HERE / name / "config.json").read_text())
    del config["quantization_config"]["meta"]  # with a folder of this machine
    (HERE / name / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _digest(weight: torch.Tensor) -> str:
    return hashlib.sha256(weight.view(torch.int16).numpy().tobytes()).hexdigest()


def main() -> None:
    for name, expected in VERSIONS.items():
        assert version(name).partition("+")[0] == expected, f"{name} {version(name)}, not {expected}"
    for name, said in FORMS.items():
        make(name, said)
    shutil.rmtree(DENSE)


if __name__ == "__main__":
    main()
