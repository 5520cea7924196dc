"""Merges of mixtures of experts through views and with adapters, against the plain merge: whole processes that take turns.

    python -m tests.benchmarks.stacks --folder /dev/shm/warmkit-bench --size 1B --runs 3

Every part merges two models by `lerp`, plainly and read through a view: other names (`names`), stacks of experts beside single
ones (`experts`), stacks that lie transposed (`turned`), those whose gate and up alternate too (`alternating`). `lora`: adapters
of rank 16 on all experts of a layer against dense models. `peft`: peft's own load, merge and save in memory beside ours.
`mergekit`: its mean of a model with stacks and one with single experts, beside ours, where `--mergekit` names its program. The
models of a part are removed after it. On a machine with other work CPU seconds are the steadier measure.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tests.benchmarks.merge import Run, ratio, table
from warmkit.formats.dtypes import DTYPES
from warmkit.formats.safetensors_file import build_header

Tensors: TypeAlias = "dict[str, np.ndarray]"
Commands: TypeAlias = "dict[str, list[str]]"

SIZES = {  # hidden, inner of an expert, layers, vocabulary
    "0.1B": (512, 1792, 4, 4000),
    "0.3B": (1024, 3584, 3, 8000),
    "1B": (1024, 3584, 11, 32000),
    "wide": (2880, 2880, 4, 8000),  # matrices of GPT-OSS
}
EXPERTS, RANK, POOL = 8, 16, 1 << 22
PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
PeftModel.from_pretrained(model, sys.argv[2]).merge_and_unload().save_pretrained(sys.argv[3])
"""


# ---- models ------------------------------------------------------------------------------------------------------------


@cache
def pool(seed: int) -> np.ndarray:
    """Return numbers of the size of weights in bfloat16; those of another seed differ by a hundredth."""
    values = np.random.default_rng(0).standard_normal(POOL, np.float32) * np.float32(0.02)
    if seed:
        values += np.random.default_rng(seed).standard_normal(POOL, np.float32) * np.float32(0.0002)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def drawn(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.resize(np.roll(pool(seed), zlib.crc32(name.encode()) % POOL), shape)


def layer(size: str, number: int, seed: int) -> tuple[Tensors, Tensors]:
    """Return the tensors of a layer as transformers 5 names them in memory: around the experts, and their stacks."""
    hidden, inner, _, _ = SIZES[size]
    place = f"model.layers.{number}"
    key = 64 * (hidden // 256)
    shapes = {"q_proj": (hidden, hidden), "k_proj": (key, hidden), "v_proj": (key, hidden), "o_proj": (hidden, hidden)}
    around = {f"{place}.self_attn.{name}.weight": shape for name, shape in shapes.items()}
    around |= {f"{place}.{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    around |= {f"{place}.mlp.gate.weight": (EXPERTS, hidden)}
    stacks = {"gate_up_proj": (EXPERTS, 2 * inner, hidden), "down_proj": (EXPERTS, hidden, inner)}
    return (
        {name: drawn(name, shape, seed) for name, shape in around.items()},
        {f"{place}.mlp.experts.{name}": drawn(f"{place}.{name}", shape, seed) for name, shape in stacks.items()},
    )


def as_stacks(stacks: Tensors) -> Tensors:
    return stacks


def one_by_one(stacks: Tensors) -> Tensors:
    found: Tensors = {}
    for name, stack in stacks.items():
        place, _, what = name.replace(".mlp.", ".block_sparse_moe.").rpartition(".")
        for number, matrix in enumerate(stack):
            half = len(matrix) // 2
            parts = {"w1": matrix[:half], "w3": matrix[half:]} if what == "gate_up_proj" else {"w2": matrix}
            found |= {f"{place}.{number}.{part}.weight": value for part, value in parts.items()}
    return found


def turned(stacks: Tensors) -> Tensors:
    return {name: stack.swapaxes(1, 2) for name, stack in stacks.items()}


def alternating(stacks: Tensors) -> Tensors:
    """As GPT-OSS has them: [experts, in, out], gate and up in turn."""
    found = turned(stacks)
    for name in [name for name in found if name.endswith("gate_up_proj")]:
        gate, up = np.split(found[name], 2, axis=2)
        found[name] = np.stack([gate, up], axis=3).reshape(found[name].shape)
    return found


def of_mlx(stacks: Tensors) -> Tensors:
    found: Tensors = {}
    for name, stack in stacks.items():
        if name.endswith("gate_up_proj"):
            halves = zip(("gate", "up"), np.split(stack, 2, axis=1))
            found |= {f"{name.replace('gate_up', half)}.weight": value for half, value in halves}
        else:
            found[f"{name}.weight"] = stack
    return found


def config(size: str, kind: str) -> dict[str, Any]:
    hidden, inner, layers, vocabulary = SIZES[size]
    common = {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 256,
        "head_dim": 64,
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "vocab_size": vocabulary,
        "dtype": "bfloat16",
    }
    if kind == "mixtral":
        return {"architectures": ["MixtralForCausalLM"], **common}
    if kind == "gpt_oss":
        return {"architectures": ["GptOssForCausalLM"], **common}
    names = {"qwen2_vl": "Qwen2VLForConditionalGeneration", "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration"}
    return {"architectures": [names[kind]], "model_type": kind, "text_config": {**common, "model_type": f"{kind}_text"}}


def build(folder: Path, size: str, seed: int, kind: str, form: Callable[[Tensors], Tensors], prefix: str = "") -> None:
    """Write a model in two files or more, a layer at a time.

    Args:
        folder: Where to.
        size: Of `SIZES`.
        seed: Of its numbers; models of one seed hold the same, in whatever form.
        kind: Its model_type.
        form: What its stacks of experts are in the files.
        prefix: What stands for `model.` in its names.
    """
    folder.mkdir(parents=True)
    _, _, layers, vocabulary = SIZES[size]
    hidden = SIZES[size][0]
    ends = {"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden)}
    ends |= {"model.norm.weight": (hidden,)}
    places: dict[str, str] = {}

    def write(tensors: Tensors) -> None:
        file = f"model-{len(set(places.values())) + 1:05}.safetensors"
        named = {name.replace("model.", prefix, 1) if prefix else name: value for name, value in tensors.items()}
        places.update(dict.fromkeys(named, file))
        save(folder / file, named, "BF16")

    write({name: drawn(name, shape, seed) for name, shape in ends.items()})
    for number in range(layers):
        around, stacks = layer(size, number, seed)
        write({**around, **form(stacks)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text(json.dumps(config(size, kind)))


def save(file: Path, tensors: Tensors, kind: str) -> None:
    with file.open("wb") as target:
        target.write(build_header(((name, DTYPES[kind], value.shape) for name, value in tensors.items()), {"format": "pt"}))
        for value in tensors.values():
            target.write(np.ascontiguousarray(value).data)


def build_adapter(folder: Path, size: str, seed: int) -> None:
    """Write an adapter on all stacks of experts whose differences are a hundredth of the weights, as peft writes it."""
    folder.mkdir(parents=True)
    hidden, inner, layers, _ = SIZES[size]
    draw, factors = np.random.default_rng(seed), dict[str, np.ndarray]()
    for number in range(layers):
        module = f"base_model.model.model.layers.{number}.mlp.experts"
        for place, rows, columns in ((f"{module}.base_layer", 2 * inner, hidden), (module, hidden, inner)):
            shapes = {"lora_A": (EXPERTS * RANK, columns), "lora_B": (rows, EXPERTS * RANK)}
            for name, shape in shapes.items():
                factors[f"{place}.{name}.weight"] = draw.standard_normal(shape, np.float32) * np.float32(0.007)
    save(folder / "adapter_model.safetensors", factors, "F32")
    said = {"peft_type": "LORA", "peft_version": "0.21.2", "r": RANK, "lora_alpha": RANK, "target_modules": []}
    said |= {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"], "base_model_name_or_path": "../a"}
    (folder / "adapter_config.json").write_text(json.dumps(said))


# ---- what is compared --------------------------------------------------------------------------------------------------


class Bench:
    """A folder of models of one size, and the program of the peer."""

    def __init__(self, folder: Path, size: str, runs: int, mergekit: str | None) -> None:
        self.folder, self.size, self.runs, self.output = folder / "stacks", size, runs, folder / "out"
        self.mergekit = mergekit

    def models(self, kind: str, **forms: tuple[int, Callable[[Tensors], Tensors], str]) -> None:
        """Write models by name, in place of those of the part before."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name, (seed, form, prefix) in forms.items():
            build(self.folder / name, self.size, seed, kind, form, prefix)

    def merge(self, *models: str, method: str = "lerp", init: str | None = None) -> list[str]:
        command = [sys.executable, "-m", "warmkit", "merge", "-q", "-o", str(self.output), "--json", "--threads", "2"]
        start = ["--init", str(self.folder / init)] if init else []
        return [
            *command,
            "--method",
            method,
            *start,
            *("+".join(str(self.folder / x) for x in each.split("+")) for each in models),
        ]

    def compare(self, commands: Commands, *attributes: str) -> None:
        """Print a table, and every ratio to the first command."""
        model = sum(file.stat().st_size for file in next(self.folder.iterdir()).iterdir())
        measured: dict[str, list[Run]] = table(commands, self.output, self.runs, model + (1 << 29))
        first, *others = commands
        for other in others:
            for attribute in attributes or ("wall", "work", "cpu"):
                ratio(measured, other, first, attribute)
        print(flush=True)


def names(bench: Bench) -> None:
    a, b, other = (1, as_stacks, ""), (2, as_stacks, ""), (2, as_stacks, "model.language_model.")
    bench.models("qwen2_vl", a=a, b=b, other=other)
    bench.compare({"plain": bench.merge("a", "b"), "other names": bench.merge("a", "other")})


def experts(bench: Bench) -> None:
    bench.models("mixtral", a=(1, one_by_one, ""), b=(2, one_by_one, ""), stacks=(2, as_stacks, ""))
    viewed = {"stacks as single": bench.merge("a", "stacks"), "single as stacks": bench.merge("stacks", "a")}
    bench.compare({"plain, single experts": bench.merge("a", "b"), **viewed})


def stacks_turned(bench: Bench) -> None:
    forms = {"a": (1, as_stacks, ""), "b": (2, as_stacks, ""), "turned": (2, turned, "")}
    bench.models("qwen3_vl_moe", **forms)
    viewed = {"turned second": bench.merge("a", "turned"), "turned first": bench.merge("turned", "a")}
    bench.compare({"plain, stacks": bench.merge("a", "b"), **viewed})


def stacks_alternating(bench: Bench) -> None:
    forms = {"a": (1, alternating, ""), "b": (2, alternating, ""), "mlx": (2, of_mlx, "")}
    bench.models("gpt_oss", **forms)
    viewed = {"apart as alternating": bench.merge("a", "mlx"), "alternating as apart": bench.merge("mlx", "a")}
    bench.compare({"plain, alternating": bench.merge("a", "b"), **viewed})


def lora(bench: Bench) -> None:
    bench.models("mixtral", a=(0, as_stacks, ""), b=(1, as_stacks, ""), c=(2, as_stacks, ""))
    for seed in (1, 2):
        build_adapter(bench.folder / f"lora{seed}", bench.size, seed)
    for method, init in (("lerp", None), ("slerp", "a")):
        pairs = {"dense": ("b", "c"), "one adapter": ("a+lora1", "c"), "adapters": ("a+lora1", "a+lora2")}
        bench.compare({f"{method}, {name}": bench.merge(*pair, method=method, init=init) for name, pair in pairs.items()})


def peft(bench: Bench) -> None:
    bench.models("mixtral", a=(1, one_by_one, ""))
    build_adapter(bench.folder / "lora", bench.size, 1)
    theirs = [sys.executable, "-c", PEFT, str(bench.folder / "a"), str(bench.folder / "lora"), str(bench.output)]
    bench.compare({"warmkit": bench.merge("a+lora", method="uniform"), "peft": theirs}, "wall", "cpu", "memory")


def beside_mergekit(bench: Bench) -> None:
    if bench.mergekit is None:
        return print("left out: --mergekit names no program\n", flush=True)
    bench.models("mixtral", a=(1, one_by_one, ""), stacks=(2, as_stacks, ""))
    models = [{"model": str(bench.folder / name), "parameters": {"weight": 0.5}} for name in ("a", "stacks")]
    recipe = bench.folder / "a" / "linear.yaml"
    recipe.write_text(json.dumps({"merge_method": "linear", "models": models, "dtype": "bfloat16"}))
    theirs = [bench.mergekit, str(recipe), str(bench.output), "--no-copy-tokenizer"]
    return bench.compare({"warmkit": bench.merge("a", "stacks"), "mergekit": theirs}, "wall", "cpu", "memory")


PARTS: dict[str, Callable[[Bench], None]] = {
    "names": names,
    "experts": experts,
    "turned": stacks_turned,
    "alternating": stacks_alternating,
    "lora": lora,
    "peft": peft,
    "mergekit": beside_mergekit,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/warmkit-bench"), help="in memory, for the engine alone")
    parser.add_argument("--size", default="0.3B", choices=SIZES)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=[*PARTS], choices=PARTS)
    parser.add_argument("--mergekit", help="its mergekit-yaml, in a virtual environment of its own")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.folder, given.size, given.runs, given.mergekit)
    try:
        for part in given.parts:
            print(f"{part}, {given.size}", flush=True)
            PARTS[part](bench)
    finally:
        shutil.rmtree(bench.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
