#!/usr/bin/env bash
# The `fan_in_fan_out` that peft writes is that of the last layer it adapted.
#
# peft 0.21.2, transformers 5.23.0. `fan_in_fan_out` says that a layer stores its weight as (in, out), so that the change B A is added to it
# transposed. peft corrects a wrong value layer by layer, with a warning, and writes each correction into the one LoraConfig, the caller's
# object included; adapter_config.json says what the last layer left there. A model with both kinds of layer has no right value: whatever
# the caller passes, the file says True for BERT's `query` and GPT-2's `c_proj` (an encoder and its decoder), and False for `c_proj` and `lm_head`
# of GPT-2. peft itself is not misled: when it reads the folder, it decides again by each layer's class. A reader that has only the files
# is: square matrices fit either way, and one rule for all transposes some of them.
#
# Seen on 2026-11-29: both files alike for True and False passed; reading again with peft changes no logit; merging BERT's square `query` as its
# file says (transposed) is off by 1.4 times the size of the change, and not transposed by none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 peft==0.21.2
"$folder/venv/bin/python" -W ignore - "$folder/adapter" <<'PYTHON'
import copy, json, sys
import peft, torch, transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel, GPT2Config, GPT2LMHeadModel

transformers.logging.set_verbosity_error()
text = torch.arange(3, 12)[None]
gpt2 = dict(vocab_size=64, n_embd=32, n_layer=1, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
bert = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64)
both = EncoderDecoderConfig.from_encoder_decoder_configs(bert, GPT2Config(**gpt2))
torch.manual_seed(0)
encoder_decoder = EncoderDecoderModel(both).eval()
decoder = GPT2LMHeadModel(GPT2Config(**gpt2, tie_word_embeddings=False)).eval()

def written(said, base, targets, passed, **inputs):
    config = LoraConfig(r=2, lora_alpha=2, target_modules=targets, fan_in_fan_out=passed, init_lora_weights=False)
    model = get_peft_model(copy.deepcopy(base), config).eval()
    model.save_pretrained(sys.argv[1])
    with open(f"{sys.argv[1]}/adapter_config.json") as file:
        says = json.load(file)["fan_in_fan_out"]
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "lora_A")}
    of = {f"{name.split('.')[-1]} {layer.fan_in_fan_out}" for name, layer in layers.items()}
    again = PeftModel.from_pretrained(copy.deepcopy(base), sys.argv[1]).eval()
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)
    print(f"{said}, passed {passed}: the file says {says}, the layers {', '.join(sorted(of))}")
    assert config.fan_in_fan_out == says and len(of) == 2
    return says, layers

print("peft", peft.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
for passed in (False, True):
    says, _ = written("GPT-2", decoder, ["c_proj", "lm_head"], passed, input_ids=text)
    assert says is False
    says, layers = written("BERT and GPT-2", encoder_decoder, ["query", "c_proj"], passed, input_ids=text, decoder_input_ids=text)
    assert says is True
name, query = next((name, layer) for name, layer in layers.items() if name.endswith("query"))
right = query.get_delta_weight("default")
saved = load_file(f"{sys.argv[1]}/adapter_model.safetensors")
change = saved[f"{name}.lora_B.weight"] @ saved[f"{name}.lora_A.weight"]
off, none = ((change.T - right).norm() / right.norm()).item(), ((change - right).norm() / right.norm()).item()
print(f"query, as the file says (transposed): off by {off:.1f} times the change; not transposed: {none:.0f}")
assert off > 0.5 and none < 1e-5
PYTHON
