"""A reader of pickles that builds plain values and what a table allows, and nothing else.

Python's own unpickler lets a file set attributes of whatever it built (BUILD), take memory that it only claims to need, and
nest values until hashing or printing one takes for ever. So the opcodes that pickle and torch write are carried out here: sizes
are compared with the bytes that are left, keys are plain values, and what was read stands for no more values than the bytes of
the file can justify.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from warmkit.errors import CheckpointError, FormatError, UnsupportedError

Names: TypeAlias = "Mapping[tuple[str, str], Any]"

LONGEST_NUMBER = 1024  # bytes of a whole number
DEEPEST = 100  # values inside each other
EXPANDED, FREE = 4, 10_000  # values, shared ones counted wherever they stand, that one byte may stand for; and a few more
_SCALARS = (str, int, float, bytes, bool, type(None))


class Refused(Exception):
    """A pickle asks for something that is not on the list; the message is its name."""


class _Broken(Exception):
    """A pickle that no pickler wrote."""


class Inert:
    """Stands for an object whose content says nothing of weights, or is looked at with distrust: its state is kept."""

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = {}


def ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    """Return an OrderedDict of pairs with plain keys."""
    return OrderedDict((_key(key), value) for key, value in pairs)


def counter(counts: Any = ()) -> Counter[Any]:
    """Return a Counter with plain keys."""
    return Counter({_key(key): count for key, count in dict(counts).items()})


def plain_set(values: Any = ()) -> set[Any]:
    """Return a set of plain values."""
    return set(map(_key, values))


def unpickle(content: bytes, where: str, names: Names, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Read a pickle that may hold anything.

    Args:
        content: The pickle.
        where: Starts messages.
        names: What it may name, and what stands for that here; the file chooses the arguments of what can be called.
        persistent: Returns what a persistent id means; without it there may be none.

    Raises:
        UnsupportedError: If it asks for a name that is not in `names`.
        FormatError: If it is broken, or claims more than its length can justify.
    """
    try:
        tree = _Machine(content, names, persistent).run()
        _check_extent(tree, FREE + EXPANDED * len(content))
    except Refused as error:
        raise UnsupportedError(
            f"{where}: holds {str(error)[:120]!r}, and only tensors, numbers, texts and containers of them are read from a "
            "pickle; save the weights alone: torch.save(model.state_dict(), FILE)"
        ) from None
    except CheckpointError:
        raise
    except _Broken as error:
        raise FormatError(f"{where}: no pickle of torch, or a broken one ({error})") from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, struct.error) as error:
        # the words of the error may quote a value of any size
        raise FormatError(f"{where}: no pickle of torch, or a broken one ({type(error).__name__})") from None
    return tree


def _key(value: Any) -> Any:
    """Return a key whose hash is found in a moment: a plain value, or a tuple of plain values."""
    if isinstance(value, (*_SCALARS, Inert)):
        return value
    if isinstance(value, tuple) and all(isinstance(each, _SCALARS) for each in value):
        return value
    raise _Broken(f"a {type(value).__name__} as a key")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, (list, tuple)):
        return value
    return (value.state,) if isinstance(value, Inert) else ()


def _check_extent(tree: Any, most: int) -> None:
    """Refuse values that hold themselves, nest too deep, or repeat each other more often than the file is long."""
    known: dict[int, tuple[int, int]] = {}  # by identity: how many values it stands for, and how deep
    open_: set[int] = set()
    stack = [tree]
    while stack:
        value = stack[-1]
        if id(value) in known:
            stack.pop()
            continue
        below = [each for each in _children(value) if isinstance(each, (dict, list, tuple, Inert))]
        if id(value) not in open_:
            open_.add(id(value))
            waiting = [each for each in below if id(each) not in known]
            if any(id(each) in open_ for each in waiting):
                raise _Broken("a value that holds itself")
            stack += waiting
            continue
        size = 1 + len(value) if isinstance(value, (dict, list, tuple)) else 1
        size += sum(known[id(each)][0] for each in below)
        depth = 1 + max((known[id(each)][1] for each in below), default=0)
        if size > most or depth > DEEPEST:
            raise _Broken(f"values nested {DEEPEST} deep" if depth > DEEPEST else "more values than its length can justify")
        known[id(value)] = size, depth
        open_.discard(id(value))
        stack.pop()


class _Machine:
    """Carries out the opcodes of one pickle: a stack, the marks on it, and a memo."""

    def __init__(self, content: bytes, names: Names, persistent: Callable[[Any], Any] | None) -> None:
        self.content, self.at = content, 0
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self._names, self._persistent = names, persistent
        self._handed = 0  # elements of containers that calls were given: a call may copy them

    def run(self) -> Any:
        content, end = self.content, len(self.content)
        while self.at < end:
            operation = content[self.at]
            self.at += 1
            if operation == _STOP:
                return self.stack.pop()
            carry_out = _OPERATIONS[operation]
            if carry_out is None:
                raise _Broken(f"opcode {operation:#04x}")
            carry_out(self)
        raise _Broken("it ends before its end")

    # ---- what is read ----

    def take(self, count: int) -> bytes:
        begin, self.at = self.at, self.at + count
        if count < 0 or self.at > len(self.content):
            raise _Broken(f"{count:,} bytes are claimed, {len(self.content) - begin:,} are left")
        return self.content[begin : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        end = self.content.find(b"\n", self.at)
        if end < 0:
            raise _Broken("a name without an end")
        text, self.at = self.content[self.at : end], end + 1
        return text.decode()

    def items(self) -> list[Any]:
        """Return what lies above the last mark, and go back below it."""
        above, self.stack = self.stack, self.marked.pop()
        return above

    # ---- what is built ----

    def named(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise _Broken("a name that is no text")
        if (module, name) not in self._names:
            raise Refused(f"{module}.{name}")
        self.stack.append(self._names[module, name])

    def fill(self, into: type, pairs: list[Any]) -> Any:
        target = self.stack[-1]
        if not isinstance(target, into):
            raise _Broken(f"items for a {type(target).__name__}")
        if isinstance(target, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                target[_key(key)] = value
        elif isinstance(target, list):
            target += pairs
        else:
            target |= plain_set(pairs)

    def call(self, what: Any, arguments: Any) -> None:
        if not callable(what) or not isinstance(arguments, tuple):
            raise _Broken("a call of what cannot be called")
        self._handed += sum(len(each) for each in arguments if isinstance(each, (dict, list, tuple, set, str, bytes)))
        if self._handed > FREE + EXPANDED * len(self.content):
            raise _Broken("more values than its length can justify")
        self.stack.append(what(*arguments))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, OrderedDict) or not isinstance(state, dict):  # a state dict's _metadata is passed over
            raise _Broken(f"a state for a {type(target).__name__}")

    def persistent(self) -> None:
        if self._persistent is None:
            raise Refused("a storage outside of the file")
        self.stack.append(self._persistent(self.stack.pop()))


# ---- opcodes, by the names that pickletools gives them --------------------------------------------------------------

_STOP = ord(".")


def _push(read: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(read(m))


def _sized(size: int, make: Callable[[bytes], Any]) -> Callable[[_Machine], None]:
    """Push what is made of as many bytes as the next `size` bytes say."""
    return lambda m: m.stack.append(make(m.take(m.number(size))))


def _whole(content: bytes) -> int:
    if len(content) > LONGEST_NUMBER:
        raise _Broken(f"a number of {len(content):,} bytes")
    return int.from_bytes(content, "little", signed=True)


def _text(content: bytes) -> str:
    return content.decode("utf-8")


def _mark(m: _Machine) -> None:
    m.marked.append(m.stack)
    m.stack = []


def _last(count: int) -> Callable[[_Machine], None]:
    def carry_out(m: _Machine) -> None:
        if len(m.stack) < count:
            raise _Broken("a tuple of what is not there")
        m.stack[-count:] = [tuple(m.stack[-count:])]

    return carry_out


def _collect(make: Callable[[list[Any]], Any]) -> Callable[[_Machine], None]:
    def carry_out(m: _Machine) -> None:
        items = m.items()
        m.stack.append(make(items))

    return carry_out


def _fill_marked(into: type) -> Callable[[_Machine], None]:
    def carry_out(m: _Machine) -> None:
        items = m.items()
        m.fill(into, items)

    return carry_out


def _fill_one(into: type, count: int) -> Callable[[_Machine], None]:
    def carry_out(m: _Machine) -> None:
        items = m.stack[-count:]
        del m.stack[-count:]
        m.fill(into, items)

    return carry_out


def _put(place: Callable[[_Machine], int]) -> Callable[[_Machine], None]:
    def carry_out(m: _Machine) -> None:
        m.memo[place(m)] = m.stack[-1]

    return carry_out


def _global(m: _Machine) -> None:
    module = m.line()
    m.named(module, m.line())


def _stack_global(m: _Machine) -> None:
    name = m.stack.pop()
    m.named(m.stack.pop(), name)


def _call(m: _Machine) -> None:
    arguments = m.stack.pop()
    m.call(m.stack.pop(), arguments)


def _frame(m: _Machine) -> None:
    if m.number(8) > len(m.content) - m.at:
        raise _Broken("a frame past its end")


def _protocol(m: _Machine) -> None:
    if m.number(1) > 5:
        raise _Broken("a protocol that is not known")


def _dict(items: list[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


_BY_CODE: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _protocol,
    b"\x95": _frame,
    b"(": _mark,
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.items().clear(),
    b"2": _push(lambda m: m.stack[-1]),
    b"N": _push(lambda m: None),
    b"\x88": _push(lambda m: True),
    b"\x89": _push(lambda m: False),
    b"J": _push(lambda m: int.from_bytes(m.take(4), "little", signed=True)),
    b"K": _push(lambda m: m.number(1)),
    b"M": _push(lambda m: m.number(2)),
    b"\x8a": _sized(1, _whole),
    b"\x8b": _sized(4, _whole),
    b"G": _push(lambda m: struct.unpack(">d", m.take(8))[0]),
    b"X": _sized(4, _text),
    b"\x8c": _sized(1, _text),
    b"\x8d": _sized(8, _text),
    b"T": _sized(4, lambda content: content.decode("ascii")),
    b"U": _sized(1, lambda content: content.decode("ascii")),
    b"B": _sized(4, bytes),
    b"C": _sized(1, bytes),
    b"\x8e": _sized(8, bytes),
    b")": _push(lambda m: ()),
    b"\x85": _last(1),
    b"\x86": _last(2),
    b"\x87": _last(3),
    b"t": _collect(tuple),
    b"]": _push(lambda m: []),
    b"l": _collect(list),
    b"a": _fill_one(list, 1),
    b"e": _fill_marked(list),
    b"}": _push(lambda m: {}),
    b"d": _collect(_dict),
    b"s": _fill_one(dict, 2),
    b"u": _fill_marked(dict),
    b"\x8f": _push(lambda m: set()),
    b"\x90": _fill_marked(set),
    b"\x91": _collect(lambda items: frozenset(map(_key, items))),
    b"c": _global,
    b"\x93": _stack_global,
    b"R": _call,
    b"\x81": _call,  # NEWOBJ: what the table holds is called in either way
    b"b": lambda m: m.build(),
    b"h": _push(lambda m: m.memo[m.number(1)]),
    b"j": _push(lambda m: m.memo[m.number(4)]),
    b"q": _put(lambda m: m.number(1)),
    b"r": _put(lambda m: m.number(4)),
    b"\x94": _put(lambda m: len(m.memo)),
    b"Q": lambda m: m.persistent(),
}
_OPERATIONS = [_BY_CODE.get(bytes([code])) for code in range(256)]
