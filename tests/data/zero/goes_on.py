"""DeepSpeed goes on from an average that was written into its own files, ZeRO 1, 2 and 3, two processes with gloo.

Run it in an environment with deepspeed 0.19.8, torch 2.13.0 and warmkit:
`DS_ACCELERATOR=cpu python tests/data/zero/goes_on.py`. It fails where what DeepSpeed has loaded is not the float64 mean
of what it had saved, in weights and moments, or where its next steps are not finite.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from make import HALF, Model, config, placed
from safetensors.torch import load_file, save_file

import warmkit

WORLD, STEPS = 2, (2, 3, 5)


def process(rank: int, folder: Path, stage: int, more: dict[str, Any], start: str) -> None:
    """Train and save, or load an average and go on."""
    placed(rank, WORLD)
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    deepspeed.init_distributed("gloo")
    torch.manual_seed(stage)
    model = Model()
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=0.02)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config(stage, dict(more)))
    torch.manual_seed(100 + rank)

    def state() -> dict[str, torch.Tensor]:
        found = {}
        if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):  # done by the first step, of loaded states too
            engine.optimizer._lazy_init_hp_params_optimizer_state()
        for name, each in engine.module.named_parameters():
            if each.requires_grad:
                found[name] = safe_get_full_fp32_param(each).detach().clone()
                for key in ("exp_avg", "exp_avg_sq"):
                    found[f"{key}/{name}"] = safe_get_full_optimizer_state(each, key).detach().clone()
        return found

    def step() -> float:
        loss = engine(torch.randint(11, (2, 6)))
        engine.backward(loss)
        engine.step()
        return float(loss)

    if start:
        path, _ = engine.load_checkpoint(folder / "average", tag=start)
        assert path is not None
        assert engine.global_steps == max(STEPS)
        loaded = state()
        computed = {name: each.detach() for name, each in engine.module.named_parameters() if stage < 3 and each.requires_grad}
        for name, each in computed.items():
            assert torch.equal(each, loaded[name].to(each.dtype)), f"{name}: not what the optimizer has"
        losses = [step() for _ in range(3)]
        assert all(map(math.isfinite, losses))
        assert engine.global_steps == max(STEPS) + 3
        assert any(not torch.equal(each, loaded[name]) for name, each in state().items())
        if not rank:
            save_file(loaded, folder / "loaded.safetensors")
    else:
        for number in range(1, max(STEPS) + 1):
            step()
            if number in STEPS:
                engine.save_checkpoint(str(folder / "run"), tag=f"global_step{number}")
                found = state()
                if not rank:
                    save_file(found, folder / f"state-{number}.safetensors")
    torch.distributed.barrier()


def check(stage: int, more: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.multiprocessing.spawn(process, (folder, stage, more, ""), nprocs=WORLD)
        out = folder / "average" / "global_step5"
        warmkit.average(folder / "run", out, allow_pickle=True, container="same", optimizer="average")
        warmkit.verify(out)
        torch.multiprocessing.spawn(process, (folder, stage, more, out.name), nprocs=WORLD)
        saved = [load_file(folder / f"state-{number}.safetensors") for number in STEPS]
        loaded = load_file(folder / "loaded.safetensors")
        for key, found in loaded.items():
            wanted = torch.stack([each[key].double() for each in saved]).mean(dim=0)
            # bfloat16 moments, or a mean of three: to half a unit in the last place, and the sum's own rounding
            torch.testing.assert_close(found.double(), wanted, rtol=2**-23, atol=1e-12)
        print(f"ZeRO {stage} {more or ''}: {len(loaded)} tensors loaded as their mean; training went on", flush=True)


if __name__ == "__main__":
    for stage in (1, 2, 3):
        check(stage, {})
        check(stage, HALF)
