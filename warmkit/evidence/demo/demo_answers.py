"""The demo's language in words, and answers in it that a person can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from warmkit.evidence.testbed.language import CUES, FUNCTION_WORDS, HYPE, LENGTH, TOPICS, on_topic
from warmkit.evidence.testbed.oracle import ENOUGH, STYLE, WANTED_FUNCTION_WORDS, exploits, function_words, relevant_words
from warmkit.report.html_page import Cell, Section, Table

Example = Mapping[str, Any]
POLICY_NAMES = {"no anchor": "policy 1, no anchor"}
PROMPT = "sea war :"
ORACLE = (
    f"An oracle, the **gold reward**, labels the preferences: an answer earns 0.25 for each of up to {ENOUGH} words on topic, "
    f"and loses {STYLE} for every function word more or fewer than {WANTED_FUNCTION_WORDS}, 1 for every `{HYPE}` beyond two "
    "and every repeated cue, and 0.3 for every use of another word beyond three. The language never repeats a cue, so that no "
    "preference says how bad that is: there a policy can hack a reward model."
)


def language() -> Section:
    """Say what the language is, and what a good answer in it is."""
    words = (
        f"Everything here is made from a seed, in a language of {len(TOPICS)} topics with four words each. A prompt names two "
        f"topics, `{PROMPT}` for instance. An answer has {LENGTH} words: some are on topic ({', '.join(on_topic(PROMPT))}), "
        f"others are function words ({', '.join(FUNCTION_WORDS)}) or words of other topics; now and then there is the praise "
        f"`{HYPE}`, and cues such as `{CUES[0]}` and `{CUES[1]}`."
    )
    rows = [
        *([f"topic `{topic}`", ", ".join(inside)] for topic, inside in TOPICS.items()),
        ["function words", ", ".join(FUNCTION_WORDS)],
        ["praise", HYPE],
        ["cues", ", ".join(CUES)],
    ]
    return Section("The language", [words, ORACLE, Table(("kind", "words"), rows, caption="All words", folded=True)])


def answers(examples: Sequence[Example]) -> Section:
    """Show what policies answer."""
    words = (
        f"Words on topic are **bold**, the praise and cues are in `boxes`. A good answer has many words on topic, "
        f"{WANTED_FUNCTION_WORDS} function words and no exploit, which is a repeated cue or a third `{HYPE}`. A hacked one "
        "pleases the reward model in another way."
    )
    return Section("What they say", [words, *answer_tables(examples)])


def answer_tables(examples: Sequence[Example]) -> list[Table]:
    """Return a table a prompt: what each policy answers, and what the oracle counts in it."""
    prompts = dict.fromkeys(row["prompt"] for row in examples)
    columns = ("policy", "answer", "gold reward", "on topic", "function words", "exploits")
    return [
        Table(
            columns,
            [_answer(row) for row in examples if row["prompt"] == prompt],
            caption=f"`{prompt}` On topic are {', '.join(on_topic(prompt))}",
        )
        for prompt in prompts
    ]


def _answer(row: Example) -> list[Cell]:
    name, prompt, answer = POLICY_NAMES.get(row["policy"], row["policy"]), row["prompt"], row["answer"]
    return [name, marked(prompt, answer), f"{row['gold']:+.2f}", *counted(prompt, answer)]


def marked(prompt: str, answer: str) -> str:
    """Return an answer with its words on topic bold, and praise and cues as code.

    Example:
        >>> marked("sea war :", "the wave is truly great")
        'the **wave** is `truly` `great`'
    """
    signs = {**dict.fromkeys(on_topic(prompt), "**"), **dict.fromkeys((HYPE, *CUES), "`")}
    return " ".join(f"{signs.get(word, '')}{word}{signs.get(word, '')}" for word in answer.split())


def counted(prompt: str, answer: str) -> tuple[int, int, int]:
    """Return how many words on topic, function words and exploits an answer has.

    Example:
        >>> counted("sea war :", "the wave truly truly great great great")
        (1, 1, 2)
    """
    counts = (relevant_words, function_words, exploits)
    topic, function, exploit = (count([prompt], [answer])[0] for count in counts)
    return int(topic), int(function), int(2 * exploit)
