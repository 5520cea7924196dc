#!/usr/bin/env bash
# A step from the cache of Zamba2 or Nemotron-H leaves out the lower limit of the time step.
#
# transformers 5.23.0, without compiled kernels. Reading a text, the Mamba-2 layers of both raise every time step to `time_step_min` (0.001)
# or more. Reading one token from the cache, they do not. So where a time step falls below that, `generate` samples from another distribution
# than one forward pass over the same tokens reports, by more with every token, and the ratio of the two probabilities, which a policy gradient
# takes to be one before the first update, is not. Bamba agrees: its limits are those of `time_step_limit`, (0, inf) unless told otherwise.
# Nemotron-H has that field as well, with the same default, and the layer takes its lower limit from `time_step_min` all the same.
# With the limit taken away from the layers, both agree. Weights here are random and large (0.5), so that some time steps are that small.
#
# Seen on 2026-11-29, the largest difference of a logit at the 1st and over all 12 tokens sampled, and the ratio of what they are given in all:
# Zamba2 2e-06, 1e+00 and 0.80; Nemotron-H 1e-06, 8e-02 and 1.01; Bamba 1e-06, 1e-05 and 1.00; without the limit 4e-05 or less and 1.00.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch, transformers
from transformers import AutoModelForCausalLM, BambaConfig, NemotronHConfig, Zamba2Config

transformers.logging.set_verbosity_error()
sizes = dict(vocab_size=64, hidden_size=32, num_attention_heads=4, num_key_value_heads=4, intermediate_size=64, initializer_range=0.5)
zamba2 = Zamba2Config(**sizes, mamba_d_state=16, n_mamba_heads=8, num_hidden_layers=2, layers_block_type=["mamba", "hybrid"],
                      num_mem_blocks=1, use_mem_rope=True)
nemotron = NemotronHConfig(**sizes, head_dim=8, ssm_state_size=16, mamba_num_heads=8, mamba_head_dim=8, n_groups=2,
                           layers_block_type=["mamba", "attention"])
bamba = BambaConfig(**sizes, num_hidden_layers=2, mamba_d_state=16, mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=2, attn_layer_indices=[1])

def compared(config, limited=True):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for layer in model.modules():
        if not limited and hasattr(layer, "time_step_limit"):
            layer.time_step_limit = (0.0, float("inf"))
    prompt = torch.randint(3, 64, (1, 4))
    said = model.generate(prompt, max_new_tokens=12, min_new_tokens=12, do_sample=True, output_logits=True, return_dict_in_generate=True)
    stepped = torch.stack(said.logits, 1)[0]
    with torch.no_grad():
        read = model(said.sequences).logits[0, 3:-1]
    tokens = said.sequences[0, 4:, None]
    ratio = (read.log_softmax(-1) - stepped.log_softmax(-1)).gather(1, tokens).sum().exp().item()
    first, largest = (stepped - read)[0].abs().max().item(), (stepped - read).abs().max().item()
    print(f"{config.model_type}{'' if limited else ' without the limit'}: {first:.0e}, {largest:.0e}, ratio {ratio:.2f}")
    return first, largest

print("transformers", transformers.__version__, "torch", torch.__version__)
assert nemotron.time_step_limit == (0.0, float("inf")) == bamba.time_step_limit
for config in (zamba2, nemotron):
    first, largest = compared(config)
    assert first < 1e-4 and largest > 1e-2
for config, limited in ((bamba, True), (zamba2, False), (nemotron, False)):
    assert compared(config, limited)[1] < 1e-4
PYTHON
