#!/usr/bin/env bash
# Factors of square experts stand for other weights from one version of peft to the next, and none says so.
#
# peft 0.18.1, 0.19.0, 0.19.1, 0.21.2, transformers 5.5.4 (with 5.23.0, peft 0.19 cannot read an adapter of Mixtral: a TypeError). transformers
# holds the experts of a layer as one parameter: [E, out, in] in Mixtral, [E, in, out] in GPT-OSS, which says `is_transposed`. peft adapts it
# as a whole (`target_parameters`). `lora_A` lies on the first side of an expert in 0.18.1; in 0.19.0 too unless `is_transposed`; since
# 0.19.1 only if `is_transposed`. So 0.19.0 has both models the other way round than later versions, and 0.18.1 has Mixtral so.
# What was written the other way round is refused (a size mismatch) where experts are not square. Where they are, as `down_proj` of GPT-OSS
# is (2880 x 2880), it loads, and the change of every expert is merged transposed. peft warns of nothing, but that an older one does not know
# all settings of a newer one. `peft_version` in adapter_config.json would tell; peft does not look at it here.
#
# Seen on 2026-11-30: how far the merged experts are from what the writer merges, in sizes of the change (None: refused). Mixtral 32 x 32 of
# 0.19.0, merged by 0.18.1, 0.19.0, 0.19.1, 0.21.2: 0.0, 0.0, 1.4, 1.4; 32 x 48: 0.0, 0.0, None, None. GPT-OSS 32 x 32 of 0.19.0: 1.4, 0.0, 1.4,
# 1.4; 32 x 48: None, 0.0, None, None. Of 0.21.2: Mixtral 32 x 32 1.4, 1.4, 0.0, 0.0; GPT-OSS 32 x 32 0.0, 1.4, 0.0, 0.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.5.4 peft==0.21.2
versions="0.18.1 0.19.0 0.19.1 0.21.2"
for version in $versions; do
    "$folder/venv/bin/pip" install -q --no-deps --target "$folder/$version" "peft==$version"
done
cat > "$folder/adapt.py" <<'PYTHON'
import sys, warnings
from pathlib import Path
import peft, torch, transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig, MixtralConfig

folder, task, versions, here = Path(sys.argv[1]), sys.argv[2], sys.argv[3:], peft.__version__
KINDS = {"Mixtral": MixtralConfig, "GPT-OSS": GptOssConfig}
FORMER = {("Mixtral", "0.18.1"), ("Mixtral", "0.19.0"), ("GPT-OSS", "0.19.0")}  # the other way round than since 0.19.1

def base(kind, width):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(KINDS[kind](
        vocab_size=64, hidden_size=32, intermediate_size=width, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4,
        head_dim=8, num_local_experts=4))

def experts(model):
    return next(weight.detach().clone() for name, weight in model.named_parameters() if name.endswith("down_proj"))

def write(kind, width, place):
    model = base(kind, width)
    before = experts(model)
    config = LoraConfig(r=2, lora_alpha=2, target_modules=[], target_parameters=["mlp.experts.down_proj"], init_lora_weights=False)
    torch.manual_seed(1)
    model = get_peft_model(model, config)  # with random factors, which stand for training
    model.save_pretrained(place)
    merged = experts(model.merge_and_unload())
    save_file({"merged": merged, "change": merged - before}, place / "merged.safetensors")

def read(kind, width, place):
    """Return how far the merged experts are from the writer's, None where peft refuses, and what it warns of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            model = PeftModel.from_pretrained(base(kind, width), place).merge_and_unload()
        except RuntimeError as error:
            assert "size mismatch" in str(error)
            return None, set()
    wrote = load_file(place / "merged.safetensors")
    off = (experts(model) - wrote["merged"]).norm() / wrote["change"].norm()
    return round(off.item(), 1), {str(each.message) for each in said}

print(task, "peft", here, "transformers", transformers.__version__, "torch", torch.__version__)
for kind, width in [(kind, width) for kind in KINDS for width in (32, 48)]:
    places = {version: folder / f"{kind}-{width}-{version}" for version in versions}
    if task == "write":
        write(kind, width, places[here])
        continue
    found = {version: read(kind, width, place) for version, place in places.items()}
    print(f"{kind}, 32 x {width}, merged by {here}:", ", ".join(f"{off} of {version}" for version, (off, _) in found.items()))
    for version, (off, said) in found.items():
        same = ((kind, version) in FORMER) == ((kind, here) in FORMER)
        assert off == 0 if same else off is None if width == 48 else off > 1
        more = said - found[here][1]  # only that an older peft does not know all settings of a newer one
        assert all(each.startswith("Unexpected keyword arguments") for each in more)
        assert not more or versions.index(version) > versions.index(here)
PYTHON
for task in write read; do
    for version in $versions; do
        PYTHONPATH="$folder/$version" "$folder/venv/bin/python" -W ignore "$folder/adapt.py" "$folder" $task $versions
    done
done
