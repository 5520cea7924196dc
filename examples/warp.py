"""WARP in plain torch and transformers: from prompts and a reward model to one policy.

    python examples/warp.py --model SFT --reward-model RM --train prompts.jsonl -o warp

Rows of the file: {"prompt": "..."}, texts that leave room for an answer. SFT is a decoder with attention, RM a classifier with
one label, such as `warm.py` writes. An iteration trains M policies from its init: REINFORCE on the reward, less beta times the
KL to the policy's own moving average (EMA). SLERP merges their task vectors, LITI draws the merge back to the init, and the
next iteration starts there. OUT gets:

    iteration-i/run-m    the policies
    iteration-i/init     what the next iteration starts from
    iteration-I/merged   the last merge
    model                LITI of that towards SFT

The models are those of `warmkit warp` with `precision: float32` under `policy:`, `--seed` as `seed` and `order` there, every
key that is no option here left out, and as many threads: the same bytes, but for rounding in Llamas so small that the
command has a forward pass of its own for them. The command does more: it resumes where it was killed, runs side by side,
reads chats, learns baselines, stops at tokens of the user's choice, and evaluates fronts of reward and KL.

Source: WARP (Ramé et al., 2024, arXiv:2406.16768), algorithm 1.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import warmkit
from warmkit.common.random_streams import generator, run_seed  # the same random numbers as the command's

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Ids = list[int]  # tokens of one text


# ---- batches --------------------------------------------------------------------------------------------------------


def padded(texts: list[Ids], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask, [B, T] each; what stands where the mask is 0 is never read."""
    ids = pad_sequence([torch.tensor(text) for text in texts], True, 0, side)
    mask = pad_sequence([torch.ones(len(text), dtype=torch.int64) for text in texts], True, 0, side)
    return ids.to(DEVICE), mask.to(DEVICE)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Return the position of every token in its own text, [B, T]: padding on the left moves none."""
    return (mask.cumsum(1) - 1).clamp_min(0)


def similar_lengths(lengths: list[int], most: int, least: int) -> list[list[int]]:
    """Group the places of texts, longest first: `most` padded tokens, and beyond `least` texts none a fifth shorter."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        group = groups[-1] if groups else []
        longest = lengths[group[0]] if group else 0
        if not group or (len(group) + 1) * longest > most or (len(group) >= least and lengths[place] < 0.8 * longest):
            groups.append([])
        groups[-1].append(place)
    return groups


def in_order(parts: list[torch.Tensor], groups: list[list[int]]) -> torch.Tensor:
    """Put together what was computed group by group."""
    return torch.cat(parts)[torch.tensor([place for group in groups for place in group], device=DEVICE).argsort()]


# ---- what models say ------------------------------------------------------------------------------------------------


@torch.no_grad()
def sample(policy: Any, prompts: list[Ids], draws: torch.Tensor, temperature: float, ends: set[int]) -> list[Ids]:
    """Sample a completion of every prompt, [N], by uniform numbers that were drawn in advance, [N, T].

    A token is where the cumulated probabilities pass its number: completions do not depend on what else is in the batch.
    """
    read, mask = padded(prompts, "left")
    cache, tokens, going = None, list[torch.Tensor](), torch.ones(len(prompts), dtype=torch.bool, device=DEVICE)
    for draw in draws.to(DEVICE).T:
        places = positions(mask)[:, -read.shape[1] :]
        said = policy(read, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cumulated = (said.logits[:, -1] / temperature).log_softmax(-1).double().exp().cumsum(-1)
        read, cache = torch.searchsorted(cumulated, draw[:, None] * cumulated[:, -1:], right=True), said.past_key_values
        mask = torch.cat([mask, torch.ones_like(read)], 1)
        tokens.append(read)
        going &= ~torch.isin(read[:, 0], torch.tensor([*ends], device=DEVICE))
        if not going.any():
            break
    rows = torch.cat(tokens, 1).tolist()
    stops = [next((place + 1 for place, token in enumerate(row) if token in ends), len(row)) for row in rows]
    return [row[:stop] for row, stop in zip(rows, stops)]


def log_probability(model: Any, prompts: list[Ids], completions: list[Ids], temperature: float) -> torch.Tensor:
    """Return log pi(y|x) = sum_t log pi(y_t | x, y_<t) of completions, each beside its prompt, [N]."""
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions)]
    groups = similar_lengths(lengths, 1 << 40, -(-len(lengths) // 3))  # three forward passes at most
    parts: list[torch.Tensor] = []
    for group in groups:
        before, before_mask = padded([prompts[place] for place in group], "left")
        tokens, counted = padded([completions[place] for place in group], "right")
        ids, mask, width = torch.cat([before, tokens], 1), torch.cat([before_mask, counted], 1), tokens.shape[1]
        how: dict[str, Any] = {"position_ids": positions(mask), "logits_to_keep": width + 1, "use_cache": False}
        logits = model(ids, attention_mask=mask, **how).logits[:, -width - 1 : -1]
        spoken = (logits / temperature).log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
        parts.append(spoken.masked_fill(counted == 0, 0.0).sum(-1))
    return in_order(parts, groups)


@torch.no_grad()
def reward(model: Any, tokenizer: Any, prompts: list[str], completions: list[str]) -> torch.Tensor:
    """Return r(x, y), [N]: of `x y EOS` for a decoder, of `[CLS] x [SEP] y [SEP]` for an encoder."""
    longest = min(4096, getattr(model.config, "max_position_embeddings", 4096), tokenizer.model_max_length)
    if tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None:
        texts = tokenizer(prompts, completions, truncation="only_first", max_length=longest)
    else:
        tokenizer.truncation_side = "left"  # the oldest tokens go
        wholes = [prompt + completion + tokenizer.eos_token for prompt, completion in zip(prompts, completions)]
        texts = tokenizer(wholes, truncation=True, max_length=longest, return_token_type_ids=False)
    groups, parts = similar_lengths([len(each) for each in texts["input_ids"]], 16_384, 4), list[torch.Tensor]()
    for group in groups:
        fill = {"input_ids": model.config.pad_token_id, "attention_mask": 0, "token_type_ids": 0}
        inputs = {name: pad_sequence([torch.tensor(texts[name][each]) for each in group], True, fill[name]) for name in texts}
        parts.append(model(**{name: each.to(DEVICE) for name, each in inputs.items()}).logits[:, 0])
    return in_order(parts, groups).cpu()


# ---- one policy -----------------------------------------------------------------------------------------------------


def rows_of(step: int, examples: int, size: int, seed: int) -> list[int]:
    """Return the prompts of a step: an epoch is a permutation, and a batch may run over its end."""
    first, last = step * size // examples, ((step + 1) * size - 1) // examples
    order = [row for epoch in range(first, last + 1) for row in generator("data order", seed, epoch).permutation(examples)]
    return order[step * size % examples :][:size]


def train_policy(init: Path, judge: Any, tokenizers: tuple[Any, Any], texts: list[str], seed: int, how: Any) -> Any:
    """Return a policy that learned from rewards (lines 4 to 10)."""
    tokenizer = tokenizers[0]
    policy = AutoModelForCausalLM.from_pretrained(init, dtype=torch.float32).to(DEVICE).eval()  # dropout stays off
    anchor = copy.deepcopy(policy).requires_grad_(False)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    ended = policy.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(ended if isinstance(ended, list) else [ended])} - {None}
    word = tokenizer("a", add_special_tokens=False)["input_ids"]  # alone, an answer may lose the space that it begins with
    learned = sorted(policy.parameters(), key=lambda each: each.dim() <= 1)  # the order in which their norms are summed
    optimizer = torch.optim.AdamW(learned, lr=how.lr, eps=how.epsilon, weight_decay=0.0, fused=True)
    for step in range(how.steps):
        optimizer.param_groups[0]["lr"] = how.lr * (step + 1) / how.warmup if step < how.warmup else how.lr
        rows = [row for row in rows_of(step, len(texts), how.batch_size, seed) for _ in range(how.samples)]
        prompts, asked = [ids[row] for row in rows], [texts[row] for row in rows]

        # line 6: y ~ pi(. | x)
        draws = generator("policy rollouts", seed, step).random((len(rows), how.max_new_tokens))
        completions = sample(policy, prompts, torch.from_numpy(draws), how.temperature, ends)
        spoken = [each[:-1] if each[-1] in ends else each for each in completions]
        behind = tokenizer.batch_decode([[*word, *each] for each in spoken], skip_special_tokens=True)
        answers = [text[len(tokenizer.decode(word)) :] for text in behind]

        # line 7: r_beta(x, y) = r(x, y) - beta log(pi(y|x) / pi_ema(y|x))
        said = log_probability(policy, prompts, completions, how.temperature)
        with torch.no_grad():
            by_anchor = log_probability(anchor, prompts, completions, how.temperature)
        scores = reward(judge, tokenizers[1], asked, answers)
        regularized = scores - how.beta * (said - by_anchor).detach().cpu()

        # line 8: a step along the policy gradient, the mean of the batch as baseline
        loss = -((regularized - regularized.mean()).to(DEVICE) * said).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()

        # line 9: the anchor follows
        with torch.no_grad():
            for average, parameter in zip(anchor.parameters(), policy.parameters()):
                average.lerp_(parameter, how.mu)
        print(f"step {step + 1} of {how.steps}: reward {scores.mean():.4f}, log ratio {(said - by_anchor).mean():.4f}")
    return policy


# ---- all of them ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Train, merge, draw back, repeat."""
    parser = argparse.ArgumentParser(description="WARP: train policies, merge them, repeat.")
    for name in ("--model", "--reward-model", "--train"):
        parser.add_argument(name, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    numbers = {"--iterations": 2, "--runs": 2, "--batch-size": 128, "--samples": 1, "--warmup": 100, "--max-new-tokens": 64}
    for name, default in {**numbers, "--seed": 0}.items():
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--steps", type=int, help="of a run; by default one epoch")
    rates = {"--lr": 1e-6, "--beta": 0.1, "--mu": 0.01, "--temperature": 0.9, "--eta": 0.3, "--final-eta": 1.0}
    for name, rate in {**rates, "--epsilon": 1e-8}.items():
        parser.add_argument(name, type=float, default=rate)
    how = parser.parse_args()

    texts = [json.loads(line)["prompt"] for line in Path(how.train).read_text("utf-8").split("\n") if line.strip()]
    how.steps = how.steps or max(1, round(len(texts) / how.batch_size))
    if how.output.exists():
        parser.error(f"{how.output} exists")
    if how.warmup > how.steps:
        parser.error(f"--warmup {how.warmup} is longer than the {how.steps} steps of a run")
    tokenizers = AutoTokenizer.from_pretrained(how.model), AutoTokenizer.from_pretrained(how.reward_model)
    judge = AutoModelForSequenceClassification.from_pretrained(how.reward_model, dtype=torch.float32).to(DEVICE).eval()

    init = Path(how.model)
    for i in range(1, how.iterations + 1):
        home, policies = how.output / f"iteration-{i}", list[Path]()
        for m in range(1, how.runs + 1):
            seed = run_seed(how.seed, (i - 1) * how.runs + m - 1)
            policies.append(home / f"run-{m}")
            for each in (train_policy(init, judge, tokenizers, texts, seed, how), tokenizers[0]):
                each.save_pretrained(policies[-1])
        last = i == how.iterations
        target, eta = home / ("merged" if last else "init"), 1.0 if last else how.eta
        warmkit.merge(policies, target, init=init, method="slerp", eta=eta)  # lines 12 and 13: SLERP, then LITI
        init = target
    warmkit.liti(init, how.output / "model", init=how.model, eta=how.final_eta)
    print(f"{how.output / 'model'}: {how.iterations} iterations of {how.runs} policies")


if __name__ == "__main__":
    main()
