"""Training a policy: warmkit against TRL's RLOOTrainer, on the same models, prompts and settings; the cost of the anchor.

    python -m tests.benchmarks.policy --trl /path/to/venv/bin/python

Two Llamas with random weights: `tiny` (hidden size 64, two layers) and `small` (ten million parameters). As they are they
hardly ever end a completion, so all have the largest length; in the `ending` settings EOS has a probability of about
1/16 and completions leave the batch at different times. Prompts are the first words of the standard library's docstrings,
in the same order on both sides. Both sample K completions of every prompt at the same temperature, take the same reward (a
Python function), the KL to the init, the leave-one-out baseline, and one update of fused AdamW in float32.

Each side runs all settings in one process, and sides and anchors take turns in going first. The first
steps do not count, nor do imports,
loading and saving.
Each side draws its own random numbers, so speeds are compared at the same average length. That both compute the same is
checked beforehand: warmkit is handed the completions that TRL sampled, and gradient norms, entropies and KLs must agree
step by step.

In the `ending` settings warmkit also runs with a moving anchor. Beside it the KL to the SFT model is reported, which is one
more forward pass; so a static anchor is timed with that report too (as in WARP's second iteration, where init and SFT model
are two), and what the moving average itself costs is the difference of these two.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tests.benchmarks.reward_modeling import build_tokenizer
from warmkit.data.docstrings import STANDARD_LIBRARY, docstrings, folder_of, sources
from warmkit.training.loop import batch_rows

OURS = [sys.executable, "-m", "tests.benchmarks.warmkit_policy"]
EMA, INIT = "warmkit, ema", "warmkit, init, KL to SFT"
OTHERS = {EMA: {"anchor": "ema"}, INIT: {"anchor": "init", "apart": True}}
PROMPTS = 200
TRL = str(Path(__file__).with_name("trl_policy.py"))
WARM_UP = 2  # steps that do not count
COMPARED = 3
ENDING = 1 / 16  # probability of EOS where completions end
TEMPERATURE = 0.9


# ---- what is trained ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """A model, and how many steps a run of it takes."""

    hidden: int
    layers: int
    vocabulary: int
    ending: bool
    steps: int


SETTINGS = {
    "tiny": Setting(64, 2, 1024, False, 12),
    "tiny, ending": Setting(64, 2, 1024, True, 12),
    "small": Setting(320, 6, 8192, False, 5),
    "small, ending": Setting(320, 6, 8192, True, 6),
}


def build_llama(folder: Path, what: Setting) -> Path:
    """Write a small Llama with its tokenizer, unless it is there."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    target = folder / f"policy-{what.hidden}-{what.layers}-{what.vocabulary}{'-ending' * what.ending}"
    if (target / "model.safetensors").exists():
        return target
    tokenizer = build_tokenizer(what.vocabulary)
    config = LlamaConfig(
        vocab_size=what.vocabulary,
        hidden_size=what.hidden,
        intermediate_size=8 * what.hidden // 3 // 32 * 32,
        num_hidden_layers=what.layers,
        num_attention_heads=max(1, what.hidden // 64),
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    if what.ending:
        with torch.no_grad():  # a dimension that is nearly the same everywhere, and EOS listens to it
            model.model.embed_tokens.weight[:, 0] = 1.0
            model.lm_head.weight[:, 0] = 0.0
            hidden = model.model(torch.arange(256)[None]).last_hidden_state[0, :, 0].mean()
            odds = math.log(what.vocabulary * ENDING / (1 - ENDING)) * TEMPERATURE
            model.lm_head.weight[tokenizer.eos_token_id, 0] = odds / hidden
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)
    return target


def build_prompts(folder: Path, count: int) -> Path:
    """Write prompts of 4 to 20 words, unless they are there."""
    target = folder / f"prompts-{count}.jsonl"
    if not target.exists():
        texts = (text.split() for path in sources(folder_of(STANDARD_LIBRARY)) for text in docstrings(path))
        long = islice((words for words in texts if len(words) >= 20), count)
        prompts = [" ".join(words[: 4 + place % 17]) for place, words in enumerate(long)]
        target.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return target


def write_ordered(plan: dict[str, Any], count: int) -> None:
    """Write TRL's prompts, in the order of warmkit's batches."""
    rows = Path(plan["train"]).read_text("utf-8").splitlines()
    order = [row for step in range(plan["steps"]) for row in batch_rows(count, plan["batch"], 0, step)]
    Path(plan["ordered"]).write_text("".join(rows[row] + "\n" for row in order))


def share(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Return the share of the letter e: the reward of both sides."""
    del prompts
    return [each.count("e") / max(1, len(each)) for each in completions]


# ---- one process ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Seconds of an average step and of its parts, after the warm-up; tokens of an average completion."""

    step: float
    generation: float
    scoring: float
    anchor: float
    length: float

    @property
    def learning(self) -> float:
        return self.step - self.generation - self.scoring


def start(command: list[str], folder: Path, plans: list[dict[str, Any]], threads: int) -> list[dict[str, Any]]:
    """Let one side run the plans; return what it printed."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    settings = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    settings |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    whole = [*command, str(folder / "plans.json")]
    done = subprocess.run(whole, capture_output=True, text=True, check=False, env={**os.environ, **settings})
    if done.returncode:
        raise SystemExit(f"{' '.join(whole)} failed:\n{done.stderr[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"version"')]


def averaged(result: dict[str, Any], steps: int) -> Run:
    assert [len(result[key]) for key in ("times", "generation", "scoring", "lengths")] == [steps + 1, steps, steps, steps]
    step = (result["times"][-1] - result["times"][WARM_UP]) / (steps - WARM_UP)
    anchor = result.get("anchor", [0.0] * steps)
    return Run(
        step,
        *(statistics.fmean(each[WARM_UP:]) for each in (result["generation"], result["scoring"], anchor, result["lengths"])),
    )


# ---- do they compute the same? --------------------------------------------------------------------------------------


def compare(trl: list[str], folder: Path, plans: dict[str, dict[str, Any]], threads: int) -> list[str]:
    """Let both learn from TRL's completions; return the largest relative differences over the steps."""
    short = [{**plan, "steps": COMPARED, "compare": True} for plan in plans.values()]
    theirs = start(trl, folder, short, threads)
    ours = start(
        OURS, folder, [{**plan, "sampled": side["sampled"]} for plan, side in zip(short, theirs, strict=True)], threads
    )
    return [f"{name}: {_gaps(*sides)}" for name, *sides in zip(plans, ours, theirs, strict=True)]


def _gaps(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    for mine, length in zip(ours["metrics"], theirs["lengths"], strict=True):
        mine["kl"] = mine["kl_sft_sampled"] / length  # TRL divides by the tokens
    gaps: list[str] = []
    for name in ("grad_norm", "entropy", "reward", "kl"):
        pairs = [(a[name], b[name]) for a, b in zip(ours["metrics"], theirs["metrics"], strict=True)]
        gaps.append(f"{name} {max(abs(a - b) / max(1e-3, abs(b)) for a, b in pairs):.1e}")
    return ", ".join(gaps)


# ---- the tables -----------------------------------------------------------------------------------------------------

Measured = dict[str, list[Run]]


def rounds(trl: list[str], folder: Path, plans: dict[str, dict[str, Any]], runs: int, threads: int) -> dict[str, Measured]:
    """Let the contenders take turns; return their runs by setting."""
    kinds = {name: {"warmkit": {}} | (OTHERS if SETTINGS[name].ending else {}) for name in plans}
    measured: dict[str, Measured] = {name: {} for name in plans}
    for number in range(runs):
        ours = [(name, each, how) for name, known in kinds.items() for each, how in turned(list(known.items()), number)]
        theirs: list[tuple[str, str, dict[str, Any]]] = [(name, "TRL", {}) for name in plans]
        for command, wanted in turned([(OURS, ours), (trl, theirs)], number):
            print(f"\r{number + 1}/{runs} {wanted[0][1]}    ", end="", file=sys.stderr, flush=True)
            own = [
                {**plans[name], **how, "output": f"{plans[name]['output']}-{place}"}
                for place, (name, _, how) in enumerate(wanted)
            ]
            results = start(command, folder, own, threads)
            for (name, contender, _), result in zip(wanted, results, strict=True):
                measured[name].setdefault(contender, []).append(averaged(result, plans[name]["steps"]))
    print(file=sys.stderr)
    return measured


def turned(items: list[Any], by: int) -> list[Any]:
    """Let another one go first in every round."""
    by %= len(items)
    return items[by:] + items[:by]


def report(setting: str, measured: Measured) -> None:
    for name, results in measured.items():
        parts = (statistics.median(getattr(each, part) for each in results) for part in ("generation", "scoring", "learning"))
        speeds = [1 / each.step for each in results]
        print(
            f"{setting:14} {name:21} {statistics.median(speeds):7.2f} {min(speeds):7.2f}-{max(speeds):<7.2f} "
            f"{' '.join(f'{1000 * part:10.1f}' for part in parts)} {results[0].length:7.1f}"
        )


def ratio(measured: Measured, first: str, second: str, part: str = "step") -> str:
    """Return the median of the ratios of seconds of runs that took turns."""
    ratios = [getattr(a, part) / getattr(b, part) for a, b in zip(measured[first], measured[second], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def conclusions(measured: Measured) -> list[str]:
    parts = [f"{part} {ratio(measured, 'TRL', 'warmkit', part)}" for part in ("step", "generation", "learning")]
    lines = [f"TRL's seconds over warmkit's: {', '.join(parts)}"]
    if EMA in measured:
        update = statistics.median(run.anchor / run.step for run in measured[EMA])
        lines.append(
            f"a step with a moving anchor takes {ratio(measured, EMA, INIT)} times one with a static anchor, same report"
        )
        lines.append(f"... and {ratio(measured, EMA, 'warmkit')} times one with a static anchor that is the SFT model")
        lines.append(f"the moving average's update is {update:.1%} of its step")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", required=True, help="the Python of a virtual environment that has TRL")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "warmkit-bench", help="kept between runs")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="more than the idle cores, and every barrier waits")
    parser.add_argument(
        "--cpu", action="store_true", help="count CPU seconds, where the machine has other work; for one thread"
    )
    parser.add_argument("--batch", type=int, default=8, help="prompts in a step")
    parser.add_argument("--samples", type=int, default=4, help="completions of a prompt")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    given = parser.parse_args()
    folder, trl = given.folder.resolve(), [given.trl, "-I", TRL]  # -I: nothing of this folder shadows TRL's imports
    folder.mkdir(parents=True, exist_ok=True)
    plans = {
        name: {
            "model": str(build_llama(folder, SETTINGS[name])),
            "train": str(build_prompts(folder, PROMPTS)),
            "ordered": str(folder / f"ordered-{number}.jsonl"),
            "output": str(folder / "runs" / str(number)),
            "steps": SETTINGS[name].steps,
            "batch": given.batch,
            "samples": given.samples,
            "max_new_tokens": given.max_new_tokens,
            "temperature": TEMPERATURE,
            "beta": 0.1,
            "lr": 1e-6,
            "anchor": "init",
            "apart": False,
            "cpu": given.cpu,
            "compare": False,
            "sampled": None,
        }
        for number, name in enumerate(given.settings)
    }
    for plan in plans.values():
        write_ordered(plan, PROMPTS)
    print(f"Largest relative differences over {COMPARED} steps with the same completions:")
    print("\n".join(compare(trl, folder, plans, given.threads)), flush=True)
    measured = rounds(trl, folder, plans, given.runs, given.threads)
    print(f"{'':36} {'steps/s':>7} {'min-max':>15} {'generate':>10} {'score':>10} {'learn, ms':>10} {'tokens':>7}")
    for name in plans:
        report(name, measured[name])
    for name in plans:
        print("\n".join(f"{name}: {each}" for each in conclusions(measured[name])))


if __name__ == "__main__":
    main()
