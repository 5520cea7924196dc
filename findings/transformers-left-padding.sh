#!/usr/bin/env bash
# Padding on the left changes what some models of transformers say of a text, whatever the attention mask says.
#
# transformers 5.23.0. A batch for `generate` is padded on the left, and its attention mask says where each text begins. These models say another
# thing of the padded row than of the row alone, in `forward` and in `generate`, and `position_ids`, where `forward` takes them, do not help:
# - BartForCausalLM: positions are counted from the first column, padding included (OPT, with positions learned the same way, counts the mask);
# - RwkvForCausalLM and xLSTM: their state runs through the padding, and the mask is taken and not used;
# - DeepSeek-V4, layers with compressed attention: the windows that are compressed are cut by column, padding included.
# None of them says anything (RwkvModel alone would log that it does not use the mask, but RwkvForCausalLM does not pass it on).
# OPT, GPT-2 (in `generate`; `forward` needs its position_ids), Mamba, and DeepSeek-V4 with sliding windows alone are exact to rounding.
#
# Seen on 2026-11-29, the largest difference of a logit in forward, and of the first token's in generate: BART 3e-01, 3e-01;
# RWKV 2e+00, 6e-01; xLSTM 1e+00, 5e-01; DeepSeek-V4 compressed 1e-01, 4e-02; heavily compressed 8e-02, 4e-02;
# OPT, GPT-2, Mamba, DeepSeek-V4 sliding 1e-06 or less.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import inspect
import torch, transformers
from transformers import (AutoModelForCausalLM, BartConfig, DeepseekV4Config, GPT2Config, MambaConfig, OPTConfig, RwkvConfig,
                          xLSTMConfig)

print("transformers", transformers.__version__, "torch", torch.__version__)
transformers.logging.set_verbosity_error()
PAD = 1
ids = dict(vocab_size=64, bos_token_id=0, pad_token_id=PAD, eos_token_id=2)
bart = BartConfig(**ids, d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=64, max_position_embeddings=64,
                  is_decoder=True, is_encoder_decoder=False)
opt = OPTConfig(**ids, hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, max_position_embeddings=64)
gpt2 = GPT2Config(**ids, n_embd=32, n_layer=2, n_head=4, n_positions=64)
mamba = MambaConfig(**ids, hidden_size=32, num_hidden_layers=2)
rwkv = RwkvConfig(**ids, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, intermediate_size=64, context_length=64)
xlstm = xLSTMConfig(**ids, hidden_size=64, num_hidden_layers=2, num_heads=4, qk_dim_factor=1.0)

def deepseek(kind):
    return DeepseekV4Config(
        **ids, hidden_size=32, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=4, head_dim=16, q_lora_rank=16,
        n_routed_experts=4, num_experts_per_tok=2, layer_types=[kind] * 2, mlp_layer_types=["moe"] * 2, hc_mult=2, sliding_window=4,
        compress_rates={"compressed_sparse_attention": 2, "heavily_compressed_attention": 4}, o_groups=2, o_lora_rank=8, index_n_heads=2,
        index_head_dim=8, index_topk=2)

def apart(name, config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    alone, other = torch.randint(3, 64, (1, 6)), torch.randint(3, 64, (1, 9))
    both = torch.cat([torch.cat([torch.full((1, 3), PAD), alone], 1), other])
    mask = (both != PAD).long()
    positions = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if "position_ids" in inspect.signature(model.forward).parameters else {}
    settings = dict(max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True)
    with torch.no_grad():
        forward = model(both, attention_mask=mask, **positions).logits[0, 3:] - model(alone).logits[0]
        said = model.generate(both, attention_mask=mask, **settings).logits[0][0] - model.generate(alone, **settings).logits[0][0]
    print(f"{name}: {forward.abs().max().item():.0e}, {said.abs().max().item():.0e}")
    return min(forward.abs().max().item(), said.abs().max().item()), max(forward.abs().max().item(), said.abs().max().item())

for name, config in (("BART", bart), ("RWKV", rwkv), ("xLSTM", xlstm), ("DeepSeek-V4 compressed", deepseek("compressed_sparse_attention")),
                     ("DeepSeek-V4 heavily compressed", deepseek("heavily_compressed_attention"))):
    assert apart(name, config)[0] > 1e-2
for name, config in (("OPT", opt), ("GPT-2", gpt2), ("Mamba", mamba), ("DeepSeek-V4 sliding", deepseek("sliding_attention"))):
    assert apart(name, config)[1] < 1e-4
PYTHON
