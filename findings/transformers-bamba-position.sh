#!/usr/bin/env bash
# Bamba reads what follows a cache as if it were the start of the text, unless it is told the positions.
#
# transformers 5.23.0, without compiled kernels. `forward` without `position_ids` counts positions from what the cache holds in Llama,
# Falcon-H1, Granite hybrid, LFM2 and Zamba2; in Bamba it counts from 0, so that the rotary embedding of attention turns a new token as the first
# one is turned. A loop of one's own over `forward` and `past_key_values` samples from another distribution than a reading of the whole text says,
# and nothing is said. With `position_ids`, which `generate` passes, Bamba is exact to rounding.
#
# Seen on 2026-11-29, the largest difference of a logit of the 9th token, read after a cache of 8, from the whole text's, without and with
# position_ids: Bamba 1e-02, 2e-07 (the largest logit is 9e-01); the others 1e-06 or less in both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch, transformers
from transformers import (AutoModelForCausalLM, BambaConfig, FalconH1Config, GraniteMoeHybridConfig, Lfm2Config, LlamaConfig, Zamba2Config)

transformers.logging.set_verbosity_error()
sizes = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, intermediate_size=64)
mamba = dict(mamba_d_state=16, mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=2)
bamba = BambaConfig(**sizes, **mamba, attn_layer_indices=[1])
others = [
    LlamaConfig(**sizes),
    FalconH1Config(**sizes, **mamba, mamba_d_ssm=64, head_dim=8),
    GraniteMoeHybridConfig(**sizes, **mamba, layer_types=["mamba", "attention"], num_local_experts=2, num_experts_per_tok=1,
                           shared_intermediate_size=32, position_embedding_type="rope"),
    Lfm2Config(**sizes, layer_types=["conv", "full_attention"]),
    Zamba2Config(**sizes, mamba_d_state=16, n_mamba_heads=8, layers_block_type=["mamba", "hybrid"], num_mem_blocks=1, use_mem_rope=True),
]

def apart(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    text = torch.randint(3, 64, (1, 9))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(3)  # untrained attention hardly looks at positions
        whole = model(text).logits[0, -1]
        found = []
        for told in ({}, {"position_ids": torch.tensor([[8]])}):
            cache = model(text[:, :8], use_cache=True).past_key_values
            found.append((model(text[:, 8:], past_key_values=cache, **told).logits[0, -1] - whole).abs().max().item())
    print(f"{config.model_type}: {found[0]:.0e}, {found[1]:.0e}, largest logit {whole.abs().max().item():.0e}")
    return found

print("transformers", transformers.__version__, "torch", torch.__version__)
without, told = apart(bamba)
assert without > 1e-3 and told < 1e-5
for config in others:
    assert max(apart(config)) < 1e-5
PYTHON
