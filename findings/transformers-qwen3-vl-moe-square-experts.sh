#!/usr/bin/env bash
# transformers 5 reads the experts of a Qwen3-VL-MoE the wrong way round where a stack of them is square.
#
# transformers 4.57.6 writes, transformers 5.23.0 reads. Version 4 keeps `experts.gate_up_proj` as [experts, hidden_size, 2 * moe_intermediate_size]
# (as the published checkpoints do), version 5 with the last two dimensions exchanged. It turns a stack that it loads where the shape is not the
# expected one. Where hidden_size is 2 * moe_intermediate_size, both shapes are the same: the stack is not turned, and nothing is said: no error,
# no warning, no missing or mismatched key. `down_proj`, which is not square there, is turned. (Where hidden_size is moe_intermediate_size, the
# same check leaves `down_proj`.) Known to transformers: its issue 47031, closed; the published Qwen3-VL-MoE have other sizes.
#
# Seen on 2026-11-30, the largest difference of a logit between the versions, hidden_size 32: moe_intermediate_size 12 2e-07, 16 6e-01.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 4.57.6 5.23.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q torch==2.13.0 "transformers==$version"
done
cat > "$folder/logits.py" <<'PYTHON'
import sys
import torch, transformers
from pathlib import Path
from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

transformers.logging.set_verbosity_warning()
transformers.logging.disable_progress_bar()
print("transformers", transformers.__version__, "torch", torch.__version__)
old = transformers.__version__.startswith("4.")

def written(inner, folder):
    """Write a model with experts of `inner` hidden units."""
    text = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=inner,
                rope_scaling={"rope_type": "default", "mrope_section": [2, 1, 1]})
    vision = dict(depth=1, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=32, patch_size=2, num_position_embeddings=4,
                  deepstack_visual_indexes=[0])
    ids = dict(image_token_id=60, video_token_id=61, vision_start_token_id=62, vision_end_token_id=63)
    torch.manual_seed(0)
    model = Qwen3VLMoeForConditionalGeneration(Qwen3VLMoeConfig(text_config=text, vision_config=vision, **ids))
    for each in model.parameters():
        torch.nn.init.normal_(each, std=0.3)
    model.save_pretrained(folder)

for inner in (12, 16):
    folder = Path(sys.argv[1]) / f"inner-{inner}"
    if old:
        written(inner, folder)
    model, told = Qwen3VLMoeForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    with torch.no_grad():
        logits = model.eval()(torch.arange(3, 9)[None]).logits
    stacks = [value for name, value in sorted(model.state_dict().items()) if "layers.0.mlp.experts" in name]
    if old:
        torch.save((logits, stacks), folder / "seen.pt")
        continue
    before, (down, gate_up) = torch.load(folder / "seen.pt")
    apart = (logits - before).abs().max().item()
    print(f"hidden_size 32, moe_intermediate_size {inner}: {apart:.0e}, of logits up to {before.abs().max().item():.1f}")
    assert torch.equal(stacks[0], down.transpose(1, 2))
    assert torch.equal(stacks[1], gate_up if inner == 16 else gate_up.transpose(1, 2))
    assert apart > 0.1 if inner == 16 else apart < 1e-4
PYTHON
for version in 4.57.6 5.23.0; do
    "$folder/$version/bin/python" "$folder/logits.py" "$folder"
done
