"""Run every block of README.md as it stands, in order, as a reader does: a copy of this checkout, a new environment, models.

    python -m tests.docs.readme

The line that runs the tests is left out: `.ci/run` has just run it. Not part of the tests: installing takes minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPE = {"merge_method": "linear", "models": [{"model": name, "parameters": {"weight": 0.5}} for name in ("A", "B")]}


def main() -> None:
    """Run the blocks; stop at the first that fails."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "warmkit"
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, files.split("\0")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
        _models(folder)
        venv.create(Path(place) / "environment", with_pip=True)
        path = os.pathsep.join([str(Path(place) / "environment" / "bin"), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "PIP_CONSTRAINT": str(folder / "constraints.txt")}
        environment.pop("PYTHONPATH", None)
        for language, block in blocks((ROOT / "README.md").read_text()):
            print(f"+ {block}", flush=True)
            command = ["python", "-c", block] if language == "python" else ["bash", "-euo", "pipefail", "-c", block]
            if subprocess.run(command, cwd=folder, env=environment, check=False).returncode:
                sys.exit("README.md: this block failed")


def blocks(text: str) -> list[tuple[str, str]]:
    """Return language and text of every block that a reader can run."""
    found = re.findall(r"^```(sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(language, block) for language, block in found if "pytest" not in block]


def _models(folder: Path) -> None:
    """Write what the README speaks of: an SFT model, runs that started there, checkpoints, adapters, a recipe of mergekit."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    def model(seed: int) -> LlamaForCausalLM:
        torch.manual_seed(0)
        made = LlamaForCausalLM(
            LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
        )
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in made.parameters():
                weight.add_(torch.randn_like(weight), alpha=0.02 * bool(seed))
        return made

    for seed, name in enumerate(("SFT", "A", "B", "C", "run/step-1000", "run/step-2000", "run/step-3000")):
        model(seed).save_pretrained(folder / name)
    for seed in (1, 2):
        start = model(0)
        torch.manual_seed(seed)
        adapted = get_peft_model(start, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
        adapted.save_pretrained(str(folder / f"ADAPTER-{seed}"))
    (folder / "mergekit.yaml").write_text(json.dumps(RECIPE))


if __name__ == "__main__":
    main()
