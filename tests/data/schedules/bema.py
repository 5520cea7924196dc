"""Weights of a tiny run with TRL's BEMACallback, for tests/unit/merging/test_schedules.py.

    pip install torch==2.13.0 trl==1.16.0 transformers accelerate datasets
    python tests/data/schedules/bema.py | tail -1 > tests/data/schedules/bema.json

Every run is a transformers Trainer on a linear layer; the callback's own code makes the averages.
"""

from __future__ import annotations

import json
import tempfile

import torch
import transformers
import trl
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments


class Linear(PreTrainedModel):
    config_class = PretrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(3, 1, bias=False)

    def forward(self, x, labels):
        return {"loss": ((self.layer(x)[:, 0] - labels) ** 2).mean()}


class Keep(TrainerCallback):
    def __init__(self):
        self.weights = {}

    def on_step_end(self, args, state, control, model, **_):
        self.weights[state.global_step] = model.layer.weight.detach().flatten().tolist()


def run(after, every, lag, ema_power, bias_power):
    torch.manual_seed(0)
    model, keep = Linear(PretrainedConfig()), Keep()
    rows = [{"x": torch.randn(3), "labels": torch.randn(())} for _ in range(64)]
    average = trl.BEMACallback(update_freq=every, update_after=after, lag=lag, ema_power=ema_power, bias_power=bias_power)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=12,
            per_device_train_batch_size=4,
            learning_rate=0.05,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
        )
        Trainer(model, arguments, train_dataset=rows, callbacks=[keep, average]).train()
    steps = list(range(after, 13, every))
    return {
        "steps": steps,
        "lag": lag,
        "ema_power": ema_power,
        "bias_power": bias_power,
        "weights": {step: keep.weights[step] for step in steps},
        "bema": average.running_model.layer.weight.detach().flatten().tolist(),
    }


runs = [run(2, 2, 10, 0.5, 0.2), run(4, 4, 1, 0.3, 0.4), run(3, 3, 10, 0.0, 0.2)]
print(json.dumps({"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__, "runs": runs}))
