"""YAML of others as trees of nodes, whose aliases, depth and length are bounded."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import ComposerError

LONGEST, MOST_NODES, MOST_ALIASES, MOST_NESTED = 1_000_000, 100_000, 1_000, 50
"""Characters of a recipe; values, aliases and depth of one, with aliases followed."""


class _Loader(yaml.SafeLoader):
    """A loader of YAML whose nodes nest and repeat each other within bounds."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = self.aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark
        self.aliases += self.check_event(yaml.AliasEvent)
        self.depth += 1
        if self.depth > MOST_NESTED or self.aliases > MOST_ALIASES:
            what = f"nested more than {MOST_NESTED} deep" if self.depth > MOST_NESTED else f"more than {MOST_ALIASES} aliases"
            raise ComposerError(None, None, what, mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def compose_documents(text: str) -> list[Any]:
    """Return the trees of a YAML text.

    Raises:
        yaml.YAMLError: If it is none, or its aliases stand for more than a recipe ever says.
    """
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"a recipe of {len(text):,} characters")
    try:
        documents = list(yaml.compose_all(text, Loader=_Loader))
    except (ValueError, OverflowError) as error:  # an escape of no character
        raise yaml.YAMLError(str(error)) from None
    for node in documents:
        _check_extent(node)
    return documents


def _check_extent(tree: Any) -> None:
    """Refuse aliases that hold themselves, or repeat each other until they stand for more than `MOST_NODES` values."""
    known: dict[int, tuple[int, int]] = {}  # by identity: how many values a node stands for, and how deep
    open_: set[int] = set()

    def extent(node: Any) -> tuple[int, int]:
        if id(node) in known:
            return known[id(node)]
        if id(node) in open_:
            raise ComposerError(None, None, "an alias of what it stands in", node.start_mark)
        open_.add(id(node))
        inner = [extent(child) for child in _children(node)]
        open_.discard(id(node))
        size, depth = 1 + sum(each for each, _ in inner), 1 + max((each for _, each in inner), default=0)
        if size > MOST_NODES or depth > MOST_NESTED:
            problem = f"nested more than {MOST_NESTED} deep" if depth > MOST_NESTED else "aliases repeat too much"
            raise ComposerError(None, None, problem, node.start_mark)
        known[id(node)] = size, depth
        return known[id(node)]

    if tree is not None:
        extent(tree)


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
