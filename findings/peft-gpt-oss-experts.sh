#!/usr/bin/env bash
# An adapter of GPT-OSS' square `down_proj` stands for other weights with transformers 4 than with 5, and nothing in it tells which.
#
# peft 0.21.2, transformers 4.57.6 and 5.5.4. Both hold the experts as [E, in, out]. peft takes a parameter for [E, out, in] unless its module says
# `is_transposed`, which GPT-OSS does with transformers 5 alone. So `lora_A` lies on the other side of an expert with transformers 4. `down_proj`
# of GPT-OSS is square (2880 x 2880): the adapter loads with the other transformers without a warning, and the change of every
# expert is merged transposed. Its adapter_config.json is the same either way (peft writes its own version, not that of transformers).
# An adapter that holds `gate_up_proj` too is refused (a size mismatch).
#
# Seen on 2026-11-30, written with 4.57.6, merged with 5.5.4: `down_proj` alone off by 1.4 times the change, with the same adapter_config.json
# and no new warning; with `gate_up_proj` refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.5.4 peft==0.21.2 requests
"$folder/venv/bin/pip" install -q --no-deps --target "$folder/older" transformers==4.57.6 huggingface_hub==0.36.0
cat > "$folder/adapt.py" <<'PYTHON'
import json, sys, warnings
from pathlib import Path
import peft, torch, transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig

folder, here = Path(sys.argv[1]), transformers.__version__
TARGETS = {"down_proj": ["mlp.experts.down_proj"], "both": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}

def base():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(GptOssConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4,
        head_dim=8, num_local_experts=4))

def experts(model):
    return next(weight.detach().clone() for name, weight in model.named_parameters() if name.endswith("down_proj"))

def write(place, targets):
    model = base()
    before = experts(model)
    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_alpha=2, target_modules=[], target_parameters=targets, init_lora_weights=False)
    model = get_peft_model(model, config)  # with random factors, which stand for training
    model.save_pretrained(place)
    merged = experts(model.merge_and_unload())
    save_file({"before": before, "merged": merged}, place / "merged.safetensors")

def read(place):
    """Return how far the merged experts are from the writer's, None where peft refuses, and what is warned of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            model = PeftModel.from_pretrained(base(), place).merge_and_unload()
        except RuntimeError as error:
            assert "size mismatch" in str(error)
            return None, set()
    wrote = load_file(place / "merged.safetensors")
    off = (experts(model) - wrote["merged"]).norm() / (wrote["merged"] - wrote["before"]).norm()
    return round(off.item(), 1), {str(each.message) for each in said}

print("peft", peft.__version__, "transformers", here, "torch", torch.__version__)
for name, targets in TARGETS.items():
    write(folder / f"{name}-{here}", targets)
    own, quiet = read(folder / f"{name}-{here}")
    assert own == 0
    if here.startswith("5."):
        older = folder / f"{name}-4.57.6"
        configs = [json.loads((place / "adapter_config.json").read_text()) for place in (older, folder / f"{name}-{here}")]
        for config in configs:
            config["target_parameters"].sort()
        off, said = read(older)
        print(f"{name}, written with 4.57.6, merged with {here}: {off}; the same config: {configs[0] == configs[1]}; new warnings: {said - quiet}")
        assert configs[0] == configs[1] and said <= quiet
        assert off is None if name == "both" else off > 1
PYTHON
PYTHONPATH="$folder/older" "$folder/venv/bin/python" -W ignore "$folder/adapt.py" "$folder"
"$folder/venv/bin/python" -W ignore "$folder/adapt.py" "$folder"
