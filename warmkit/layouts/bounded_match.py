"""Regular expressions from files of others, matched in a time that the lengths bound.

Python's `re` goes back and tries again, for hours where an expression asks for it. Here an expression becomes a list of states,
and all that may hold after a character are followed at once. What needs more than that (references back, looking around, flags)
is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

from warmkit.errors import UnsupportedError

MOST_STATES = 5_000
_PLAIN = re.compile(r"\^?(?:[\w.\-]|\\\.)*\$?")
_REPEAT = re.compile(r"\{(\d{0,4})(,?)(\d{0,4})\}")
_CLASSES: dict[str, Callable[[str], bool]] = {
    "d": lambda c: bool(re.match(r"\d", c)),
    "w": lambda c: bool(re.match(r"\w", c)),
    "s": lambda c: bool(re.match(r"\s", c)),
}

Test: TypeAlias = "Callable[[str], bool]"


@dataclass
class _State:
    """What may follow: after a character that passes `test`, or at once where that is None; at `at` (`^`, `$`) or anywhere."""

    test: Test | None = None
    at: str = ""
    next: list[int] = field(default_factory=lambda: [])


def ends_with(expression: str, name: str) -> bool:
    r"""Say whether an expression matches a dotted name, or its end after a dot: `re.match(r"(.*\.)?(EXPRESSION)$", name)`.

    Raises:
        re.error: If it is no expression.
        UnsupportedError: If it asks for more than states can follow.

    Examples:
        >>> ends_with(r"layers\.[0-3]\.(q|k)_proj", "model.layers.2.k_proj"), ends_with("q", "model.xq")
        (True, False)
    """
    if _PLAIN.fullmatch(expression):
        return _plain(expression).match(name) is not None
    states, last = compiled(expression)
    active: set[int] = set()
    for place in range(len(name) + 1):
        if place == 0 or name[place - 1] == ".":
            active.add(0)
        active = _closure(states, active, place == 0, place == len(name))
        if place < len(name):
            active = _step(states, active, name[place])
    return last in active


@lru_cache(4096)
def _plain(expression: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({expression})$")


@lru_cache(256)
def compiled(expression: str) -> tuple[list[_State], int]:
    """Return the states of an expression, the first one its beginning, and which of them is its end.

    Raises:
        re.error: If it is no expression.
        UnsupportedError: If it asks for more than states can follow.
    """
    re.compile(expression)
    reader = _Reader(expression)
    begin, end = reader.either()
    if reader.at < len(expression):
        raise reader.unsupported()
    reader.states[0].next.append(begin)
    return reader.states, end


def _closure(states: list[_State], active: Iterable[int], first: bool, last: bool) -> set[int]:
    """Return states with all that follow at once."""
    found, waiting = set[int](), list(active)
    while waiting:
        number = waiting.pop()
        state = states[number]
        if number in found or (state.at == "^" and not first) or (state.at == "$" and not last):
            continue
        found.add(number)
        if state.test is None:
            waiting += state.next
    return found


def _step(states: list[_State], active: set[int], character: str) -> set[int]:
    return {
        each
        for number in active
        if (test := states[number].test) is not None and test(character)
        for each in states[number].next
    }


class _Reader:
    """Turns an expression into states, from left to right; every part has a first and a last state."""

    def __init__(self, expression: str) -> None:
        self.text, self.at = expression, 0
        self.states = [_State()]

    def unsupported(self) -> UnsupportedError:
        return UnsupportedError(
            f"the expression {self.text[:80]!r} has {self.text[self.at : self.at + 8]!r}, which is not followed here; write "
            "names, dots, brackets, groups and repetitions"
        )

    def peek(self, *choices: str) -> str:
        return next((each for each in choices if self.text.startswith(each, self.at)), "")

    def take(self, *choices: str) -> str:
        found = self.peek(*choices)
        self.at += len(found)
        return found

    def add(self, test: Test | None = None, at: str = "") -> int:
        if len(self.states) >= MOST_STATES:
            raise UnsupportedError(f"the expression {self.text[:80]!r} repeats too much")
        self.states.append(_State(test, at))
        return len(self.states) - 1

    def link(self, one: int, other: int) -> None:
        self.states[one].next.append(other)

    def either(self) -> tuple[int, int]:
        begin, end = self.add(), self.add()
        while True:
            first, last = self.row()
            self.link(begin, first)
            self.link(last, end)
            if not self.take("|"):
                return begin, end

    def row(self) -> tuple[int, int]:
        begin = last = self.add()
        while self.at < len(self.text) and not self.peek("|", ")"):
            first, end = self.repeated()
            self.link(last, first)
            last = end
        return begin, last

    def repeated(self) -> tuple[int, int]:
        start = self.at
        part = self.part()
        behind = self.at
        if match := _REPEAT.match(self.text, self.at):
            least, comma, most = match.groups()
            if not (least or comma):
                return part
            low, high = int(least or 0), (int(most) if most else None) if comma else int(least or 0)
            self.at = match.end()
        elif sign := self.take("*", "+", "?"):
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        else:
            return part
        self.take("?")  # as few as possible: whether it matches is the same
        if self.peek("+", "*", "?"):
            raise self.unsupported()
        after = self.at
        result = self.copies(start, behind, low, high)
        self.at = after
        return result

    def copies(self, start: int, behind: int, low: int, high: int | None) -> tuple[int, int]:
        """Return `low` to `high` copies of the part between two places of the text, one after the other."""
        begin = last = self.add()
        end = self.add()
        for number in range(max(low + (high is None), high or 0)):
            self.at = start
            first, over = self.part()
            assert self.at == behind
            if number >= low:
                self.link(last, end)
            self.link(last, first)
            if high is None and number == low:
                self.link(over, first)
                self.link(over, end)
            last = over
        self.link(last, end)
        return begin, end

    def part(self) -> tuple[int, int]:
        if self.take("("):
            if self.peek("?") and not self.take("?:"):
                raise self.unsupported()
            part = self.either()
            self.take(")")
            return part
        if anchor := self.take("^", "$"):
            state = self.add(at=anchor)
            return state, state
        begin, end = self.add(self.character()), self.add()
        self.link(begin, end)
        return begin, end

    def character(self) -> Test:
        if self.take("["):
            return self.bracket()
        if self.take("."):
            return lambda c: c != "\n"
        if self.peek("\\"):
            return self.escape()
        one = self.text[self.at]
        self.at += 1
        return lambda c: c == one

    def escape(self) -> Test:
        letter = self.text[self.at + 1]
        if letter.lower() in _CLASSES:
            self.at += 2
            inside, wanted = _CLASSES[letter.lower()], letter.islower()
            return lambda c: inside(c) is wanted
        if letter.isalnum():
            raise self.unsupported()
        self.at += 2
        return lambda c: c == letter

    def bracket(self) -> Test:
        other, tests = bool(self.take("^")), list[Test]()
        while not tests or not self.peek("]"):
            begin = self.at
            tests.append(self.escape() if self.peek("\\") else self.range())
            if begin == self.at:
                raise self.unsupported()
        self.take("]")
        return lambda c: any(test(c) for test in tests) is not other

    def range(self) -> Test:
        low = high = self.text[self.at]
        self.at += 1
        if self.peek("-") and not self.peek("-]"):
            self.at += 1
            if self.peek("\\"):
                raise self.unsupported()
            high = self.text[self.at]
            self.at += 1
        return lambda c: low <= c <= high
