"""Makes `run/step-2` and `run/step-3` with torchtitan's own CheckpointManager, of a Llama of one layer and its optimizer.

Run it with torchtitan 0.3.0 and torch 2.13.0, from anywhere: `python tests/data/torchtitan/make.py`. `step-2` is a save in the
middle of a run, `step-3` the last one in Hugging Face's names (`last_save_in_hf`), `said.safetensors` the model's own state.
The optimizer's state is got as torchtitan's container gets it, flat, without the container.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.models import llama3
from torchtitan.models.llama3.state_dict_adapter import Llama3StateDictAdapter

HERE = Path(__file__).parent


def model() -> tuple[Any, Any]:
    """Return torchtitan's Llama with as few numbers as it takes, and its config."""
    dim, words, heads = 8, 16, 2
    config = llama3.Llama3Model.Config(
        dim=dim,
        vocab_size=words,
        tok_embeddings=llama3.Embedding.Config(num_embeddings=words, embedding_dim=dim, param_init=llama3._EMBEDDING_INIT),
        norm=llama3.RMSNorm.Config(normalized_shape=dim, param_init=llama3._NORM_INIT),
        lm_head=llama3.Linear.Config(in_features=dim, out_features=words, param_init=llama3._output_linear_init(dim)),
        layers=llama3._build_llama3_layers(
            n_layers=1,
            dim=dim,
            n_heads=heads,
            hidden_dim=12,
            rope=llama3.ComplexRoPE.Config(dim=dim // heads, max_seq_len=32, theta=500000, scaling="llama"),
            attn_backend="flex",
        ),
    )
    built = config.build()
    torch.manual_seed(0)
    with torch.no_grad():
        for each in built.parameters():
            each.normal_()
    return built, config


def main() -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29711"}
    dist.init_process_group("gloo", rank=0, world_size=1)
    built, config = model()
    optimizer = torch.optim.SGD(built.parameters(), lr=0.01, momentum=0.9)
    for each in built.parameters():
        each.grad = torch.ones_like(each)
    optimizer.step()
    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    state = SimpleNamespace(
        state_dict=lambda: get_optimizer_state_dict(built, optimizer, options=flat), load_state_dict=lambda _: None
    )
    save_file({name: each.detach().clone() for name, each in built.state_dict().items()}, HERE / "said.safetensors")
    manager = CheckpointManager(
        CheckpointManager.Config(enable=True, folder="run", interval=2, last_save_in_hf=True),
        dataloader=None,
        model_parts=[built],
        optimizers=state,
        lr_schedulers=None,
        states={},
        sd_adapter=Llama3StateDictAdapter(config, None),
        base_folder=str(HERE),
    )
    shutil.rmtree(HERE / "run", ignore_errors=True)
    manager.save(2)
    manager.save(3, last_step=True)
    manager.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
