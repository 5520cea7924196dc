"""WARM in plain torch and transformers: from preference pairs to one averaged reward model.

    python examples/warm.py --model SFT --train train.jsonl --validation val.jsonl -o warm

Rows of the files: {"prompt": "...", "chosen": "...", "rejected": "..."}. SFT is a decoder or an encoder. OUT gets:

    probe     SFT with a head that was trained on frozen features, which every run starts from
    run-N     the fine-tunings: each has its own order of the data, its own dropout, and a rate of `--lr`
    model     the average of those that rank best on one half of the validation pairs

The models are, to the byte, those of `warmkit warm` with `precision: float32` under `rm:`, `--seed` as `seed` and `order` of
`rm:` and `seed` of `warm:`, every key that is no option here left out, and as many threads. The command does more: it resumes
where it was killed, runs side by side, reads chats, and measures ensembles, random soups and whether runs average.

Source: WARM (Ramé et al., 2024, arXiv:2401.12187), section 3 and appendix C.3.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import nn
from torch.nn.functional import logsigmoid
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import warmkit
from warmkit.common.random_streams import generator, run_seed, seed_torch  # the same random numbers as the command's

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SCORING_TOKENS = 16_384  # padded tokens in one batch without gradients
Text = dict[str, list[int]]  # what a tokenizer makes of one text: input_ids, attention_mask, perhaps token_type_ids


def padding_token(tokenizer: Any) -> str:
    """Choose a padding token that ends no text: a decoder's reward is read at the last token that is not padding."""
    special = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    named = (tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, *special)
    return next(token for token in named if token is not None and token != tokenizer.eos_token)


def encode(tokenizer: Any, pairs: list[dict[str, str]], side: str, longest: int) -> list[Text]:
    """Return the tokens of prompt and answer: `x y EOS` for a decoder, `[CLS] x [SEP] y [SEP]` for an encoder."""
    prompts, answers = [pair["prompt"] for pair in pairs], [pair[side] for pair in pairs]
    if tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None:
        made = tokenizer(prompts, answers, truncation="only_first", max_length=longest)
    else:
        tokenizer.truncation_side = "left"  # the oldest tokens go
        wholes = [prompt + answer + tokenizer.eos_token for prompt, answer in zip(prompts, answers)]
        made = tokenizer(wholes, truncation=True, max_length=longest, return_token_type_ids=False)
    return [{name: column[place] for name, column in made.items()} for place in range(len(pairs))]


def batch(texts: list[Text], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad texts on the right, [B, T] each."""
    fill, columns = {"input_ids": pad_id}, {name: [torch.tensor(text[name]) for text in texts] for name in texts[0]}
    return {name: pad_sequence(each, True, fill.get(name, 0)).to(DEVICE) for name, each in columns.items()}


def similar_lengths(texts: list[Text], most: int, least: int) -> list[list[int]]:
    """Group the places of texts, longest first: `most` padded tokens, and beyond `least` texts none a fifth shorter."""
    lengths, groups = [len(text["input_ids"]) for text in texts], list[list[int]]()
    for place in sorted(range(len(texts)), key=lambda place: -lengths[place]):
        group = groups[-1] if groups else []
        longest = lengths[group[0]] if group else 0
        if not group or (len(group) + 1) * longest > most or (len(group) >= least and lengths[place] < 0.8 * longest):
            groups.append([])
        groups[-1].append(place)
    return groups


def load_init(path: str, tokenizer: Any) -> Any:
    """Load SFT as a reward model: transformers' classifier with one label, its head zero."""
    how: dict[str, Any] = {"num_labels": 1, "pad_token_id": tokenizer.pad_token_id, "dtype": torch.float32}
    seed_torch("initial weights", 0)  # of layers that SFT lacks, such as a pooler
    model = AutoModelForSequenceClassification.from_pretrained(path, **how).to(DEVICE)
    head = head_of(model)
    nn.init.zeros_(head.weight)
    if head.bias is not None:  # a loss of differences never moves it
        nn.init.zeros_(head.bias.requires_grad_(False))
    return model.eval()


def head_of(model: Any) -> nn.Linear:
    """Return the layer that gives the reward: the last with one output."""
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features == 1][-1]


def rewards(model: Any, texts: list[Text], most: int, least: int) -> torch.Tensor:
    """Return r(x, y) of every text, [n]."""
    groups = similar_lengths(texts, most, least)
    parts = [model(**batch([texts[place] for place in group], model.config.pad_token_id)).logits[:, 0] for group in groups]
    return torch.cat(parts)[torch.tensor([place for group in groups for place in group], device=DEVICE).argsort()]


@torch.no_grad()
def accuracy(model: Any, chosen: list[Text], rejected: list[Text]) -> float:
    """Return how often the preferred answer has the higher reward, ties counted half."""
    found = rewards(model.eval(), [*chosen, *rejected], SCORING_TOKENS, 4)
    margins = found[: len(chosen)] - found[len(chosen) :]
    return float(((margins > 0).double() + (margins == 0).double() / 2).mean())


# ---- 1. the probe ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def features(model: Any, texts: list[Text]) -> torch.Tensor:
    """Return what the head reads of every text, [n, hidden]."""
    head, caught = head_of(model), list[torch.Tensor]()
    hook = head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    found = torch.empty(len(texts), head.in_features)
    for group in similar_lengths(texts, SCORING_TOKENS, 4):
        inputs = batch([texts[place] for place in group], model.config.pad_token_id)
        model(**inputs)
        read = caught.pop()
        if read.dim() == 3:  # a decoder's head reads every token, [B, T, hidden]
            read = read[torch.arange(len(group)), inputs["attention_mask"].sum(1) - 1]
        found[group] = read.cpu()
    hook.remove()
    return found


def probe(chosen: torch.Tensor, rejected: torch.Tensor, l2: float = 0.1) -> torch.Tensor:
    """Return the head w, [1, hidden], that minimises mean -log sigmoid(w . (f+ - f-)) + l2/2 |w|^2, f of unit variance."""
    spread = torch.cat([chosen, rejected]).double().std(0).clamp_min(1e-6)
    differences = (chosen.double() - rejected.double()) / spread
    w = torch.zeros(differences.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = -logsigmoid(differences @ w).mean() + l2 / 2 * w.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return (w.detach() / spread).float()[None]


# ---- 2. the runs ----------------------------------------------------------------------------------------------------


def rows_of(step: int, examples: int, size: int, seed: int) -> list[int]:
    """Return the examples of a step: an epoch is a permutation, and a batch may run over its end."""
    first, last = step * size // examples, ((step + 1) * size - 1) // examples
    order = [row for epoch in range(first, last + 1) for row in generator("data order", seed, epoch).permutation(examples)]
    return order[step * size % examples :][:size]


def fine_tune(init: Any, chosen: list[Text], rejected: list[Text], lr: float, seed: int, how: argparse.Namespace) -> Any:
    """Return the init fine-tuned by the Bradley-Terry loss, -log sigmoid(r(x, y+) - r(x, y-))."""
    model = copy.deepcopy(init).train()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=lr, weight_decay=0.0, fused=True)
    for step in range(how.steps or max(1, round(len(chosen) / how.batch_size))):
        optimizer.param_groups[0]["lr"] = lr * (step + 1) / how.warmup if step < how.warmup else lr
        rows = rows_of(step, len(chosen), how.batch_size, seed)
        seed_torch("dropout", seed, step)
        texts = [*(chosen[row] for row in rows), *(rejected[row] for row in rows)]
        found = rewards(model, texts, 1 << 40, -(-len(texts) // 3))  # three forward passes at most
        loss = -logsigmoid(found[: len(rows)] - found[len(rows) :]).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


# ---- 3. the ranking -------------------------------------------------------------------------------------------------


def halves(pairs: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """Divide pairs by hashes of their prompts, of whole pairs where prompts are few: one half ranks, the other measures."""

    def digest(*texts: str) -> bytes:
        return xxhash.xxh3_128(json.dumps(["ranking", *texts]).encode()).digest()

    keys = [digest(pair["prompt"]) for pair in pairs]
    if max(Counter(keys).values()) * 10 > len(pairs):
        keys = [digest(pair["prompt"], *sorted((json.dumps(pair["chosen"]), json.dumps(pair["rejected"])))) for pair in pairs]
    taken, size = set[bytes](), 0
    for key, count in sorted(Counter(keys).items()):
        if 2 * size < len(pairs) and size + count < len(pairs):
            taken.add(key)
            size += count
    ranking = [place for place, key in enumerate(keys) if key in taken]
    return ranking, [place for place, key in enumerate(keys) if key not in taken]


def main() -> None:
    """Train, rank, average."""
    parser = argparse.ArgumentParser(description="WARM: train reward models and average the best.")
    for name in ("--model", "--train", "--validation"):
        parser.add_argument(name, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    for name, default in {"--runs": 6, "--batch-size": 16, "--warmup": 0, "--seed": 0}.items():
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--m", type=int, help="models in the average; by default half of the runs")
    parser.add_argument("--steps", type=int, help="of a run; by default one epoch")
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-5])
    how = parser.parse_args()
    if how.output.exists():
        parser.error(f"{how.output} exists")

    lines = [Path(file).read_text("utf-8").split("\n") for file in (how.train, how.validation)]
    train, validation = ([json.loads(line) for line in each if line.strip()] for each in lines)
    tokenizer = AutoTokenizer.from_pretrained(how.model)
    tokenizer.pad_token = padding_token(tokenizer)
    init = load_init(how.model, tokenizer)
    longest = min(4096, getattr(init.config, "max_position_embeddings", 4096), tokenizer.model_max_length)
    chosen, rejected = (encode(tokenizer, train, side, longest) for side in ("chosen", "rejected"))
    held_out = [encode(tokenizer, validation, side, longest) for side in ("chosen", "rejected")]
    ranking, rest = ([[texts[place] for place in half] for texts in held_out] for half in halves(validation))

    def save(model: Any, name: str) -> Path:
        for each in (model, tokenizer):
            each.save_pretrained(how.output / name)
        return how.output / name

    found = features(init, [*chosen, *rejected])
    head_of(init).weight.data.copy_(probe(found[: len(train)], found[len(train) :]))
    save(init, "probe")

    worth: dict[Path, float] = {}
    order = generator("grid order", how.seed).permutation(len(how.lr))
    for number in range(how.runs):
        lr = how.lr[order[number % len(order)]]
        model = fine_tune(init, chosen, rejected, lr, run_seed(how.seed, number), how)
        path = save(model, f"run-{number + 1}")
        worth[path] = accuracy(model, *ranking)
        print(f"{path}: lr {lr:g}, accuracy {worth[path]:.3f}, on the other half {accuracy(model, *rest):.3f}")

    best = sorted(worth, key=lambda path: -worth[path])[: how.m or max(2, -(-how.runs // 2))]
    warmkit.merge(best, how.output / "model", method="uniform")  # 4. WARM: the mean of the weights
    average = AutoModelForSequenceClassification.from_pretrained(how.output / "model", dtype=torch.float32).to(DEVICE)
    print(f"average of {len(best)}: accuracy on the other half {accuracy(average, *rest):.3f}")


if __name__ == "__main__":
    main()
