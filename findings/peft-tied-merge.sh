#!/usr/bin/env bash
# Merging an adapter of a tied output layer gives another model than the adapted one.
#
# peft 0.21.2, transformers 5.23.0. Input and output embeddings of a tied model are one tensor.
# - LoRA on `lm_head` alone: while adapted, only the output layer changes. `merge_and_unload` adds the change to the one tensor, so that
#   the embeddings change with it. peft warns, when it adapts and when it merges, of "complications".
# - With `ensure_weight_tying=True`, which the first warning points to, `lm_head` and the embeddings share one change, and the first warning
#   is gone. Merging adds that change to the one tensor twice, once for each of its two names.
# Both are what `save_pretrained` writes and what is read again. `lm_head` of a model that is not tied is merged
# exactly.
#
# Seen on 2026-11-29, the largest difference of a logit from the adapted model's, after merging and read again, and how many times the change
# lies in the merged output layer: lm_head 3e+00, 1.0 times; ensure_weight_tying 6e+00, 2.0 times; not tied 2e-07, 1.0 times.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 peft==0.21.2
"$folder/venv/bin/python" -W ignore - "$folder/model" <<'PYTHON'
import sys
import peft, torch, transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
text = torch.arange(3, 12)[None]

def merged(said, tied, **settings):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, tie_word_embeddings=tied)).eval()
    before = model.lm_head.weight.detach().clone()
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["lm_head"], **settings)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:  # stands for training
                weight.add_(torch.randn_like(weight) * 0.1)
        adapted = model(text).logits
        change = model.base_model.model.lm_head.get_delta_weight("default")
        model = model.merge_and_unload()
        model.save_pretrained(sys.argv[1])
        again = AutoModelForCausalLM.from_pretrained(sys.argv[1])
        apart = (again(text).logits - adapted).abs().max().item()
        assert abs(apart - (model(text).logits - adapted).abs().max().item()) < 1e-4
    times = ((again.lm_head.weight - before).norm() / change.norm()).item()
    print(f"{said}: {apart:.0e}, {times:.1f} times")
    return apart, round(times, 3)

print("peft", peft.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
alone, once = merged("tied, lm_head", True)
shared, twice = merged("tied, lm_head, ensure_weight_tying", True, ensure_weight_tying=True)
untied, right = merged("not tied, lm_head", False)
assert alone > 0.1 and shared > 0.1 and untied < 1e-4 and (once, twice, right) == (1, 2, 1)
PYTHON
