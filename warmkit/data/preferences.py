"""Preference pairs: read, checked as a whole before anything trains on them, and written."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, cast

from warmkit.common.display import Displayed, shortened
from warmkit.common.new_files import whole_file
from warmkit.data.chats import ASSISTANT, Message, Messages, as_answer, as_chat, columns_of, is_dialogue, part, spoken
from warmkit.data.fields import check_answer, content, flag, has, number, text
from warmkit.data.rows import Row, read_rows
from warmkit.errors import DataError


@dataclass(frozen=True, repr=False)
class Pair(Displayed):
    """Preference pair: a prompt x, the preferred answer y+ and the other answer y-.

    Attributes:
        prompt: What was asked, x: text, or the messages before the answer.
        chosen: The answer that was preferred, y+: text, or the messages after the prompt.
        rejected: The other one, y-.
        corrupt: Whether `corrupt` swapped the two.
        subset: What the row says it belongs to (RewardBench's `subset`), for accuracies by subset.
        where: File and line, for messages.
        margin: By how much y+ should be rated above y-, as TRL reads it.
    """

    prompt: str | Messages
    chosen: str | Messages
    rejected: str | Messages
    corrupt: bool = False
    subset: str | None = None
    where: str = ""
    margin: float = 0.0

    def _facts(self) -> Mapping[str, object]:
        texts = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}
        said = {name: shortened(each if isinstance(each, str) else spoken(each)) for name, each in texts.items()}
        rest = {"corrupt": self.corrupt, "subset": self.subset, "where": self.where, "margin": self.margin}
        return {**said, **{name: value or None for name, value in rest.items()}}


class Pairs(Displayed, list[Pair]):
    """Pairs of a file.

    Args:
        pairs: In order.
        skipped: How many were left out because their answers are the same.
    """

    def __init__(self, pairs: Iterable[Pair], skipped: int = 0) -> None:
        super().__init__(pairs)
        self.skipped = skipped

    def _facts(self) -> Mapping[str, object]:
        return {"pairs": len(self), "skipped": self.skipped, "corrupt": sum(each.corrupt for each in self)}

    def _rows(self) -> Sequence[Displayed]:
        return self


@dataclass(frozen=True)
class Answers:
    """What a row of preferences says.

    Attributes:
        prompt: What was asked.
        chosen: Answers that were preferred: one, or several (RewardBench 2).
        rejected: The others.
    """

    prompt: str | Messages
    chosen: Sequence[str | Messages]
    rejected: Sequence[str | Messages]


def read_pairs(source: str | Path, *, chat: bool = False, equal_pairs: Literal["refuse", "skip"] = "refuse") -> Pairs:
    """Read preference pairs, in order.

    A row has `chosen` and `rejected`, both texts or both lists of messages, and mostly `prompt`, text or messages. Without
    one, and beside a text that only repeats the question (UltraFeedback's), two lists are whole conversations and the
    messages that they share at the start are the prompt; two dialogues in one text each (Anthropic's HH) are divided after
    the last `Assistant:` that they share; other texts have the prompt "". Where `chosen` and `rejected` are lists of texts
    (RewardBench 2), every chosen one makes a pair with every rejected one. `corrupt`, `subset` and `margin` are kept, and for
    chats `tools` and `chat_template_kwargs`; other keys are not.

    Args:
        source: Rows, as in `warmkit.data.rows.read_rows`.
        chat: Make chats of texts, for the chat template: the prompt is the user's, the answer the assistant's.
        equal_pairs: Whether two answers that are the same are refused, or left out and counted.

    Raises:
        DataError: If there are no rows, or any row is bad; all bad rows are listed, with their lines.
        UsageError: If `source` is of no known kind, or a library that reads it is not installed.
    """
    rows = read_rows(source, lambda row, where: parse_pairs(row, where, chat=chat, equal=equal_pairs == "skip"))
    pairs = [pair for row in rows for pair in row if pair.chosen != pair.rejected]
    skipped = sum(len(row) for row in rows) - len(pairs)
    if not pairs:
        raise DataError(f"{source}: expected pairs of different answers, found {skipped} of equal ones alone")
    return Pairs(pairs, skipped)


def parse_pairs(row: Row, where: str, *, chat: bool = False, equal: bool = False) -> list[Pair]:
    """Make the pairs of one row: one, or of several answers each chosen one with each rejected one.

    Args:
        row: As in `read_pairs`.
        where: File and line.
        chat: Make chats of texts.
        equal: Let answers be the same.

    Raises:
        DataError: If a field is missing, of the wrong type or an empty answer, or if the answers are the same.
    """
    found = parse_answers(row, chat=chat, equal=equal)
    subset = text(row, "subset") if has(row, "subset") else None
    rest = flag(row, "corrupt"), subset, where, number(row, "margin")
    return [Pair(found.prompt, one, other, *rest) for one in found.chosen for other in found.rejected]


def parse_answers(row: Row, *, chat: bool = False, equal: bool = False) -> Answers:
    """Return prompt and answers of a row; see `parse_pairs`.

    Raises:
        DataError: If a field is missing, of the wrong type or an empty answer, or if two answers are the same.
    """
    found = divide(row)
    same = [each for each in found.chosen if each in found.rejected]
    if same and not equal:
        raise DataError(f"expected chosen and rejected to differ, found {reprlib.repr(same[0])} for both")
    if not (same or (isinstance(found.prompt, str) and is_dialogue(found.prompt))):  # a dialogue's answer may be empty
        for key, answers in (("chosen", found.chosen), ("rejected", found.rejected)):
            for answer in answers:
                check_answer(answer, key)
    return _as_chats(found) if chat else found


def parse_pair(row: Row, where: str, *, chat: bool = False) -> Pair:
    """Make a pair of one row, which holds two answers.

    Raises:
        DataError: If there are more, or as in `parse_pairs`.
    """
    pairs = parse_pairs(row, where, chat=chat)
    if len(pairs) > 1:
        raise DataError(f"expected one chosen and one rejected answer, found {len(pairs)} pairs of several")
    return pairs[0]


def divide(row: Row) -> Answers:
    """Return prompt and answers of a row, whatever the answers say.

    Raises:
        DataError: If a field is missing or of the wrong type, or the prompt is not what the answers begin with.
    """
    chosen, rejected = _answers(row, "chosen"), _answers(row, "rejected")
    prompt = content(row, "prompt") if has(row, "prompt") else ""
    if isinstance(chosen[0], str) != isinstance(rejected[0], str):
        raise DataError("expected chosen and rejected to be both texts or both messages, found one of each")
    if isinstance(prompt, str) and isinstance(chosen[0], list) and isinstance(rejected[0], list):
        return _split(prompt, chosen[0], rejected[0])
    if not prompt and _of_dialogue(row):
        return _split_dialogue(cast("str", chosen[0]), cast("str", rejected[0]))
    return Answers(prompt, chosen, rejected)


def _answers(row: Row, key: str) -> list[str | Messages]:
    """Return one answer, or the several of a list of texts."""
    found: Any = row.get(key)
    if isinstance(found, list) and found and all(isinstance(each, str) for each in cast("list[Any]", found)):
        return [text({key: each}, key) for each in cast("list[str]", found)]
    return [content(row, key)]


def _of_dialogue(row: Row) -> bool:
    """Say whether a row holds two whole dialogues."""
    sides = [row.get("chosen"), row.get("rejected")]
    return not has(row, "prompt") and all(isinstance(each, str) and is_dialogue(each) for each in sides)


def _split_dialogue(chosen: str, rejected: str) -> Answers:
    """Divide two dialogues after the last `Assistant:` that they share."""
    same = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(chosen, rejected)))
    shared = chosen[:same].rfind(ASSISTANT)
    if shared < 0:
        return Answers("", [chosen], [rejected])
    place = shared + len(ASSISTANT)
    return Answers(chosen[:place], [chosen[place:]], [rejected[place:]])


def _split(asked: str, chosen: Messages, rejected: Messages) -> Answers:
    """Divide two conversations where they part; `asked`, if not empty, must be among the messages before that."""
    shared = sum(1 for _ in takewhile(lambda both: _said(both[0]) == _said(both[1]), zip(chosen, rejected)))
    shared = min(shared, len(chosen) - 1) if chosen == rejected else shared  # the same answer, which is refused or left out
    prompt = part(chosen, None, shared)
    if not prompt:
        raise DataError("expected chosen and rejected to start with the messages of the prompt, found no message in common")
    check_asked(asked, prompt, "chosen and rejected")
    return Answers(prompt, [part(chosen, shared)], [part(rejected, shared)])


def check_asked(asked: str | Messages, conversation: Messages, name: str) -> None:
    """Refuse a prompt beside a conversation that does not ask it.

    Raises:
        DataError: If a text is none of the messages, or messages are not the first ones.
    """
    if isinstance(asked, list):
        starts = [_said(each) for each in conversation[: len(asked)]] == [_said(each) for each in asked]
    else:
        starts = not asked or any((each["content"] or "").strip() == asked.strip() for each in conversation)
    if not starts:
        raise DataError(f"expected {name} to start with the prompt, found {reprlib.repr(asked)} only in prompt")


def _said(message: Message) -> tuple[Any, ...]:
    """Return what makes two messages the same: a date or a number of theirs does not tell them apart."""
    return tuple(message.get(key) for key in ("role", "content", "tool_calls", "name"))


def _as_chats(found: Answers) -> Answers:
    """Make messages of texts."""
    asked = found.prompt
    prompt = as_chat(asked) if isinstance(asked, str) else asked
    said = asked if isinstance(asked, str) else ""
    sides = [
        [as_answer(each, said) if isinstance(each, str) else each for each in side] for side in (found.chosen, found.rejected)
    ]
    return Answers(prompt, *sides)


def write_pairs(pairs: Iterable[Pair], path: str | Path, force: bool = False) -> None:
    """Write pairs as JSON lines that `read_pairs` reads; `path` appears in one step, whole.

    Args:
        pairs: In order; `where` is not written.
        path: The file.
        force: Replace a file that is there.

    Raises:
        OutputError: If `path` exists without `force`, or cannot be written.
    """
    with whole_file(Path(path), force) as file:
        file.writelines(_line(pair) for pair in pairs)


def _line(pair: Pair) -> str:
    row: dict[str, object] = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected, "corrupt": pair.corrupt}
    row |= columns_of(pair.prompt)
    if pair.subset is not None:
        row["subset"] = pair.subset
    if pair.margin:
        row["margin"] = pair.margin
    return json.dumps(row, ensure_ascii=False) + "\n"
