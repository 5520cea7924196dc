"""Makes the checkpoints of this folder with Megatron-Core's own writer, and what its own reader gives of them.

Run it with megatron-core 0.16.1, torch 2.13.0 and psutil on a CPU, from anywhere: `python tests/data/megatron/make.py`. Two
processes with gloo. There is no GPU here: `torch.cuda.synchronize` and `current_device`, which the writer calls, do nothing.
Each folder is a run: `iter_0000002` and so on, as `dist_checkpointing.save` wrote them; `said/` has what
`load_plain_tensors` read. `optimizer` is in bfloat16, with float32 weights and moments in
the state of an optimizer that was put together by hand and wrote itself. `.metadata` names the folder of the save: afterwards
`/some/runs/` was put in place of the one that it was.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
# tensor parallel, pipeline parallel, with an optimizer
RUNS = {"tensor": (2, 1, False), "pipeline": (1, 2, False), "optimizer": (2, 1, True)}
STEPS = (2, 4)


def without_gpu() -> None:
    torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]
    torch.cuda.current_device = lambda: "cpu"  # type: ignore[assignment, return-value]


def started(rank: int, tensor: int, pipeline: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29747"}
    without_gpu()
    torch.distributed.init_process_group("gloo")
    from megatron.core import parallel_state

    parallel_state.initialize_model_parallel(tensor, pipeline)


def model(tensor: int, pipeline: int, dtype: torch.dtype) -> Any:
    """Return a GPT of two layers with gated MLPs and grouped queries, whose numbers follow from the seed."""
    from megatron.core import parallel_state
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.models.gpt.gpt_model import GPTModel
    from megatron.core.transformer.transformer_config import TransformerConfig

    config = TransformerConfig(
        num_layers=2,
        hidden_size=8,
        num_attention_heads=4,
        num_query_groups=2,
        ffn_hidden_size=12,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        normalization="LayerNorm",
        add_bias_linear=False,
        use_cpu_initialization=True,
        params_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        pipeline_dtype=dtype,
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
    )
    return GPTModel(
        config=config,
        transformer_layer_spec=get_gpt_layer_local_spec(),
        vocab_size=16,
        max_sequence_length=8,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
    ).to(dtype)


def optimizer_of(learner: Any, number: int) -> Any:
    """Return Megatron's optimizer for bfloat16 with a state; its constructor wants a GPU, so its parts are put in by hand."""
    from megatron.core.optimizer.optimizer import Float16OptimizerWithFloat16Params

    own = list(learner.parameters())
    masters = [(each.detach().float() + 1e-4 * torch.randn(each.shape)).requires_grad_() for each in own]
    for each, master in zip(own, masters):
        each.data.copy_(master.detach())
    inner = torch.optim.AdamW([{"params": masters, "lr": 0.01}])
    for master in masters:
        moments = {"exp_avg": torch.randn(master.shape), "exp_avg_sq": torch.rand(master.shape)}
        inner.state[master] = {"step": torch.tensor(float(number)), **moments}
    found = object.__new__(Float16OptimizerWithFloat16Params)
    found.optimizer, found.grad_scaler, found.init_state_fn, found.config = inner, None, lambda *_: None, None
    found.float16_groups, found.fp32_from_float16_groups, found.fp32_from_fp32_groups = [own], [masters], [[]]
    return found


def process(rank: int, name: str) -> None:
    tensor, pipeline, optimizing = RUNS[name]
    started(rank, tensor, pipeline)
    from megatron.core import dist_checkpointing

    torch.manual_seed(10 + rank)
    learner = model(tensor, pipeline, torch.bfloat16 if optimizing else torch.float32)
    for number in STEPS:
        with torch.no_grad():
            for each in learner.parameters():
                each.add_(torch.randn(each.shape).to(each.dtype) * 0.1)
        optimizer = optimizer_of(learner, number) if optimizing else None
        state: dict[str, Any] = {"model": learner.sharded_state_dict(), "iteration": number, "checkpoint_version": 3.0}
        if optimizer is not None:
            state["optimizer"] = optimizer.sharded_state_dict(state["model"])
        folder = HERE / name / f"iter_{number:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        torch.distributed.barrier()
        dist_checkpointing.save(state, str(folder))
    torch.distributed.barrier()


def said(name: str) -> None:
    """Write what Megatron's own reader gives."""
    from megatron.core import dist_checkpointing
    from safetensors.torch import save_file

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29748"}
    without_gpu()
    torch.distributed.init_process_group("gloo")
    (HERE / "said").mkdir(exist_ok=True)
    for number in STEPS:
        found = dist_checkpointing.load_plain_tensors(str(HERE / name / f"iter_{number:07d}"))
        tensors = {key: value.contiguous() for key, value in found.items() if isinstance(value, torch.Tensor)}
        save_file(tensors, HERE / "said" / f"{name}-{number}.safetensors")
    torch.distributed.destroy_process_group()


def main() -> None:
    for name in sys.argv[1:] or RUNS:
        shutil.rmtree(HERE / name, ignore_errors=True)
        torch.multiprocessing.spawn(process, (name,), nprocs=2)
        torch.multiprocessing.spawn(_said, (name,), nprocs=1)
        (HERE / name / "latest_checkpointed_iteration.txt").write_text(str(max(STEPS)))


def _said(rank: int, name: str) -> None:
    said(name)


if __name__ == "__main__":
    main()
