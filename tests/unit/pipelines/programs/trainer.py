"""A trainer of nobody's library: moves every weight of a checkpoint a little, by its seed, and leaves checkpoints."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--init", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--best", type=int)
    parser.add_argument("--seconds", type=float, default=0.0)
    given = parser.parse_args()
    print(f"seed {given.seed}, rate {given.lr}, process {os.getpid()}", flush=True)
    draw = np.random.default_rng(given.seed)
    weights, log = load_file(given.init / "model.safetensors"), []
    for step in given.steps:
        time.sleep(given.seconds)
        weights = {
            name: each + given.lr * draw.standard_normal(each.shape).astype(each.dtype) for name, each in weights.items()
        }
        home, partial = given.output / f"checkpoint-{step}", given.output / f"checkpoint-{step}.partial"
        shutil.rmtree(home, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
        shutil.copy(given.init / "config.json", partial)
        log.append({"step": step, "loss": 1 / step, "learning_rate": given.lr})
        best = None if given.best is None else f"/elsewhere/checkpoint-{given.best}"
        state = {"global_step": step, "best_model_checkpoint": best, "log_history": log}
        (partial / "trainer_state.json").write_text(json.dumps(state))
        partial.rename(home)
        print(f"step {step}", flush=True)


if __name__ == "__main__":
    main()
