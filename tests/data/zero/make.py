"""Makes the checkpoints of this folder with DeepSpeed, and what its own zero_to_fp32 reads from them.

Run it with deepspeed 0.19.8, torch 2.13.0, transformers 5.24.0 and accelerate 1.15.0 on a CPU, from anywhere:
`DS_ACCELERATOR=cpu python tests/data/zero/make.py`. Folders called `0.15.4-...` are of that version of deepspeed: then name
the runs, and set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1, which that version's own script needs with a newer torch; its stage 3
needs the program numactl. Each folder is one run of two or three processes with gloo and two optimiser steps: `global_step2`
and `latest` as `save_checkpoint` wrote them, without the scripts that it puts beside them. `said/` has what
`get_fp32_state_dict_from_zero_checkpoint` gave. `trainer` is what transformers' Trainer left, without training_args.bin.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
HALF: dict[str, Any] = {"bf16": {"enabled": True}}
WIDE_SUMS: dict[str, Any] = {**HALF, "data_types": {"grad_accum_dtype": "fp32"}}
# stage, processes, more of the config
RUNS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "stage1-float32": (1, 2, {}),
    "stage1-bfloat16": (1, 2, HALF),
    "stage1-wide-sums": (1, 2, WIDE_SUMS),
    "stage2-float32": (2, 2, {}),
    "stage2-bfloat16": (2, 3, HALF),
    "stage2-round-robin": (2, 3, {"round_robin_gradients": True}),
    "stage3-float32": (3, 2, {}),
    "stage3-bfloat16": (3, 3, HALF),
    "stage3-sub-groups": (3, 2, {"sub_group_size": 40}),
    "stage1-aligned": (1, 2, {**HALF, "parameter_alignment": True}),
}
WITHOUT_FROZEN = {"stage2-without-frozen": (2, 2), "stage3-without-frozen": (3, 2)}


class Model(torch.nn.Module):
    """A tied embedding, a parameter that is frozen, buffers of two types, sizes that nothing divides."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, 7)
        self.first = torch.nn.Linear(7, 5)
        self.frozen = torch.nn.Parameter(torch.randn(3, 5), requires_grad=False)
        self.second = torch.nn.Linear(5, 7, bias=False)
        self.norm = torch.nn.LayerNorm(7)
        self.scale = torch.nn.Parameter(torch.tensor([1.5]))
        self.head = torch.nn.Linear(7, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("seen", torch.tensor([3, 1, 4]))
        self.register_buffer("mean", torch.randn(5))

    def forward(self, ids: Any) -> Any:
        kind = self.embed.weight.dtype  # DeepSpeed leaves buffers in float32
        hidden = torch.relu(self.first(self.embed(ids))) + (self.frozen.sum(0) + self.mean).to(kind)
        logits = self.head(self.norm(self.second(hidden)) * self.scale)
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten())


def config(stage: int, more: dict[str, Any]) -> dict[str, Any]:
    zero = {"stage": stage, "reduce_bucket_size": 1000, "allgather_bucket_size": 1000}
    zero |= {
        name: more.pop(name) for name in ("round_robin_gradients", "sub_group_size", "parameter_alignment") if name in more
    }
    if stage == 3:
        zero |= {"stage3_param_persistence_threshold": 0}
    return {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 1,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        **more,
    }


def placed(rank: int, world: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29731"}


def train(rank: int, world: int, folder: str, stage: int, more: dict[str, Any], how: dict[str, Any]) -> None:
    """One process: two steps, then a save."""
    placed(rank, world)
    import deepspeed

    deepspeed.init_distributed("gloo")
    torch.manual_seed(stage)
    model = Model()
    decayed = [each for each in model.parameters() if each.requires_grad and each.ndim > 1]
    others = [each for each in model.parameters() if each.requires_grad and each.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others}], lr=0.02)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config(stage, dict(more)))
    torch.manual_seed(100 + rank)
    for _ in range(2):
        loss = engine(torch.randint(11, (2, 6)))
        engine.backward(loss)
        engine.step()
    engine.save_checkpoint(folder, **how)
    torch.distributed.barrier()


def prefix() -> str:
    found = version("deepspeed")
    return "" if found == "0.19.8" else f"{found}-"


def save(name: str, stage: int, world: int, more: dict[str, Any], **how: Any) -> None:
    name = prefix() + name
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.multiprocessing.spawn(train, (world, str(folder), stage, more, how), nprocs=world)
    said(folder, name)


def said(run: Path, name: str) -> None:
    """Write what DeepSpeed's own script gives, and take the script away."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    from safetensors.torch import save_file

    for script in run.glob("zero_to_*.py"):
        script.unlink()
    try:
        tensors = get_fp32_state_dict_from_zero_checkpoint(str(run))
    except ValueError as error:  # it does not read what BF16_Optimizer wrote
        print(f"{run}: {error}")
        return
    (HERE / "said").mkdir(exist_ok=True)
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, HERE / "said" / f"{name}.safetensors")


def trainer(rank: int, world: int, folder: str) -> None:
    """One process of transformers' Trainer with ZeRO-3, a tiny Llama."""
    placed(rank, world)
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    torch.manual_seed(5)
    small = {"hidden_size": 8, "intermediate_size": 9, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 17}
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=2,
        save_steps=2,
        per_device_train_batch_size=2,
        learning_rate=0.02,
        optim="adamw_torch",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        deepspeed={
            "train_micro_batch_size_per_gpu": "auto",
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        },
    )
    model = LlamaForCausalLM(LlamaConfig(**small, max_position_embeddings=16, tie_word_embeddings=False))
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(17, (8, 6))]
    Trainer(model=model, args=arguments, train_dataset=rows).train()


def main() -> None:
    asked = sys.argv[1:] or [*RUNS, *WITHOUT_FROZEN, "trainer"]
    for name in asked:
        if name == "trainer":
            with tempfile.TemporaryDirectory() as folder:
                torch.multiprocessing.spawn(trainer, (2, folder), nprocs=2)
                shutil.rmtree(HERE / name, ignore_errors=True)
                shutil.copytree(Path(folder) / "checkpoint-2", HERE / name / "checkpoint-2")
            for each in (HERE / name).rglob("training_args.bin"):
                each.unlink()
            said(HERE / name / "checkpoint-2", name)
        elif name in RUNS:
            save(name, *RUNS[name])
        else:
            save(name, *WITHOUT_FROZEN[name], {}, exclude_frozen_parameters=True)


if __name__ == "__main__":
    main()
