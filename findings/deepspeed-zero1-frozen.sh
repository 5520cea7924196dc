#!/usr/bin/env bash
# zero_to_fp32 leaves the frozen parameters out of a model that was trained with ZeRO stage 1.
#
# deepspeed 0.19.8, torch 2.13.0. A model with a frozen parameter is trained for a step and saved. DeepSpeed's own converter, which it puts
# beside every checkpoint, gives all parameters of stages 2 and 3, and of stage 1 all but the frozen one: no error, no warning, exit 0. The
# checkpoint has it (`module` of the model states); what lists frozen parameters for the converter is written from stage 2 on. Whoever
# fine-tunes a part of a model with stage 1 and loads what the converter wrote, not strictly, goes on with fresh weights in the rest.
#
# Seen on 2026-11-29: stage 1 gives bias, weight; stages 2 and 3 give bias, frozen, weight.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 setuptools wheel ninja py-cpuinfo numpy
DS_BUILD_OPS=0 DS_ACCELERATOR=cpu "$folder/venv/bin/pip" install -q --no-build-isolation deepspeed==0.19.8
cat > "$folder/stage.py" <<'PYTHON'
import os, sys
os.environ.update(DS_ACCELERATOR="cpu", RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="29531")
import deepspeed, torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(torch.randn(4, 4)), torch.nn.Parameter(torch.zeros(4))
        self.frozen = torch.nn.Parameter(torch.randn(4), requires_grad=False)

    def forward(self, x):
        return ((x + self.frozen) @ self.weight + self.bias).pow(2).mean()

stage, target = int(sys.argv[1]), sys.argv[2]
deepspeed.init_distributed(dist_backend="gloo")
model = Model()
zero = {"stage": stage, "reduce_bucket_size": 1000, "allgather_bucket_size": 1000, "stage3_param_persistence_threshold": 0}
config = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": zero, "zero_allow_untested_optimizer": True,
          "zero_force_ds_cpu_optimizer": False}
learned = [each for each in model.parameters() if each.requires_grad]
engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(learned, lr=0.01), config=config)
engine.backward(engine(torch.randn(2, 4)))
engine.step()
engine.save_checkpoint(target)
names = sorted(get_fp32_state_dict_from_zero_checkpoint(target))
print(f"stage {stage}:", ", ".join(names))
assert names == (["bias", "weight"] if stage == 1 else ["bias", "frozen", "weight"])
PYTHON
"$folder/venv/bin/python" -c 'import importlib.metadata as m; print("deepspeed", m.version("deepspeed"), "torch", m.version("torch"))'
for stage in 1 2 3; do
    "$folder/venv/bin/python" -W ignore "$folder/stage.py" "$stage" "$folder/stage-$stage" 2>"$folder/log" | grep "^stage" \
        || { tail -5 "$folder/log"; exit 1; }
done
