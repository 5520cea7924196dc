#!/usr/bin/env bash
# transformers reads FP8 weights whose last blocks are cut with blocks of another size, or not at all.
#
# transformers 5.23.0, without a GPU, or with one older than FP8: a checkpoint of `quant_method: fp8` is dequantised as it is loaded. The size of
# a block is taken from the shapes (rows of the weight divided by rows of its scales), not from `weight_block_size`. A weight of 192 rows in blocks of
# 128 has two rows of scales, for 128 and 64 rows; it is read with blocks of 96, so that 32 rows get the scale of the other block, and nothing is
# said. With 320 rows and three scales the division has a remainder, and that is an error. DeepSeek's own code takes the size of a block as given and
# cuts the last one. (DeepSeek-V3 has such a matrix: kv_a_proj_with_mqa has 576 rows.)
#
# Seen on 2026-11-30: of 192 rows, 96 have the first scale, where the file says 128; of 320, an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json, sys
import torch, transformers
from pathlib import Path
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

transformers.logging.set_verbosity_error()
print("transformers", transformers.__version__)

def read(inner):
    """Return the gate of a Llama whose FP8 weights are all 1, and whose blocks have the scales 1, 2, ... down their rows."""
    folder = Path(sys.argv[1]) / str(inner)
    sizes = dict(vocab_size=64, hidden_size=128, intermediate_size=inner, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(LlamaConfig(**sizes))
    model.config.save_pretrained(folder)
    said = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"], "quantization_config": said}))
    tensors = dict(model.state_dict())
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rows, columns = tensors[name].shape
        tensors[name] = torch.ones(rows, columns).to(torch.float8_e4m3fn)
        scales = 1.0 + torch.arange(-(-rows // 128))
        tensors[f"{name}_scale_inv"] = scales[:, None].repeat(1, -(-columns // 128))
    save_file(tensors, folder / "model.safetensors")
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return loaded.model.layers[0].mlp.gate_proj.weight

assert (read(256)[:, 0] == 1).sum() == 128
first = int((read(192)[:, 0] == 1).sum())
print("192 rows in blocks of 128:", first, "have the first scale, 128 are meant")
assert first == 96
try:
    read(320)
except Exception as error:
    print("320 rows:", str(error).splitlines()[0][:120])
else:
    raise AssertionError("320 rows are read")
PYTHON
