"""Ways to damage a file, all from one random generator."""

from __future__ import annotations

import json
import random
from typing import Any

NUMBERS = [
    0,
    1,
    -1,
    7,
    127,
    255,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
]
VALUES: list[Any] = [None, True, "", "x", "../x", "a" * 300, [], {}, [[]], [1, "x"], {"a": None}, 0.5, -1, 1e300, *NUMBERS]
WORDS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b":",
    b",",
    b"\\",
    b"\\ud800",
    b"null",
    b"NaN",
    b"1e999",
    b"\x00",
    b"\xff",
    b"\x1b[2J",
    b"\n",
]
YAML_WORDS = [
    b"- ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!int ",
    b"!!timestamp ",
    b"'",
    b"#",
    b"|",
    b">",
    b"? ",
    b"  ",
    b"~",
    b"0x",
    b"---\n",
]


def damaged(draw: random.Random, content: bytes, words: list[bytes]) -> bytes:
    """Return content after one to four small accidents."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        place = draw.randrange(len(data) + 1)
        span = draw.choice((1, 1, 2, 4, 8, 30))
        kind = draw.randrange(7)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1 and place < len(data):
            data[place] = draw.randrange(256)
        elif kind == 2:
            del data[place : place + span]
        elif kind == 3:
            data[place:place] = data[place : place + span] * draw.choice((1, 2, 20))
        elif kind == 4:
            data[place : place + draw.choice((0, span))] = draw.choice(words)
        elif kind == 5:
            size = draw.choice((1, 2, 4, 8))
            data[place : place + size] = (draw.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, draw.choice(("little", "big")))
        else:
            other = draw.randrange(len(data) + 1)
            data[place:place] = data[other : other + span]
    return bytes(data)


def rearranged(draw: random.Random, content: bytes) -> bytes:
    """Return JSON of which one value, at any depth, is another one, twice there, or missing."""
    tree = json.loads(content)
    node, above = tree, None
    key: Any = None
    while isinstance(node, (dict, list)) and node and (above is None or draw.random() < 0.75):
        above, key = node, draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = node[key]
    if above is None:
        return json.dumps(draw.choice(VALUES)).encode()
    kind = draw.randrange(4)
    if kind == 0:
        del above[key]
    elif kind == 1 and isinstance(above, dict):
        above[draw.choice(["x", "", "../x", "a" * 300, str(key) + "x"])] = node
    else:
        above[key] = draw.choice(VALUES)
    return json.dumps(tree).encode()
