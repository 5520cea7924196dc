"""The mean of checkpoints as training codebases take it: every state dict loaded whole, summed in float32, saved.

python torch_average.py OUT MODEL [MODEL ...]
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main() -> None:
    output, *models = map(Path, sys.argv[1:])
    torch.set_num_threads(2)
    began = time.perf_counter()
    total: dict[str, torch.Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for model in models:
        for shard in sorted(model.glob("*.safetensors")):
            for name, tensor in load_file(shard).items():
                kinds[name] = tensor.dtype
                total[name] = total[name].add_(tensor) if name in total else tensor.float()
    output.mkdir()
    save_file({name: (each / len(models)).to(kinds[name]) for name, each in total.items()}, output / "model.safetensors")
    print(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
