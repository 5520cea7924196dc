"""Compare results with mergekit's, element by element.

    python -m tests.benchmarks.parity --mergekit /path/to/venv/bin/mergekit-yaml

`linear` is compared where mergekit's element is the correctly rounded one; `nuslerp` against `--granularity tensor`, in float32
and bfloat16.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import torch

import warmkit
from tests.benchmarks.llama import build

SIZE = "0.1B"


def load(folder: Path) -> dict[str, torch.Tensor]:
    return {name: lazy.load() for name, lazy in warmkit.open_checkpoint(folder).items()}


def mergekit(binary: str, folder: Path, name: str, recipe: str) -> dict[str, torch.Tensor]:
    path = folder / f"{name}.yaml"
    path.write_text(recipe.format(folder=folder))
    subprocess.run([binary, path, folder / name], check=True, capture_output=True)
    return load(folder / name)


def compare_linear(binary: str, folder: Path, share: float) -> None:
    weights = f"[{1 - share:g}, {share:g}]"
    models = f"  - model: {{folder}}/a\n    parameters: {{{{weight: {1 - share}}}}}\n"
    models += f"  - model: {{folder}}/b\n    parameters: {{{{weight: {share}}}}}\n"
    theirs = mergekit(binary, folder, f"linear-{share}", f"merge_method: linear\nmodels:\n{models}dtype: bfloat16\n")
    warmkit.merge([folder / "a", folder / "b"], folder / f"lerp-{share}", method="lerp", lambda_=share)
    ours, a, b = load(folder / f"lerp-{share}"), load(folder / "a"), load(folder / "b")
    total = right = equal = ours_right = 0
    for name, value in ours.items():
        exact = ((1 - share) * a[name].double() + share * b[name].double()).bfloat16()
        correct = theirs[name] == exact
        total += value.numel()
        right += int(correct.sum())
        equal += int((value[correct] == theirs[name][correct]).sum())
        ours_right += int((value == exact).sum())
    print(
        f"linear {weights}: mergekit correctly rounded {right / total:.4%}, warmkit {ours_right / total:.5%}; "
        f"of mergekit's correct elements {right - equal} of {right} differ"
    )


def compare_nuslerp(binary: str, folder: Path, dtype: str) -> None:
    recipe = "merge_method: nuslerp\nbase_model: {folder}/init\nmodels:\n"
    recipe += "".join(f"  - model: {{folder}}/{name}\n    parameters: {{{{weight: 0.5}}}}\n" for name in "ab")
    theirs = mergekit(
        binary, folder, f"nuslerp-{dtype}", recipe + f"dtype: {dtype}\nparameters: {{{{nuslerp_flatten: true}}}}\n"
    )
    out = folder / f"slerp-{dtype}"
    warmkit.merge([folder / "a", folder / "b"], out, init=folder / "init", granularity="tensor", dtype=dtype)
    ours, init = load(out), load(folder / "init")
    worst = max(float((value.double() - theirs[name].double()).abs().max()) for name, value in ours.items())
    task = max(float((value.double() - init[name].double()).abs().max()) for name, value in ours.items())
    same = sum(int((value == theirs[name]).sum()) for name, value in ours.items()) / sum(v.numel() for v in ours.values())
    print(f"nuslerp {dtype}: largest difference {worst:.2e} (largest task vector element {task:.2e}); {same:.3%} equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", required=True)
    binary = parser.parse_args().mergekit
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed, model in enumerate(("init", "a", "b")):
            build(folder / model, SIZE, seed)
        for share in (0.5, 0.4):
            compare_linear(binary, folder, share)
        for dtype in ("float32", "bfloat16"):
            compare_nuslerp(binary, folder, dtype)


if __name__ == "__main__":
    main()
