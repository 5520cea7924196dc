#!/usr/bin/env bash
# transformers reads FP8 weights with blocks of another size than the config says, where blocks do not divide a matrix.
#
# transformers 5.23.0, torch 2.13.0. A checkpoint in DeepSeek's form (quant_method fp8, weight_block_size [128, 128]) has a matrix of 192
# rows, so two scales along them: one for rows 0 to 127, one for rows 128 to 191. Loaded with dequantize=True, transformers divides the rows
# by the number of scales and takes blocks of 96: rows 96 to 127 get the scale of the next block. No error, no warning. Whoever loads
# such a model on a CPU to merge or fine-tune it has wrong weights in a sixth of the rows of such a matrix.
#
# Seen on 2026-11-30: 96 rows scaled by 1 and 96 by 2, where the file means 128 and 64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
cat > "$folder/fp8.py" <<'PYTHON'
import json, sys, warnings
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, FineGrainedFP8Config, LlamaConfig, LlamaForCausalLM

folder = Path(sys.argv[1])
sizes = dict(vocab_size=32, hidden_size=128, intermediate_size=192, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4)
LlamaForCausalLM(LlamaConfig(**sizes)).to(torch.bfloat16).save_pretrained(folder)
tensors = load_file(folder / "model.safetensors")
for name in [name for name in tensors if "_proj.weight" in name]:
    rows, columns = tensors[name].shape
    tensors[name] = torch.ones(rows, columns).to(torch.float8_e4m3fn)
    grid = -(-rows // 128), -(-columns // 128)
    tensors[name + "_scale_inv"] = torch.arange(1.0, 1 + grid[0] * grid[1]).reshape(grid)
save_file(tensors, folder / "model.safetensors", {"format": "pt"})
config = json.loads((folder / "config.json").read_text())
config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
(folder / "config.json").write_text(json.dumps(config))
model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=FineGrainedFP8Config(dequantize=True, weight_block_size=(128, 128)))
up = model.model.layers[0].mlp.up_proj.weight.detach().float()
scaled = [int((up[:, 0] == scale).sum()) for scale in (1, 2)]
print("rows that were scaled by 1:", scaled[0], "by 2:", scaled[1], "(the file means 128 and 64)")
assert scaled == [96, 96]
PYTHON
"$folder/venv/bin/python" -c 'import importlib.metadata as m; print("transformers", m.version("transformers"), "torch", m.version("torch"))'
"$folder/venv/bin/python" -W ignore "$folder/fp8.py" "$folder/model" 2>"$folder/log" || { tail -5 "$folder/log"; exit 1; }
