"""Makes the saves of this folder with verl's FSDPCheckpointManager, and what verl's model_merger makes of them.

Run it with verl 0.9.1, torch 2.13.0, transformers 5.9.0 and peft, from anywhere: `python tests/data/rank_files/make.py`. Every
folder is one run of gloo processes on a CPU: tiny models, wrapped by verl's own functions, trained for a step, saved as
`global_step_N/actor` (`run`, three steps of one run, without `actor`, as verl's SFT trainer does). Beside the steps lie

    whole-N.safetensors   the full state dict that torch gathers from the same model (of LoRA: what peft merges of it)
    merged-N.json         type, shape and SHA-256 of every tensor that model_merger writes (of LoRA: of the base alone)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Save:
    """One run: how many processes, which wrapper, and what is trained.

    Attributes:
        wrapper: Of torch, as verl calls them: fsdp (FSDP1) or fsdp2.
        world: Processes.
        size: Of the group that shards; the others hold copies (HSDP).
        model: llama (untied) or qwen2 (tied, with biases).
        steps: After each of which it saves.
        lora: Whether adapters are trained; `only` saves them alone.
        full: Whether verl also saves the whole model in huggingface/.
        home: Where in the step's folder.
        columns: Whether FSDP2 shards by columns where it can (verl's get_shard_placement_fn).
    """

    wrapper: str
    world: int = 2
    size: int = -1
    model: str = "llama"
    steps: tuple[int, ...] = (2,)
    lora: str = ""
    full: bool = False
    home: str = "actor"
    columns: bool = False


SAVES = {
    "fsdp1": Save("fsdp"),
    "fsdp2": Save("fsdp2", model="qwen2"),
    "fsdp1-tied": Save("fsdp", model="qwen2"),
    "columns": Save("fsdp2", columns=True),
    "hsdp1": Save("fsdp", world=4, size=2),
    "hsdp2": Save("fsdp2", world=4, size=2),
    "three": Save("fsdp2", world=3),
    "alone": Save("fsdp", world=1),
    "full": Save("fsdp2", full=True),
    "run": Save("fsdp2", steps=(1, 2, 3), home=""),
    "lora1": Save("fsdp", lora="all"),
    "lora2": Save("fsdp2", model="qwen2", lora="all"),
    "lora-only": Save("fsdp2", lora="only"),
}


def main() -> None:
    for name in sys.argv[1:] or SAVES:
        folder, save = HERE / name, SAVES[name]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(save.world), "OMP_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen([sys.executable, __file__, "--rank", name], env={**os.environ, **shared, "RANK": str(rank)})
            for rank in range(save.world)
        ]
        assert not sum(each.wait() for each in ranks), name
        for step in save.steps:
            merge(folder / f"global_step_{step}" / save.home, folder / f"merged-{step}.json", save)
        print(name, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()), "bytes", flush=True)


# ---- in every rank -------------------------------------------------------------------------------------------------------


def rank(name: str) -> None:
    import torch
    import torch.distributed as dist
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    save, folder = SAVES[name], HERE / name
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("gloo")
    torch.manual_seed(3)
    plain = with_adapter(model_of(save.model)) if save.lora else model_of(save.model)
    model = wrapped(plain, mesh_of(save), save)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], 1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    contents = ["model", *(["extra"] if name == "run" else []), *(["hf_model"] if save.full else [])]
    config = {"save_contents": contents, "load_contents": contents, "save_lora_only": save.lora == "only"}
    manager = FSDPCheckpointManager(model, optimizer, schedule, tokenizer(), checkpoint_config=config)
    for step in range(1, max(save.steps) + 1):
        tokens = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(100 * step + dist.get_rank()))
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step in save.steps:
            manager.save_checkpoint(str(folder / f"global_step_{step}" / save.home), global_step=step)
            keep_whole(model, folder / f"whole-{step}.safetensors", save)
    dist.destroy_process_group()


def model_of(kind: str) -> Any:
    """Return a tiny model with sizes that no number of ranks divides, with numbers that no type rounds to others."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    sizes = {
        "vocab_size": 61,
        "hidden_size": 12,
        "intermediate_size": 14,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.3,
    }
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=False, architectures=["LlamaForCausalLM"]))
    return Qwen2ForCausalLM(Qwen2Config(**sizes, tie_word_embeddings=True, architectures=["Qwen2ForCausalLM"]))


def with_adapter(model: Any) -> Any:
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    wanted = ["q_proj", "v_proj", "down_proj"]
    model = get_peft_model(
        model, LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, lora_alpha=6, target_modules=wanted, bias="none")
    )
    for name, each in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(each, std=0.1)
    return model


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{n}": n for n in range(3, 61)}}, "<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def mesh_of(save: Save) -> Any:
    """Return the mesh of verl's create_device_mesh, which takes a GPU for granted."""
    from torch.distributed.device_mesh import init_device_mesh

    if 0 < save.size < save.world:
        return init_device_mesh("cpu", (save.world // save.size, save.size), mesh_dim_names=("ddp", "fsdp"))
    return init_device_mesh("cpu", (save.world,), mesh_dim_names=("fsdp",))


def wrapped(model: Any, mesh: Any, save: Save) -> Any:
    """Wrap a model as verl's engine does."""
    import torch
    from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy
    from verl.utils.fsdp_utils import apply_fsdp2, get_fsdp_wrap_policy, get_shard_placement_fn
    from verl.workers.engine.fsdp.utils import get_sharding_strategy

    if save.wrapper == "fsdp":
        return FullyShardedDataParallel(
            model,
            auto_wrap_policy=get_fsdp_wrap_policy(model, is_lora=bool(save.lora)),
            device_id=torch.device("cpu"),
            sharding_strategy=get_sharding_strategy(mesh),
            device_mesh=mesh,
            use_orig_params=False,
        )
    more = {"shard_placement_fn": get_shard_placement_fn(save.world)} if save.columns else {}
    apply_fsdp2(model, {"mesh": mesh, "mp_policy": MixedPrecisionPolicy(), "reshard_after_forward": True, **more}, {})
    return model


def keep_whole(model: Any, file: Path, save: Save) -> None:
    import torch.distributed as dist
    from safetensors.torch import save_file
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType

    if save.wrapper == "fsdp":
        with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT, FullStateDictConfig()):
            state = model.state_dict()
    else:
        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    if dist.get_rank() == 0:
        if save.lora:
            state = peft_merge(state, save.model)
        save_file({name: each.clone().contiguous() for name, each in state.items()}, file)


def peft_merge(state: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return what peft's merge makes of the base and the adapter."""
    model = with_adapter(model_of(kind))
    model.load_state_dict(state)
    return model.merge_and_unload().state_dict()


# ---- once all is saved ---------------------------------------------------------------------------------------------------


def merge(saved: Path, file: Path, save: Save) -> None:
    """Keep digests of what model_merger makes of a save."""
    from safetensors import safe_open

    if save.lora == "only":
        return  # it fails there: no tensor is left once the adapter is taken out
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(saved)]
        subprocess.run([*command, "--target_dir", out], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = {}
        for written in sorted(Path(out).glob("*.safetensors")):
            with safe_open(written, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    each = opened.get_tensor(name)
                    found[name] = [str(each.dtype), list(each.shape), digest(each)]
        file.write_text(json.dumps(found, indent=0) + "\n")


def digest(tensor: Any) -> str:
    import torch

    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--rank"]:
        rank(sys.argv[2])
    else:
        main()
