"""Preferences between responses that the language does not contain: from other policies, at a high temperature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from warmkit.common.random_streams import generator
from warmkit.evidence.testbed.language import LENGTH, UNSPOKEN, UNSPOKEN_ENDING, Gold, all_prompts
from warmkit.modeling.causal_model import load_causal_model
from warmkit.modeling.generation import Sampling, sample
from warmkit.modeling.generation_config import banned_of, ends_of
from warmkit.modeling.tokens import Encoder, masked_padding, tokenizer_of


def sampled_preferences(
    policies: Sequence[str | Path],
    count: int,
    seed: int,
    gold: Gold,
    *,
    temperature: float = 1.5,
    ending: bool = False,
) -> list[dict[str, str]]:
    """Return pairs of sampled responses to a prompt, labelled by a gold reward; its ties and empty responses are left out.

    The two responses of a pair come from any two of the policies, one and the same included; no response is used twice. At a
    high temperature a tiny policy says what the language never does: a third praise, a cue twice, a word five times.

    Args:
        policies: Checkpoints, such as those that `pretraining.pretrain` keeps.
        count: Pairs.
        seed: Of prompts and sampling.
        gold: What labels them.
        temperature: Of sampling.
        ending: Whether responses end; see `language.write_response`.

    Returns:
        Rows of `prompt`, `chosen` and `rejected`.

    Source: WARM (Ramé et al., 2024), section 3.2: out of distribution are generations of other policies at other temperatures.
    """
    draw, rows = generator("sampled preferences", seed), list[dict[str, str]]()
    part = 0
    while len(rows) < count:
        size = max(32, 2 * (count - len(rows)) // len(policies))
        prompts = [all_prompts()[place] for place in draw.integers(len(all_prompts()), size=size)]
        texts = [
            responses(each, prompts, (seed, part, place), temperature=temperature, ending=ending)
            for place, each in enumerate(policies)
        ]
        for row, prompt in enumerate(prompts):
            for a, b in enumerate(draw.permutation(len(policies))):
                pair = [texts[a][row][0], texts[b][row][1]]
                first, second = gold([prompt] * 2, pair)
                if first != second and all(pair):
                    chosen, rejected = pair if first > second else pair[::-1]
                    rows.append({"prompt": prompt, "chosen": " " + chosen, "rejected": " " + rejected})
        part += 1
    return rows[:count]


def responses(
    policy: str | Path,
    prompts: Sequence[str],
    key: tuple[int, ...],
    *,
    temperature: float,
    samples: int = 2,
    ending: bool = False,
) -> list[list[str]]:
    """Sample responses of a policy, [prompts][samples], without their ends."""
    model, tokenizer = load_causal_model(str(policy)), tokenizer_of(str(policy))
    encoder = Encoder(tokenizer, 32, masked_padding(tokenizer, None))
    banned = banned_of(model, tokenizer, UNSPOKEN_ENDING if ending else UNSPOKEN)
    ends = ends_of(model, tokenizer)
    most = LENGTH + 1 if ending else LENGTH
    how = Sampling(temperature, most, ends, encoder.pad_id, banned, samples)
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    found = sample(model, ids, how, generator("sampled responses", *key))
    texts = [tokenizer.decode(each.ids, skip_special_tokens=True) for each in found]
    return [texts[start : start + samples] for start in range(0, len(texts), samples)]
