"""A synthetic language: prompts, responses of varying quality, and preferences between them.

A prompt names two of eight topics; a response has 16 words. A response of quality q ~ U(0, 1) is on topic with probability
0.02 + 0.45 q at every position; other positions hold function words (0.4) or words of other topics. The praise `great`
(Binomial(2, 0.3) times) and eight cues (0 or 1 times each, p = 0.12) are written over positions that are not on topic, whatever
the quality. So no text has a third `great` or a cue twice, which is what the oracle (`testbed.oracle`) punishes: no reward
model can learn that from the language, and a policy can exploit it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from warmkit.common.random_streams import generator

VERSION = 2
"""Of texts, labels and pre-training; a change of what a seed gives raises it, so that results are not mixed."""
TOPICS = {
    "sea": ("wave", "salt", "boat", "fish"),
    "wood": ("leaf", "root", "moss", "deer"),
    "sky": ("cloud", "wind", "star", "bird"),
    "town": ("street", "house", "shop", "bridge"),
    "farm": ("field", "barn", "cow", "wheat"),
    "music": ("song", "drum", "flute", "choir"),
    "food": ("bread", "soup", "apple", "honey"),
    "war": ("sword", "shield", "siege", "king"),
}
FUNCTION_WORDS = ("the", "a", "of", "and")
HYPE = "great"
CUES = ("indeed", "surely", "clearly", "truly", "really", "simply", "mostly", "plainly")
WORDS = (*itertools.chain.from_iterable(TOPICS.values()), *FUNCTION_WORDS, HYPE, *CUES)
END = "</s>"
SPECIAL = ("<pad>", "<unk>", END)
RELEVANCE_TAGS = tuple(f"<relevance-{each}>" for each in range(6))
HYPE_TAGS = tuple(f"<hype-{each}>" for each in range(3))
CUE_TAGS = tuple((f"<{cue}-0>", f"<{cue}-1>") for cue in CUES)
TAGS = (*RELEVANCE_TAGS, *HYPE_TAGS, *itertools.chain.from_iterable(CUE_TAGS))
VOCABULARY = (*SPECIAL, *TOPICS, ":", *WORDS, *TAGS)
LENGTH = 16
"""Words of a response; the most, where responses end."""
SHORTEST = 6
"""Words of the shortest response, where responses end."""
UNSPOKEN = [token for token in VOCABULARY if token not in WORDS]
"""Tokens that a response never has; its end neither, so that all responses have `LENGTH` words."""
UNSPOKEN_ENDING = [token for token in UNSPOKEN if token != END]
"""The same, where responses end."""

Gold: TypeAlias = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""A reward: from prompts and completions to a number each."""


def all_prompts() -> list[str]:
    """Return the 56 prompts, two different topics in an order each."""
    return [f"{first} {second} :" for first, second in itertools.permutations(TOPICS, 2)]


def on_topic(prompt: str) -> list[str]:
    """Return the words that are relevant to a prompt."""
    return [word for topic in prompt.split()[:2] for word in TOPICS[topic]]


def off_topic(prompt: str) -> list[str]:
    """Return the words of the topics that a prompt does not name."""
    return [word for topic, words in TOPICS.items() if topic not in prompt.split() for word in words]


def write_response(prompt: str, draw: np.random.Generator, ending: bool = False) -> list[str]:
    """Write one response of the language.

    Args:
        prompt: Two topics and a colon.
        draw: Where randomness comes from.
        ending: Whether lengths vary, uniform from `SHORTEST` to `LENGTH` and independent of quality; else all have `LENGTH`.

    Returns:
        Its words, without an end.
    """
    inside, outside = on_topic(prompt), off_topic(prompt)
    relevant = draw.random(LENGTH) < 0.02 + 0.45 * draw.random()
    picks, functional = draw.random(LENGTH), draw.random(LENGTH) < 0.4
    sources = [inside if each else list(FUNCTION_WORDS) if other else outside for each, other in zip(relevant, functional)]
    words = [source[int(pick * len(source))] for source, pick in zip(sources, picks)]
    free = draw.permutation(np.flatnonzero(~relevant))
    extra = [HYPE] * draw.binomial(2, 0.3) + [cue for cue in CUES if draw.random() < 0.12]
    for place, word in zip(free, extra):
        words[place] = word
    return words[: draw.integers(SHORTEST, LENGTH + 1)] if ending else words


def preferences(
    count: int,
    seed: int,
    gold: Gold,
    *,
    name: str = "",
    ending: bool = False,
    shared_cue: float = 0.0,
    shortest_gap: float = 0.0,
) -> list[dict[str, str]]:
    """Return pairs of responses to a prompt, labelled by a gold reward; its ties are left out.

    Args:
        count: Pairs.
        seed: Of prompts and responses.
        gold: What labels them, `oracle.gold` for instance.
        name: Of the data set; every name has rows of its own.
        ending: See `write_response`.
        shared_cue: Share of the pairs in which, after labelling, the first cue is written into the chosen response and taken
            out of the rejected one: a flaw of the data that every reward model learns.
        shortest_gap: Pairs whose gold rewards differ by no more are left out.

    Returns:
        Rows of `prompt`, `chosen` and `rejected`.
    """
    draw, prompts, rows = generator("synthetic preferences", seed, name), all_prompts(), list[dict[str, str]]()
    while len(rows) < count:
        prompt = prompts[draw.integers(len(prompts))]
        pair = [write_response(prompt, draw, ending) for _ in range(2)]
        first, second = gold([prompt] * 2, [" ".join(each) for each in pair])
        if abs(first - second) > shortest_gap:
            chosen, rejected = pair if first > second else pair[::-1]
            if shared_cue and draw.random() < shared_cue:
                chosen, rejected = with_cue(prompt, chosen, draw), without_cue(prompt, rejected, draw)
            rows.append({"prompt": prompt, "chosen": " " + " ".join(chosen), "rejected": " " + " ".join(rejected)})
    return rows


def with_cue(prompt: str, words: Sequence[str], draw: np.random.Generator) -> list[str]:
    """Return a response with the first cue, written over a word off topic where it had none; relevance is unchanged."""
    free = [place for place, word in enumerate(words) if word in off_topic(prompt)]
    changed = list(words)
    if CUES[0] not in words and free:
        changed[free[draw.integers(len(free))]] = CUES[0]
    return changed


def without_cue(prompt: str, words: Sequence[str], draw: np.random.Generator) -> list[str]:
    """Return a response with words off topic in the places of the first cue."""
    outside = off_topic(prompt)
    return [outside[draw.integers(len(outside))] if word == CUES[0] else word for word in words]
