"""What a front costs: a sweep of 11 etas against 11 evaluations of one set of weights.

    python -m tests.benchmarks.front
    python -m tests.benchmarks.front --size tiny --repeats 5 --json front.json

Two Llamas with random weights, and two policies each: the init plus noise a hundredth as large. Random weights hardly ever end
a completion, so every evaluation samples the same number of tokens. Both sides take turns, with the same prompts, samples and
seed, after one round that does not count (kernels are compiled, files enter the page cache). The evaluations alone
neither merge nor load weights nor compute intervals; the sweep does all three. What one merge, one loading and one evaluation
take is shown beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tests.benchmarks.reward_modeling import build_tokenizer
from warmkit.data.docstrings import STANDARD_LIBRARY, docstrings, folder_of, sources
from warmkit.evaluation.front import open_mergers, sweep
from warmkit.evaluation.policies import Candidate, EvaluationSettings, PolicyTrial
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.verbs.merger import Merger

ETAS = [eta / 10 for eta in range(11)]
SIZES = {"tiny": (64, 2, 1024), "small": (384, 6, 16384)}
"""Hidden size, layers, vocabulary: 0.2 and 23 million parameters."""


def letters(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    del prompts
    return [float(each.count("e")) for each in completions]


def build(folder: Path, size: str) -> tuple[Path, list[Path]]:
    """Write an init and two policies, unless they are there."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    paths = [folder / f"{size}-{name}" for name in ("init", "a", "b")]
    if all((path / "model.safetensors").exists() for path in paths):
        return paths[0], paths[1:]
    hidden, layers, vocabulary = SIZES[size]
    tokenizer = build_tokenizer(vocabulary)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for seed, path in enumerate(paths):
        noise = torch.Generator().manual_seed(seed)
        moved = {name: each + 2e-4 * bool(seed) * torch.randn(each.shape, generator=noise) for name, each in start.items()}
        model.load_state_dict(moved)
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
    return paths[0], paths[1:]


def write_prompts(file: Path, count: int) -> Path:
    texts = (text.split() for path in sources(folder_of(STANDARD_LIBRARY)) for text in docstrings(path))
    long = islice((words for words in texts if len(words) >= 20), count)
    rows = [json.dumps({"prompt": " ".join(words[: 4 + place % 17])}) for place, words in enumerate(long)]
    file.write_text("\n".join(rows) + "\n")
    return file


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 4)


def measure(folder: Path, size: str, prompts: Path, options: argparse.Namespace) -> dict[str, Any]:
    init, policies = build(folder, size)
    reward = RewardTerm(function="tests.benchmarks.front:letters")
    how = EvaluationSettings(str(prompts), [reward], sft=str(init), max_new_tokens=options.tokens)
    candidate = PolicyTrial(how).open(str(init))
    result: dict[str, Any] = {
        "parameters": sum(each.numel() for each in candidate.evaluator.model.parameters()),
        "device": str(candidate.evaluator.device),
    }
    for method, merger in open_mergers(str(init), [str(path) for path in policies], ["slerp", "lerp"]).items():
        result[method] = compare(candidate, merger, options.repeats)
    return result


def compare(candidate: Candidate, merger: Merger, repeats: int) -> dict[str, float]:
    def alone() -> None:
        for _ in ETAS:
            candidate.answers()

    sides: dict[str, list[float]] = {"evaluations": [], "sweep": []}
    for _ in range(repeats + 1):
        sides["evaluations"].append(seconds(alone))
        sides["sweep"].append(seconds(lambda: sweep(candidate, merger, ETAS)))
    evaluations, swept = (times[1:] for times in sides.values())
    weights = merger.state_dict(eta=0.5)
    return {
        "evaluations": median(evaluations),
        "sweep": median(swept),
        "ratio": median([b / a for a, b in zip(evaluations, swept)]),
        "merge": median([seconds(lambda: merger.state_dict(eta=0.5)) for _ in range(repeats)]),
        "load": median([seconds(lambda: candidate.load_weights(weights)) for _ in range(repeats)]),
        "evaluation": median([each / len(ETAS) for each in evaluations]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What a front costs.")
    parser.add_argument("--size", choices=SIZES, action="append", help="again for more; all by default")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=24, help="of a completion")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where models are kept between runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        prompts = write_prompts(folder / "prompts.jsonl", options.prompts)
        found = {size: measure(folder, size, prompts, options) for size in options.size or SIZES}
    document = {"prompts": options.prompts, "tokens": options.tokens, "repeats": options.repeats, "sizes": found}
    for size, each in found.items():
        for method in ("slerp", "lerp"):
            times = each[method]
            print(
                f"{size:6} {each['parameters'] / 1e6:5.1f} M  {method:6} 11 evaluations {times['evaluations']:8.3f} s  "
                f"sweep {times['sweep']:8.3f} s  ratio {times['ratio']:.3f}  (evaluation {times['evaluation']:.3f}, "
                f"merge {times['merge']:.4f}, load {times['load']:.4f})"
            )
    print(json.dumps(document, indent=2))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
